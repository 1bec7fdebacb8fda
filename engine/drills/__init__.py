"""Drills: the safety systems at work on a shadow copy of a live system, which is only read.

`read_live` or `read_tape` says what a copy is made of, `shadow_copy` makes it and takes it away
again, and each of `DRILLS` does its worst to it and reports what it saw.
"""

from collections.abc import Callable

from engine.drills.kill_switch import drill as kill_switch
from engine.drills.processes import DrillError
from engine.drills.report import Check, Report
from engine.drills.restore import drill as restore
from engine.drills.rollback import drill as rollback
from engine.drills.shadow_copy import ShadowCopy, shadow_copy
from engine.drills.source import Source, read_live, read_tape
from engine.drills.takeover import drill as takeover

DRILLS: dict[str, Callable[[ShadowCopy], Report]] = {
    "kill-switch": kill_switch,
    "rollback": rollback,
    "restore": restore,
    "takeover": takeover,
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
