"""An alert as people read it. What a bot put into an ID stays text: nothing here can break a line,
end a header, hide or turn other text round.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC

from streams.events import Alert

MAX_NAME = 128
MAX_TEXT = 500
MAX_CODES = 10
TRIMMED = "trimmed unread"
"""Stands for the codes of alerts that the stream no longer had when they were to be told."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a receiver is told in one go.

    Parameters
    ----------
    source
        Whose alert it is: the shard's prefix and number.
    entry_id
        The alert's ID in the stream, the same when it is told again; "" for none in it.
    alert
        The alert.
    untold
        How many alerts, by code, this receiver wasn't told one by one since the last message that
        reached it.
    """

    source: str
    entry_id: str
    alert: Alert
    untold: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Severity, code and state in one line."""
        alert = self.alert
        state = f" ({alert.state})" if alert.state else ""
        return f"{alert.severity.upper()}: {plain(alert.code, MAX_NAME)}{state}"

    @property
    def text(self) -> str:
        """What the alert says."""
        return plain(self.alert.message, MAX_TEXT)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Everything else about it, by name."""
        alert = self.alert
        facts = [
            ("Code", plain(alert.code, MAX_NAME)),
            ("Subject", plain(alert.subject, MAX_NAME)),
            ("Event time", alert.ts.astimezone(UTC).isoformat(" ", "seconds")),
            ("From", plain(self.source, MAX_NAME)),
        ]
        if alert.unsaid:
            facts.append(("Held back since the last of its kind", str(alert.unsaid)))
        if self.untold:
            facts.append(("Not told one by one", _summed_up(self.untold)))
        return facts


def plain(text: str, most: int) -> str:
    """`text` in one line of printable characters, `most` of them at most."""
    shown = "".join(
        char if char.isprintable() else " " if char.isspace() else "�" for char in text[:most]
    )
    return shown if len(text) <= most else f"{shown[:-1]}…"


def _summed_up(untold: Mapping[str, int]) -> str:
    """As in ``40 alerts: drift 30, refit 10``."""
    ranked = sorted(untold.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{plain(code, MAX_NAME)} {count}" for code, count in ranked[:MAX_CODES]]
    if rest := sum(count for _, count in ranked[MAX_CODES:]):
        parts.append(f"others {rest}")
    total = sum(untold.values())
    return f"{total} alert{'s' if total != 1 else ''}: {', '.join(parts)}"
