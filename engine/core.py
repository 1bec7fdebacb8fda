"""The pure core: one event in, its outputs out.

`Core.apply` is the only way in. Live work, replay, tests and crash recovery all call it. It reads
no clock and does no I/O; its answers depend on the config and the events so far, on nothing else.

The flow of an event:
  not an event          -> dead letter
  signal                -> scored, decided, held in hand by the guard, opened in the ledger ->
                           decision (-> alerts, an outcome when its close is already here)
  close                 -> joined to its signal -> learned -> outcome, what model and guard found
  control               -> obeyed when its signature holds -> alert
  and event time moving on expires what waited too long -> alerts, dead letters
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from engine.champions import Fitter
from engine.controls import Controls
from engine.core_config import CoreConfig
from engine.event_time import EventTime
from engine.exposure import OpenTrades
from engine.finding import Finding
from engine.ledger import Ledger, OpenSignal
from engine.live_settings import LiveSettings
from engine.model import Model, Score
from engine.operations import Operations, Refused
from engine.policy import decide
from engine.safety.alert_book import AlertBook
from engine.safety.answer import Answer
from engine.safety.guard import Guard
from streams.events import (
    Close,
    Control,
    Decision,
    Entry,
    ModelChange,
    ModelRef,
    Outcome,
    Output,
    Signal,
    dead,
    encode,
)

COUNTS = (
    "events", "signals", "closes", "controls", "decisions", "outcomes", "dead", "alerts", "models",
    "duplicate_signals", "duplicate_closes", "orphan_closes", "expired_signals", "late_closes",
)  # fmt: skip


class Core:
    """The state machine that bots talk to.

    Parameters
    ----------
    config
        What its answers depend on.
    fitter
        Computes refits.
    control_key
        Control events must be signed with it; without one none is obeyed.
    source
        The name of the input, for dead letters.
    """

    def __init__(
        self,
        config: CoreConfig,
        fitter: Fitter,
        control_key: bytes | None = None,
        source: str = "events",
    ) -> None:
        self.config = config
        self.counts = dict.fromkeys(COUNTS, 0)
        self.decisions_digest = bytes(32).hex()
        self.model = Model(config, fitter)
        self.ledger = Ledger(
            config.ledger.max_open,
            config.ledger.max_parked,
            config.ledger.remember,
            timedelta(days=config.ledger.expire_days),
            timedelta(minutes=config.ledger.park_minutes),
        )
        self.trades = OpenTrades()
        self._time = EventTime()
        self._controls = Controls(control_key)
        # Of their own, so that many of them never make a person's command too old to be obeyed.
        self._measurements = Controls(control_key)
        self.settings = LiveSettings(config)
        self.guard = Guard(config)
        self.book = AlertBook(config.alerts)
        self._operations = Operations(self.model.champions, self.guard, self.settings)
        self._source = source
        self._out: list[Output] = []

    def apply(self, entry: Entry) -> list[Output]:
        """Everything that follows from one input entry, in the order it is to be published."""
        out: list[Output] = []
        self._out = out
        self.counts["events"] += 1
        event = entry.event
        if event is None:
            self._bury(entry.id, entry.data, "invalid", entry.error or "")
            return out
        if isinstance(event, Signal):
            self._signal(entry, event)
        elif isinstance(event, Close):
            self._close(entry, event)
        else:
            self._control(entry, event)
        return out

    # Signals

    def _signal(self, entry: Entry, signal: Signal) -> None:
        self.counts["signals"] += 1
        if signal.signal_id in self.ledger.open or self.ledger.has_ended(signal.signal_id):
            self.counts["duplicate_signals"] += 1
            return
        problem = self.model.problem(signal)
        if problem is not None:
            self._bury(entry.id, entry.data, "feature_type", problem)
            return
        self._advance(signal.ts)
        opened = self._decide(entry.id, signal)
        self.ledger.open[signal.signal_id] = opened
        told = [*self.model.watch(opened.row), *self.guard.decided(opened, self._time.now)]
        if told:
            self._tell(signal.ts, told)
        parked = self.ledger.parked.pop(signal.signal_id, None)
        if parked is not None:
            self._learn(parked.close)

    def _decide(self, entry_id: str, signal: Signal) -> OpenSignal:
        score = self.model.score(signal)
        answer = self._answer(signal, score)
        decision = self._decision(entry_id, signal, score, answer)
        self.decisions_digest = chain(self.decisions_digest, decision)
        self.counts["decisions"] += 1
        self._out.append(decision)
        done, advised = answer.done, answer.advised
        opened = OpenSignal(
            signal.signal_id,
            signal.ts,
            signal.symbol,
            signal.side,
            signal.strategy,
            signal.baseline,
            score.regime,
            done.action,
            done.size_multiplier,
            done.kelly_fraction,
            done.propensity,
            answer.arm,
            self.guard.rollout.mode,
            advised.action,
            advised.size_multiplier,
            self.model.closes,
            score.outlook,
            score.row,
            score.frozen,
            score.votes,
        )
        self.trades.opened(opened)
        return opened

    def _answer(self, signal: Signal, score: Score) -> Answer:
        """What is done about a signal: what the model would do, held in hand by the guard."""
        wanted = decide(
            self.model.belief(signal, score, explored(signal.signal_id, self.config)),
            self.trades.facing(signal),
            signal.baseline,
            self.model.closes,
            self.settings.policy,
        )
        return self.guard.answer(signal, wanted, self.trades.of_strategy(signal.strategy))

    def _decision(self, entry_id: str, signal: Signal, score: Score, answer: Answer) -> Decision:
        outlook, done, mode = score.outlook, answer.done, self.guard.rollout.mode
        # What the model would do is shown where it isn't done; in shadow only in the outcome.
        shown = answer.advised if answer.arm != "model" and mode != "shadow" else None
        state = self.guard.switch.state_now
        return Decision(
            decision_id=entry_id,
            signal_id=signal.signal_id,
            ts=signal.ts,
            symbol=signal.symbol,
            action=done.action,
            probability=outlook.probability,
            expected_return_pct=outlook.expected_return_pct,
            risk=outlook.risk,
            size_multiplier=done.size_multiplier,
            reasons=done.reasons,
            model=ModelRef(
                update=self.model.closes,
                last_close=self.model.last_close,
                champion=self.model.champion,
                config=self.settings.digest,
            ),
            regime=score.regime,
            arm=None if mode == "live" else answer.arm,
            mode=None if mode == "live" else mode,
            safety=None if state == "ACTIVE" else state,
            advised=None if shown is None else shown.action,
            advised_size=None if shown is None else shown.size_multiplier,
            baseline=signal.baseline,
            kelly_fraction=done.kelly_fraction,
            probability_interval=outlook.probability_interval,
            return_interval_pct=outlook.return_interval_pct,
            propensity=done.propensity,
        )

    def score(self, entry: Entry) -> Decision:
        """The decision that a signal would get now, without a record: nothing is changed.

        Raises `ValueError` when the entry is no signal, or its features can't be used.
        """
        signal = entry.event
        if not isinstance(signal, Signal):
            raise ValueError(entry.error or "only a signal can be scored")
        problem = self.model.problem(signal)
        if problem is not None:
            raise ValueError(problem)
        score, _ = self.model.preview(signal)
        return self._decision(entry.id, signal, score, self._answer(signal, score))

    # Closes

    def _close(self, entry: Entry, close: Close) -> None:
        self.counts["closes"] += 1
        if close.signal_id in self.ledger.open:
            self._learn(close)
        elif close.signal_id in self.ledger.parked or self.ledger.has_closed(close.signal_id):
            self.counts["duplicate_closes"] += 1
            return
        elif self.ledger.has_ended(close.signal_id):
            self.counts["late_closes"] += 1
            span = f"{self.config.ledger.expire_days:g} days"
            message = f"signal {close.signal_id!r} had expired: no close came within {span}"
            self._bury(entry.id, entry.data, "late_close", message)
            return
        else:
            self.ledger.park_close(entry.id, entry.data, close)
        self._advance(close.ts)

    def _learn(self, close: Close) -> None:
        opened = self.ledger.close(close.signal_id)
        self.trades.ended(opened)
        outlook = opened.outlook
        now = self._time.now
        findings = self.model.learn(opened, close, now)
        closes, drifted = self.model.closes, self.model.drifted
        noted = self.guard.closed(opened, close, closes, drifted, now)
        aside = opened.arm != "model"
        self.counts["outcomes"] += 1
        self._out.append(
            Outcome(
                signal_id=close.signal_id,
                ts=close.ts,
                opened=opened.ts,
                symbol=opened.symbol,
                side=opened.side,
                strategy=opened.strategy,
                action=opened.action,
                baseline=opened.baseline,
                probability=outlook.probability,
                expected_return_pct=outlook.expected_return_pct,
                risk=outlook.risk,
                size_multiplier=opened.size_multiplier,
                regime=opened.regime,
                arm=None if opened.mode == "live" else opened.arm,
                mode=None if opened.mode == "live" else opened.mode,
                advised=opened.advised if aside else None,
                advised_size=opened.advised_size if aside else None,
                probability_interval=outlook.probability_interval,
                return_interval_pct=outlook.return_interval_pct,
                propensity=opened.propensity,
                won=close.return_pct > 0,
                stopped=None if close.exit_reason is None else close.exit_reason == "stop",
                return_pct=close.return_pct,
                executed=close.executed is not False,
                experts=self.model.by_name(opened.frozen.experts),
                update=self.model.closes,
            )
        )
        if findings or noted:
            self._tell(close.ts, [*findings, *noted])

    # Controls

    def _control(self, entry: Entry, control: Control) -> None:
        self.counts["controls"] += 1
        try:
            measured = control.command == "measure"
            refusal = (self._measurements if measured else self._controls).refusal(control)
            if refusal is not None:
                raise Refused(refusal)
            told = self._operations.obey(control, self._time.now)
        except Refused as error:
            self._bury(entry.id, entry.data, "control_refused", str(error))
            return
        self._tell(control.ts, told)

    # Time, dead letters, alerts

    def _advance(self, ts: datetime) -> None:
        """Event time takes in `ts`, of an event that was of use; what has waited too long goes."""
        self._time.see(ts)
        now = self._time.now
        for overdue in self.ledger.overdue(now):
            if isinstance(overdue, OpenSignal):
                self.counts["expired_signals"] += 1
                self.trades.ended(overdue)
                message = f"no close came for the signal of {overdue.ts.isoformat()}; given up"
                self._tell(now, [Finding("info", "signal_expired", overdue.signal_id, message)])
            else:
                self.counts["orphan_closes"] += 1
                message = f"no signal {overdue.close.signal_id!r} came for this close"
                self._bury(overdue.entry_id, overdue.data, "orphan_close", message)
        told = self.guard.tick(now)
        if told:
            self._tell(now, told)

    def _bury(self, entry_id: str, data: bytes, reason: str, message: str) -> None:
        self.counts["dead"] += 1
        self._out.append(dead(self._source, entry_id, reason, message, data))

    def _tell(self, ts: datetime, told: Sequence[Finding | ModelChange]) -> None:
        """Publish what was found, as far as it is to be said now."""
        for one in told:
            if isinstance(one, ModelChange):
                self.counts["models"] += 1
                self._out.append(one)
                continue
            alert = self.book.say(one, ts, self._time.now)
            if alert is not None:
                self.counts["alerts"] += 1
                self._out.append(alert)

    def figures(self) -> dict[str, object]:
        """What stands where, for people."""
        return {
            **self.guard.figures(),
            "champion": self.model.champion,
            "models": self.model.champions.registry.figures(),
            "refit": self.model.champions.figures(),
            "settings": {"changed": self.settings.figures(), "digest": self.settings.digest},
            "alerts_held_back": self.book.held_back,
            "event_time": self._time.now.isoformat(),
        }

    # State

    def state(self) -> dict[str, object]:
        """All that the next answer depends on, and what has been counted.

        Under `transport` stands what isn't the events' own: the state digest leaves it out.
        """
        return {
            "transport": {"parked": [parked.entry_id for parked in self.ledger.parked.values()]},
            "counts": dict(self.counts),
            "decisions_digest": self.decisions_digest,
            "time": self._time.state(),
            "controls": self._controls.state(),
            "measurements": self._measurements.state(),
            "settings": self.settings.state(),
            "guard": self.guard.state(),
            "book": self.book.state(),
            "ledger": self.ledger.state(),
            "model": self.model.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, as if never stopped."""
        self.counts = dict.fromkeys(COUNTS, 0) | state["counts"]
        self.decisions_digest = state["decisions_digest"]
        self._time.restore(state["time"])
        self._controls.restore(**state["controls"])
        self._measurements.restore(**state["measurements"])
        self.settings.restore(state["settings"])
        self.guard.restore(state["guard"])
        self.book.restore(state["book"])
        self.ledger.restore(state["ledger"], state["transport"]["parked"])
        self.trades = OpenTrades()
        for opened in self.ledger.open.values():
            self.trades.opened(opened)
        self.model.restore(state["model"])


def explored(signal_id: str, config: CoreConfig) -> bool:
    """Whether a signal is drawn for exploration: by a hash of its ID and the seed, so that the
    draw depends on nothing that is known of the signal, and is the same in a replay.
    """
    key = config.seed.to_bytes(8, "big")
    drawn = hashlib.blake2b(signal_id.encode(), digest_size=8, key=key).digest()
    return int.from_bytes(drawn, "big") < config.policy.exploration_rate * 2.0**64


def chain(digest: str, decision: Decision) -> str:
    """The digest over all decisions up to this one: SHA-256 of the digest before and its bytes.

    `decision_id` is left out: it is the transport's, so a tape and a stream with the same events
    have the same digest.
    """
    data = encode(decision)
    named = b'"decision_id":"%b",' % decision.decision_id.encode()
    return hashlib.sha256(bytes.fromhex(digest) + data.replace(named, b"", 1)).hexdigest()
