"""Drills: the safety systems at work on a shadow copy of a live system, which is only read.

`read_live` or `read_tape` says what a copy is made of, `shadow_copy` makes it and takes it away
again, and each of `DRILLS` does its worst to it and reports what it saw.
"""

from collections.abc import Callable

from engine.drills import kill_switch, restore, rollback, takeover
from engine.drills.processes import DrillError
from engine.drills.report import Check, Report
from engine.drills.shadow_copy import ShadowCopy, shadow_copy
from engine.drills.source import Source, read_live, read_tape

DRILLS: dict[str, Callable[[ShadowCopy], Report]] = {
    "kill-switch": kill_switch.drill,
    "rollback": rollback.drill,
    "restore": restore.drill,
    "takeover": takeover.drill,
}
"""Every drill there is, by the name of its command."""

__all__ = [
    "DRILLS",
    "Check",
    "DrillError",
    "Report",
    "ShadowCopy",
    "Source",
    "read_live",
    "read_tape",
    "shadow_copy",
]
