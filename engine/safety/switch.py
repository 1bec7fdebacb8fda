"""The kill switch: a person halts the engine, and a person arms it again.

Halted, it goes on learning from every close and answers every signal, but with what is configured
for that and not with what it believes. The switch is part of the state: it survives a crash, and a
replay halts where the live engine did.
"""

from collections.abc import Mapping
from typing import Any

from engine.core_config import PolicyConfig
from engine.policy import Verdict
from engine.safety.settings import SafetyConfig
from streams.events import Baseline, Control


class KillSwitch:
    """Whether the engine's decisions count.

    Parameters
    ----------
    config
        What a halted engine answers.
    policy
        The baseline of bots that name none.
    """

    def __init__(self, config: SafetyConfig, policy: PolicyConfig) -> None:
        self._config = config
        self._policy = policy
        self.halted_by: str | None = None
        """Who halted it; None: it is armed."""

    def obey(self, control: Control) -> str | None:
        """Halt or arm, as `control` says; returns why that can't be done, None when it was."""
        halt = control.command == "halt"
        if halt == (self.halted_by is not None):
            return f"the engine is {'halted' if halt else 'armed'} already; nothing was changed"
        self.halted_by = control.by if halt else None
        return None

    def verdict(self, baseline: Baseline | None) -> Verdict | None:
        """What a halted engine answers to a signal with that baseline; None when it is armed."""
        if self.halted_by is None:
            return None
        if self._config.halted_answer == "skip":
            return Verdict("skip", 0.0, 0.0, ("halted",), 0.0)
        answer = baseline or self._policy.default_baseline
        reasons = ("halted",) if baseline else ("halted", "default_baseline")
        if answer == "skip":
            return Verdict("skip", 0.0, 0.0, reasons, 0.0)
        return Verdict("take", 1.0, None, reasons, 1.0)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"halted_by": self.halted_by}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.halted_by = state["halted_by"]
