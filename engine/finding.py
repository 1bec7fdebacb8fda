"""What the core tells people: becomes an `Alert`."""

from dataclasses import dataclass
from typing import Literal

from streams.events import Severity

AlertState = Literal["firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know."""

    severity: Severity
    code: str
    subject: str
    message: str
    state: AlertState | None = None
    """Whether a condition has begun or is over; None: something happened, and that is all."""
    always: bool = False
    """Whether somebody waits for it, so that it isn't held back."""
