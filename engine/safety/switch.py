"""The kill switch: ACTIVE, REDUCING or HALTED, by triggers and by people.

Halted, the engine goes on learning from every close and answers every signal, but with what is
configured for that and not with what it believes. All of it is part of the state: it survives a
crash, and a replay halts where the live engine did.

What fires stays fired until a person arms the engine or, where one is configured, the cool-down is
over; firing again begins the cool-down anew. A trigger whose target is ACTIVE only warns, and is
over when its figure is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from drift.shares import BACK, PAST
from engine.finding import Finding
from engine.ledger import from_micros, to_micros
from engine.safety.settings import SafetyConfig, State
from engine.safety.triggers import (
    Measured,
    RepeatedDrift,
    Trade,
    Watcher,
    share_monitors,
    watchers,
)
from streams.events import Severity

STATES: tuple[State, ...] = get_args(State)
"""From the least to the most restrained."""
OPERATOR = "operator"
"""What stands for a person's own halt among what fires."""
SUBJECT = "kill_switch"


@dataclass(frozen=True, slots=True)
class Firing:
    """Something that holds the engine back."""

    target: State
    since: datetime
    until: datetime | None
    """When it is over by itself; None: when a person arms the engine."""


class KillSwitch:
    """Whether the engine's decisions count.

    Parameters
    ----------
    config
        Triggers, and what becomes of the engine when they fire.
    """

    def __init__(self, config: SafetyConfig) -> None:
        self._config = config
        self._shares, self._monitors = share_monitors(config.triggers)
        self._watchers = watchers(config.triggers, self._shares, self._monitors)
        # The bits of all figures that are past their thresholds.
        self._past = sum(PAST << 2 * figure for figure in range(len(self._shares)))
        self.firing: dict[str, Firing] = {}
        """What fires now, by trigger."""
        self.fired = dict.fromkeys((OPERATOR, *self._watchers), 0)
        """How often each has, since the beginning."""
        self.state_now: State = "ACTIVE"
        self.next: datetime | None = None
        """When the first cool-down is over."""
        closed, decided = [], []
        for name, watcher in self._watchers.items():
            if hasattr(watcher, "closed"):
                closed.append((name, watcher, watcher.closed))
            if hasattr(watcher, "decided"):
                decided.append((name, watcher, watcher.decided))
        self._closed, self._decided = closed, decided

    # What happens

    def decided(self, probability: float, now: datetime) -> list[Finding]:
        """A signal was decided at event time `now`."""
        findings: list[Finding] = []
        for name, watcher, decided in self._decided:
            fires = decided(probability, now)
            if fires or (fires is False and name in self.firing):
                self._judge(name, watcher, fires, now, findings)
        return findings

    def closed(self, trade: Trade, now: datetime) -> list[Finding]:
        """A close was learned."""
        findings: list[Finding] = []
        for name, watcher, closed in self._closed:
            fires = closed(trade)
            if fires or (fires is False and name in self.firing):
                self._judge(name, watcher, fires, now, findings)
        said = self._monitors.update(
            trade.probability, trade.won, trade.taken, trade.baseline_takes
        )
        if said & self._past or (said and self.firing):
            for figure, name in enumerate(self._shares):
                found = said >> 2 * figure & 3
                if found == PAST or (found == BACK and name in self.firing):
                    self._judge(name, self._watchers[name], found == PAST, now, findings)
        return findings

    def drifted(self, closes: int, now: datetime) -> list[Finding]:
        """The mixture's drift detector alarmed at that close."""
        watcher = self._watchers.get("repeated_drift")
        findings: list[Finding] = []
        if isinstance(watcher, RepeatedDrift):
            fires = watcher.drifted(closes)
            self._judge("repeated_drift", watcher, fires, now, findings)
        return findings

    def measured(self, name: str, value: float, now: datetime) -> list[Finding]:
        """A worker measured something. Raises `LookupError` when nothing looks at it."""
        watcher = self._watchers.get(name)
        if not isinstance(watcher, Measured):
            known = [n for n, w in self._watchers.items() if isinstance(w, Measured)]
            raise LookupError(f"nothing here looks at {name!r}; known: {', '.join(known)}")
        findings: list[Finding] = []
        self._judge(name, watcher, watcher.measured(value), now, findings)
        return findings

    def tick(self, now: datetime) -> list[Finding]:
        """Event time is `now`: what has cooled down is over."""
        if self.next is None or now < self.next:
            return []
        findings: list[Finding] = []
        for name, firing in list(self.firing.items()):
            if firing.until is not None and firing.until <= now:
                self._lift(name)
                findings.append(self._resolved(name, "its cool-down is over"))
        self._turn()
        return findings

    # What people do

    def halt(self, now: datetime) -> bool:
        """A person halts it; False when one has already."""
        if OPERATOR in self.firing:
            return False
        self._fire(OPERATOR, "HALTED", None, now)
        return True

    def arm(self) -> list[str] | None:
        """A person arms it: nothing fires any more. Returns what did; None: nothing did."""
        held = [name for name, firing in self.firing.items() if firing.target != "ACTIVE"]
        if not held:
            return None
        for name in held:
            self._lift(name)
        self._turn()
        return held

    def resolved(self, lifted: list[str]) -> list[Finding]:
        """What there is to tell of triggers that a person has lifted."""
        return [
            self._resolved(name, "a person armed the engine") for name in lifted if name != OPERATOR
        ]

    # How it turns

    def _judge(
        self, name: str, watcher: Watcher, fires: bool, now: datetime, findings: list[Finding]
    ) -> None:
        config = getattr(self._config.triggers, name)
        if not fires:
            if name in self.firing and self.firing[name].target == "ACTIVE":
                del self.firing[name]
                findings.append(self._resolved(name, watcher.says()))
            return
        held = self.firing.get(name)
        cool_down = config.cool_down_minutes
        until = None if cool_down is None else now + timedelta(minutes=cool_down)
        if held is not None:
            self.firing[name] = Firing(held.target, held.since, until)
            self._turn()
            return
        before = self.state_now
        self._fire(name, config.target, until, now)
        becomes = "" if self.state_now == before else f"; the engine is {self.state_now}"
        findings.append(
            Finding(
                self._severity(name),
                name,
                SUBJECT,
                f"{watcher.says()} (threshold {config.threshold:g}){becomes}",
                "firing",
            )
        )

    def _fire(self, name: str, target: State, until: datetime | None, now: datetime) -> None:
        self.firing[name] = Firing(target, now, until)
        self.fired[name] += 1
        self._turn()

    def _lift(self, name: str) -> None:
        del self.firing[name]
        if name in self._watchers:
            self._watchers[name].clear()

    def _turn(self) -> None:
        """The state that what fires asks for, and when to look again."""
        targets = [firing.target for firing in self.firing.values()]
        self.state_now = max(targets, key=STATES.index, default="ACTIVE")
        ends = [firing.until for firing in self.firing.values() if firing.until is not None]
        self.next = min(ends, default=None)

    def _resolved(self, name: str, why: str) -> Finding:
        """As severe as what it resolves: who was told of that is told of this."""
        return Finding(self._severity(name), name, SUBJECT, f"over: {why}", "resolved")

    def _severity(self, name: str) -> Severity:
        target = getattr(self._config.triggers, name).target
        return "critical" if target == "HALTED" else "warning"

    def figures(self) -> dict[str, object]:
        """For people: the state, what fires since when, how often each has fired."""
        return {
            "state": self.state_now,
            "firing": {
                name: {
                    "target": firing.target,
                    "since": firing.since.isoformat(),
                    "until": None if firing.until is None else firing.until.isoformat(),
                }
                for name, firing in self.firing.items()
            },
            "fired": dict(self.fired),
        }

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "firing": [
                [
                    name,
                    f.target,
                    to_micros(f.since),
                    None if f.until is None else to_micros(f.until),
                ]
                for name, f in self.firing.items()
            ],
            "fired": dict(self.fired),
            "shares": self._monitors.state(),
            "watchers": {name: watcher.state() for name, watcher in self._watchers.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.firing = {
            name: Firing(target, from_micros(since), None if until is None else from_micros(until))
            for name, target, since, until in state["firing"]
        }
        self.fired = dict(state["fired"])
        self._monitors.restore(state["shares"])
        for name, watcher in self._watchers.items():
            watcher.restore(**state["watchers"][name])
        self._turn()
