"""What waits for a person's word: proposals, by number. Past `WAITING` the oldest is dropped."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WAITING = 20


@dataclass(frozen=True, slots=True)
class Proposal:
    """Something that is done when somebody approves it.

    Parameters
    ----------
    command, args
        What is done then, as in a control event.
    by, reason
        Who or what proposes it, and why.
    """

    number: int
    command: str
    args: dict[str, float | bool | str | None]
    by: str
    reason: str


class Approvals:
    """Proposals that wait."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: OrderedDict[int, Proposal] = OrderedDict()

    def propose(
        self, command: str, args: Mapping[str, float | bool | str | None], by: str, reason: str
    ) -> Proposal:
        """Put something up. What was proposed before for the same end is replaced."""
        for number, waiting in list(self._waiting.items()):
            alike = waiting.command == command and waiting.args.get("setting") == args.get(
                "setting"
            )
            if alike:
                del self._waiting[number]
        self._count += 1
        proposal = Proposal(self._count, command, dict(args), by, reason)
        self._waiting[proposal.number] = proposal
        if len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)
        return proposal

    def take(self, number: float) -> Proposal:
        """Take a proposal out. Raises `LookupError` when it doesn't wait."""
        proposal = self._waiting.pop(int(number), None) if number == int(number) else None
        if proposal is None:
            waiting = ", ".join(map(str, self._waiting)) or "none"
            raise LookupError(f"no proposal {number:g} waits; waiting: {waiting}")
        return proposal

    def withdraw(self, command: str) -> None:
        """What was proposed of this kind is out of date."""
        for number, waiting in list(self._waiting.items()):
            if waiting.command == command:
                del self._waiting[number]

    def figures(self) -> list[dict[str, object]]:
        """For people."""
        return [
            {"proposal": p.number, "command": p.command, "args": p.args, "by": p.by,
             "reason": p.reason}
            for p in self._waiting.values()
        ]  # fmt: skip

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "count": self._count,
            "waiting": [
                [p.number, p.command, p.args, p.by, p.reason] for p in self._waiting.values()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._count = state["count"]
        self._waiting = OrderedDict(
            (number, Proposal(number, *rest)) for number, *rest in state["waiting"]
        )
