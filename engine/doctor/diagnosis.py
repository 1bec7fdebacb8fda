"""What the doctor says."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing looked at.

    Parameters
    ----------
    level
        ``ok``; ``warning``: to know, or not to be looked at; ``problem``: a guarantee is broken or
        the worker can't run.
    check
        What was looked at.
    seen
        What was found.
    mend
        What to do about it; None when nothing is.
    """

    level: Level
    check: str
    seen: str
    mend: str | None = None


def from_error(level: Level, check: str, error: Exception) -> Diagnosis:
    """A diagnosis from an error of ours, whose message ends with its mend."""
    seen, _, mend = str(error).rpartition("; ")
    return Diagnosis(level, check, seen or mend, mend if seen else None)
