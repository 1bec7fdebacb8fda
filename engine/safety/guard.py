"""Everything that holds decisions in hand, behind four calls: answer, decided, closed, tick."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.core_config import CoreConfig
from engine.finding import Finding
from engine.ledger import OpenSignal
from engine.policy import Verdict
from engine.safety.answer import Answer, answer
from engine.safety.approvals import Approvals
from engine.safety.daily import DailySummary
from engine.safety.rollout import ClosedTrade, Rollout, Step
from engine.safety.switch import KillSwitch
from engine.safety.triggers import trade
from streams.events import Close, Severity, Signal


class Guard:
    """Kill switch, rollout, hard limits, what waits for approval, the daily summary.

    Parameters
    ----------
    config
        Of the core.
    """

    def __init__(self, config: CoreConfig) -> None:
        self._config = config
        self.switch = KillSwitch(config.safety)
        self.rollout = Rollout(config.rollout, config.seed)
        self.approvals = Approvals()
        self._daily = DailySummary() if config.alerts.daily_summary else None
        self.revision = 0
        """How often people, triggers and evidence have changed what stands."""
        self.approve_above = config.safety.approve_above
        """The relative change of a setting past which somebody must approve."""

    def answer(self, signal: Signal, wanted: Verdict, open_trades: int) -> Answer:
        """What is done about a signal that the model wants to answer so.

        `open_trades` are those of its strategy.
        """
        rollout = self.rollout
        share = rollout.share
        bots = self._config.safety.bots
        if share == 1.0 and self.switch.state_now == "ACTIVE" and not bots:
            return Answer(wanted, "model", wanted)
        return answer(
            wanted,
            "model" if share == 1.0 else rollout.arm(signal.signal_id),
            rollout.mode,
            share,
            self.switch.state_now,
            signal.baseline,
            self._config.policy.default_baseline,
            bots.get(signal.strategy or ""),
            open_trades,
            self._config.safety,
        )

    def decided(self, opened: OpenSignal, now: datetime) -> list[Finding]:
        """A signal was decided."""
        if self._daily is not None:
            self._daily.decided(opened.action != "skip")
        return self._noted(self.switch.decided(opened.outlook.probability, now))

    def closed(
        self, opened: OpenSignal, close: Close, closes: int, drifted: bool, now: datetime
    ) -> list[Finding]:
        """A close was learned, as that many; the drift detector of the mixture alarmed or not."""
        policy = self._config.policy
        baseline_takes = (opened.baseline or policy.default_baseline) == "take"
        seen = trade(opened, close, baseline_takes, policy.max_position_pct)
        if self._daily is not None:
            self._daily.closed(seen)
        findings = self._noted(self.switch.closed(seen, now))
        if drifted:
            findings += self._noted(self.switch.drifted(closes, now))
        # While it warms up the model only echoes the baseline.
        if opened.arm is not None and opened.update >= policy.warmup_closes:
            step = self.rollout.learn(
                ClosedTrade(
                    opened.arm,
                    opened.mode,
                    opened.update,
                    now,
                    opened.action,
                    opened.advised,
                    close.return_pct,
                )
            )
            if step is not None:
                findings.append(self._step(step, closes, now))
        return findings

    def tick(self, now: datetime) -> list[Finding]:
        """Event time is `now`."""
        cooled, daily = self.switch.next, self._daily
        if (cooled is None or now < cooled) and (daily is None or daily.since <= now < daily.until):
            return []
        findings = self._noted(self.switch.tick(now))
        if self._daily is not None:
            summary = self._daily.turn(now, self.switch.state_now)
            if summary is not None:
                findings.append(summary)
        return findings

    def move(self, mode: Any, percent: float, closes: int, now: datetime) -> None:
        """The rollout goes to another mode or stage; a step that was proposed is out of date."""
        self.rollout.move(mode, percent, closes, now)
        self.approvals.withdraw("mode")
        self.revision += 1

    def _step(self, step: Step, closes: int, now: datetime) -> Finding:
        """Take a step that the evidence asks for, or ask for an approval."""
        config = self._config.rollout
        by_itself = (config.promotion if step.kind == "promotion" else config.demotion) == (
            "automatic"
        )
        where = step.mode if step.mode != "canary" else f"canary {step.percent:g} %"
        severity: Severity = "critical" if step.kind == "demotion" else "info"
        if by_itself:
            self.move(step.mode, step.percent, closes, now)
            return Finding(severity, step.kind, "rollout", f"to {where}: {step.reason}")
        proposal = self.approvals.propose(
            "mode", {"mode": step.mode, "percent": step.percent}, "rollout", step.reason
        )
        self.revision += 1
        message = f"{step.kind} to {where} waits as proposal {proposal.number}: {step.reason}"
        return Finding("warning", "approval_asked", "rollout", message)

    def _noted(self, findings: list[Finding]) -> list[Finding]:
        if findings:
            self.revision += 1
        return findings

    def figures(self) -> dict[str, object]:
        """For people."""
        return {
            "revision": self.revision,
            "safety": self.switch.figures(),
            "rollout": self.rollout.figures(),
            "proposals": self.approvals.figures(),
        }

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "revision": self.revision,
            "switch": self.switch.state(),
            "rollout": self.rollout.state(),
            "approvals": self.approvals.state(),
            "daily": None if self._daily is None else self._daily.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.revision = state["revision"]
        self.switch.restore(state["switch"])
        self.rollout.restore(state["rollout"])
        self.approvals.restore(state["approvals"])
        if self._daily is not None:
            self._daily.restore(state["daily"])
