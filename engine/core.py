"""The pure core: one event in, its outputs out.

`Core.apply` is the only way in. Live work, replay, tests and crash recovery all call it. It reads
no clock and does no I/O; its answers depend on the config and the events so far, on nothing else.

The flow of an event:
  not an event          -> dead letter
  signal                -> scored, decided, opened in the ledger -> decision (-> an alert when
                           features have moved, an outcome when its close is already here)
  close                 -> joined to its signal -> learned -> outcome, and what the model found
  control               -> obeyed when its signature holds -> alert
  and event time moving on expires what waited too long -> alerts, dead letters
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from engine.controls import Controls
from engine.core_config import CoreConfig
from engine.event_time import EventTime
from engine.exposure import OpenTrades
from engine.finding import Finding
from engine.ledger import Ledger, OpenSignal
from engine.model import Fitter, Model
from engine.policy import decide
from engine.safety.switch import KillSwitch
from streams.events import (
    Alert,
    Close,
    Control,
    Decision,
    Entry,
    ModelRef,
    Outcome,
    Output,
    Severity,
    Signal,
    dead,
    encode,
)

COUNTS = (
    "events", "signals", "closes", "controls", "decisions", "outcomes", "dead", "alerts",
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
        self.switch = KillSwitch(config.safety, config.policy)
        self._source = source
        self._config_digest = config.digest[:12]
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
        for finding in self.model.watch(opened.row):
            self._alert(signal.ts, finding)
        parked = self.ledger.parked.pop(signal.signal_id, None)
        if parked is not None:
            self._learn(parked.close)

    def _decide(self, entry_id: str, signal: Signal) -> OpenSignal:
        score = self.model.score(signal)
        outlook = score.outlook
        belief = self.model.belief(signal, score, explored(signal.signal_id, self.config))
        verdict = self.switch.verdict(signal.baseline) or decide(
            belief,
            self.trades.facing(signal),
            signal.baseline,
            self.model.closes,
            self.config.policy,
        )
        decision = Decision(
            decision_id=entry_id,
            signal_id=signal.signal_id,
            ts=signal.ts,
            symbol=signal.symbol,
            action=verdict.action,
            probability=outlook.probability,
            expected_return_pct=outlook.expected_return_pct,
            risk=outlook.risk,
            size_multiplier=verdict.size_multiplier,
            reasons=verdict.reasons,
            model=ModelRef(
                update=self.model.closes,
                last_close=self.model.last_close,
                champion=self.model.champion,
                config=self._config_digest,
            ),
            regime=score.regime,
            baseline=signal.baseline,
            kelly_fraction=verdict.kelly_fraction,
            probability_interval=outlook.probability_interval,
            return_interval_pct=outlook.return_interval_pct,
            propensity=verdict.propensity,
        )
        self.decisions_digest = chain(self.decisions_digest, decision)
        self.counts["decisions"] += 1
        self._out.append(decision)
        opened = OpenSignal(
            signal.signal_id,
            signal.ts,
            signal.symbol,
            signal.side,
            signal.strategy,
            signal.baseline,
            score.regime,
            verdict.action,
            verdict.size_multiplier,
            verdict.propensity,
            self.model.closes,
            outlook,
            score.row,
            score.frozen,
            score.votes,
        )
        self.trades.opened(opened)
        return opened

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
        findings = self.model.learn(opened, close)
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
        for finding in findings:
            self._alert(close.ts, finding)

    # Controls

    def _control(self, entry: Entry, control: Control) -> None:
        self.counts["controls"] += 1
        refusal = self._controls.refusal(control)
        if refusal is not None:
            self._bury(entry.id, entry.data, "control_refused", refusal)
        elif control.command == "refit":
            self.model.request_refit()
            message = f"refit asked for by {control.by}: {control.reason}"
            self._alert(control.ts, Finding("info", "control", "refit", message))
        elif control.command in ("halt", "arm"):
            self._switch(entry, control)
        else:
            message = f"unknown command {control.command!r}; known: arm, halt, refit"
            self._bury(entry.id, entry.data, "control_refused", message)

    def _switch(self, entry: Entry, control: Control) -> None:
        refusal = self.switch.obey(control)
        if refusal is not None:
            self._bury(entry.id, entry.data, "control_refused", refusal)
            return
        done = "halted" if control.command == "halt" else "armed"
        severity: Severity = "critical" if done == "halted" else "warning"
        message = f"{done} by {control.by}: {control.reason}"
        self._alert(control.ts, Finding(severity, done, "engine", message))

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
                self._alert(now, Finding("info", "signal_expired", overdue.signal_id, message))
            else:
                self.counts["orphan_closes"] += 1
                message = f"no signal {overdue.close.signal_id!r} came for this close"
                self._bury(overdue.entry_id, overdue.data, "orphan_close", message)

    def _bury(self, entry_id: str, data: bytes, reason: str, message: str) -> None:
        self.counts["dead"] += 1
        self._out.append(dead(self._source, entry_id, reason, message, data))

    def _alert(self, ts: datetime, finding: Finding) -> None:
        self.counts["alerts"] += 1
        self._out.append(
            Alert(
                ts=ts,
                severity=finding.severity,
                code=finding.code,
                subject=finding.subject,
                message=finding.message,
            )
        )

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
            "switch": self.switch.state(),
            "ledger": self.ledger.state(),
            "model": self.model.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, as if never stopped."""
        self.counts = dict.fromkeys(COUNTS, 0) | state["counts"]
        self.decisions_digest = state["decisions_digest"]
        self._time.restore(state["time"])
        self._controls.restore(**state["controls"])
        self.switch.restore(state["switch"])
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
