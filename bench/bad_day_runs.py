"""Bad days run: one engine after another, each from the same snapshot, and what each one did.

on
    As configured: the kill switch turns when it does, and nobody lifts a finger.
operator
    The same; when the trouble is over, a person arms the engine, and goes back to the champion of
    the beginning if another was fitted on closes that weren't true. All by signed commands.
never
    Every trigger warns and does nothing more: what never having halted brings.
perfect
    As `never`, but halted by a person just before the trouble, and armed when it is over.

What a trade brings is its position as a share of equity times what it really returns, summed over
trades, not compounded. A trade counts where its signal was: during the trouble, or after.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate

from bench.bad_days import Day, Event, Events, signals_of
from engine.controls import sign
from engine.core import Core
from engine.core_config import CoreConfig
from engine.fitting import InlineFitter
from engine.safety.settings import TriggersConfig
from engine.snapshotting import TAPE, take, to_bytes
from snapshots import read, state_digest
from streams import Alert, Control, Decision, ModelChange, Signal, encode, read_entry

KEY = b"the key of a bench, not of anybody"
BY = "bench"
SETTLING = 500
"""Signals within which an engine that was held back may come to be ACTIVE by itself."""
TRIGGERS = tuple(TriggersConfig.model_fields)
REACTIONS = ("drift", "feature_drift", "expert_failed", "refit_rejected")
"""What else than triggers answers."""
LIMIT = "max_positions"
"""The policy's own: no more open trades than so many."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Something that the engine said or did about a day, the first time that it did.

    Parameters
    ----------
    what
        The trigger, or an alert's code and what it is about, or `LIMIT`.
    becomes
        The kill switch's state right after.
    closes, signals
        Since the trouble began: closes that have come, signals that were decided.
    during
        Whether the trouble was still on.
    """

    what: str
    becomes: str
    closes: int
    signals: int
    during: bool


@dataclass(slots=True)
class Told:
    """What a run did with the day."""

    answers: list[Answer] = field(default_factory=list)
    states: list[tuple[str, int]] = field(default_factory=list)
    """Each state of the kill switch, and since how many signals."""
    reduced: int = 0
    """Signals of the trouble that were answered while REDUCING."""
    halted: int = 0
    """The same while HALTED."""
    limited: int = 0
    """Signals of the trouble that were skipped because too many trades were open."""
    positions: dict[str, float] = field(default_factory=dict)
    """Share of equity by signal, 0 when skipped."""
    taken: int = 0
    """Signals of the trouble that were taken, at any size."""
    position_pct: float = 0.0
    """Their mean position, percent of equity."""
    trouble_pct: float = 0.0
    """Percent of equity that trades begun during the trouble brought."""
    lowest_pct: float = 0.0
    """The lowest that this ever was, trade by trade in the order of their signals."""
    after_pct: float = 0.0
    installed: list[str] = field(default_factory=list)
    """Refits that became champion during the trouble."""
    rejected: int = 0
    """Refits that the gate refused during the trouble."""
    commands: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """What became of the operator's commands that weren't obeyed."""


class Healthy:
    """An engine that has served its beginning, kept as a snapshot.

    Parameters
    ----------
    config
        The engine's.
    events
        The beginning, and what comes after it.
    begin
        Events of the beginning. It goes on until the engine is ACTIVE.
    """

    def __init__(self, config: CoreConfig, events: Sequence[Event], begin: int) -> None:
        self.config = config
        self.entries: list[bytes] = []
        core = Core(config, InlineFitter(), KEY)
        settling = 0
        for number, event in enumerate(events):
            if number >= begin and isinstance(event, Signal):
                if core.guard.switch.state_now == "ACTIVE":
                    break
                if settling == SETTLING:
                    self._apply(core, command(event.ts, "arm", "the day begins"))
                    break
                settling += 1
            self._apply(core, encode(event))
        self.events = sum(b'"type":"control"' not in data for data in self.entries)
        self.armed = len(self.entries) > self.events
        """Whether a person had to arm it."""
        self.closes = core.model.closes
        self.champion = core.model.champion
        self.firing = sorted(core.guard.switch.firing)
        """Warnings that were on already."""
        self.fired = dict(core.guard.switch.fired)
        self._snapshot = to_bytes(take(core, TAPE, None), KEY)

    def _apply(self, core: Core, data: bytes) -> None:
        self.entries.append(data)
        core.apply(read_entry(f"0-{len(self.entries)}", data))

    def core(self, config: CoreConfig) -> Core:
        """An engine that goes on from there."""
        core = Core(config, InlineFitter(), KEY)
        core.restore(read(self._snapshot, KEY).tree)
        return core

    def replayed(self, entries: Sequence[bytes]) -> Core:
        """An engine that has seen all from its first event on."""
        core = Core(self.config, InlineFitter(), KEY)
        for number, data in enumerate((*self.entries, *entries), 1):
            core.apply(read_entry(f"0-{number}", data))
        return core


def never_halting(config: CoreConfig) -> CoreConfig:
    """The same, but no trigger does more than warn."""
    triggers = config.safety.triggers
    # Not disabled: a snapshot holds the windows of those that are enabled.
    warning = {
        name: getattr(triggers, name).model_copy(update={"target": "ACTIVE"}) for name in TRIGGERS
    }
    safety = config.safety.model_copy(update={"triggers": triggers.model_copy(update=warning)})
    return config.model_copy(update={"safety": safety})


def command(
    ts: datetime, name: str, reason: str, args: dict[str, float | bool | str | None] | None = None
) -> bytes:
    """A signed command of that time."""
    blank = Control(command=name, ts=ts, by=BY, reason=reason, sig="0" * 64, args=args)
    return encode(
        Control(command=name, ts=ts, by=BY, reason=reason, sig=sign(blank, KEY), args=args)
    )


class Course:
    """One engine through one day."""

    def __init__(self, healthy: Healthy, config: CoreConfig, day: Day) -> None:
        self.core = healthy.core(config)
        self.told = Told(states=[("ACTIVE", 0)])
        self.entries: list[bytes] = []
        self._healthy = healthy
        self._day = day
        self._closes = self.core.model.closes
        self._signals = 0
        self._during = True
        self._seen: set[str] = set()

    def run(self, operator: bool = False, perfect: bool = False) -> Told:
        """Go through it; returns what was done."""
        day, told = self._day, self.told
        if perfect:
            self._command(day.trouble[0].ts, "halt")
        self._through(day.trouble)
        self._during = False
        over = day.trouble[-1].ts
        if operator:
            champion = self._healthy.champion
            if day.misled and champion not in (None, self.core.model.champion):
                self._command(over, "rollback", {"model": champion})
        if (operator or perfect) and self.core.guard.switch.state_now != "ACTIVE":
            self._command(over, "arm")
        self._through(day.after)
        course = list(accumulate(self._brought(day.trouble), initial=0.0))
        told.trouble_pct, told.lowest_pct = course[-1], min(course)
        told.after_pct = sum(self._brought(day.after))
        taken = [told.positions.get(signal.signal_id, 0.0) for signal in signals_of(day.trouble)]
        told.taken = sum(share > 0.0 for share in taken)
        told.position_pct = 100.0 * sum(taken) / max(told.taken, 1)
        return told

    def _brought(self, events: Events) -> list[float]:
        """Percent of equity, by signal. One that has no close on the tape brought nothing."""
        positions, truth = self.told.positions, self._day.truth
        ids = [signal.signal_id for signal in signals_of(events)]
        return [positions.get(name, 0.0) * truth.get(name, 0.0) for name in ids]

    def _through(self, events: Events) -> None:
        for event in events:
            if isinstance(event, Signal):
                self._signals += 1
            self._apply(encode(event))

    def _command(
        self, ts: datetime, name: str, args: dict[str, float | bool | str | None] | None = None
    ) -> None:
        dead = self.core.counts["dead"]
        self._apply(command(ts, name, "the trouble", args))
        self.told.commands.append(name)
        if self.core.counts["dead"] > dead:
            self.told.refused.append(name)

    def _apply(self, data: bytes) -> None:
        self.entries.append(data)
        number = len(self._healthy.entries) + len(self.entries)
        told = self.told
        for output in self.core.apply(read_entry(f"0-{number}", data)):
            if isinstance(output, Decision):
                share = output.kelly_fraction
                if share is None:
                    share = output.size_multiplier * self._position
                told.positions[output.signal_id] = 0.0 if output.action == "skip" else share
                limited = "too_many_positions" in output.reasons
                if limited:
                    self._answered(LIMIT)
                if self._during:
                    told.reduced += output.safety == "REDUCING"
                    told.halted += output.safety == "HALTED"
                    told.limited += limited
            elif isinstance(output, Alert):
                self._alerted(output)
            elif isinstance(output, ModelChange) and self._during:
                if output.change == "installed":
                    told.installed.append(output.model)
                told.rejected += output.change == "rejected"
        state = self.core.guard.switch.state_now
        if state != told.states[-1][0]:
            told.states.append((state, self._signals))

    @property
    def _position(self) -> float:
        """The position that a size of 1 stands for where only the bot knows it."""
        return self._healthy.config.policy.max_position_pct / 100.0

    def _alerted(self, alert: Alert) -> None:
        if alert.code in ("drift", "expert_failed"):
            self._answered(f"{alert.code}: {alert.subject}")
        elif alert.code in REACTIONS or (alert.code in TRIGGERS and alert.state == "firing"):
            self._answered(alert.code)

    def _answered(self, what: str) -> None:
        if what in self._seen:
            return
        self._seen.add(what)
        closes = self.core.model.closes - self._closes
        state = self.core.guard.switch.state_now
        self.told.answers.append(Answer(what, state, closes, self._signals, self._during))


@dataclass(frozen=True, slots=True)
class Found:
    """What a day came to.

    Parameters
    ----------
    runs
        By name, as at the top of this module.
    affected
        Signals of the trouble that `on` answered otherwise than `never`.
    replays
        Whether the whole of `on` and of `operator`, replayed from its first event, ends in the same
        decisions and the same state.
    """

    name: str
    runs: dict[str, Told]
    affected: int
    replays: bool


def lived(name: str, healthy: Healthy, day: Day) -> Found:
    """A day by each of the engines."""
    calm = never_halting(healthy.config)
    on = Course(healthy, healthy.config, day)
    operator = Course(healthy, healthy.config, day)
    runs = {
        "on": on.run(),
        "operator": operator.run(operator=True),
        "never": Course(healthy, calm, day).run(),
        "perfect": Course(healthy, calm, day).run(perfect=True),
    }
    ours, theirs = runs["on"].positions, runs["never"].positions
    affected = sum(ours[s.signal_id] != theirs[s.signal_id] for s in signals_of(day.trouble))
    # An operator with nothing to do does the same as nobody.
    courses = [on, operator] if operator.told.commands else [on]
    replays = all(_same(course.core, healthy.replayed(course.entries)) for course in courses)
    return Found(name, runs, affected, replays)


def _same(one: Core, other: Core) -> bool:
    return one.decisions_digest == other.decisions_digest and (
        state_digest(one.state()) == state_digest(other.state())
    )


def news(found: Found, usual: Found) -> list[Answer]:
    """What was answered during a trouble, and isn't on the undisturbed day."""
    known = {answer.what for answer in usual.runs["on"].answers}
    return [a for a in found.runs["on"].answers if a.during and a.what not in known]
