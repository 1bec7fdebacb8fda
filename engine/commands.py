"""The commands that control events carry: their names, meanings and arguments.

One table serves the core, which refuses what doesn't fit, the command line and the HTTP API.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streams.events import Control

Kind = Literal["text", "number", "flag"]
_NAMES: dict[Kind, str] = {"text": "a text", "number": "a number", "flag": "true or false"}


@dataclass(frozen=True, slots=True)
class Command:
    """What the engine can be told.

    Parameters
    ----------
    meaning
        For people, in one line.
    required, optional
        Its arguments and their kinds.
    """

    meaning: str
    required: Mapping[str, Kind] = field(default_factory=dict)
    optional: Mapping[str, Kind] = field(default_factory=dict)


COMMANDS: dict[str, Command] = {
    "halt": Command("stop deciding; answer as configured for a halted engine"),
    "arm": Command("decide again"),
    "refit": Command(
        "launch a LightGBM refit at the next close; full: try several shapes; force: install it"
        " whatever the gate says",
        optional={"full": "flag", "force": "flag"},
    ),
    "mode": Command(
        "begin or change the rollout: shadow, advisory, canary or live",
        {"mode": "text"},
        {"percent": "number"},
    ),
    "install": Command(
        "make a kept model the champion; force: although its gate refused it",
        {"model": "text"},
        {"force": "flag"},
    ),
    "rollback": Command("go back to the champion before, or to the kept model that is named",
                        optional={"model": "text"}),
    "pin": Command("make a kept model the champion and keep it, whatever refits come",
                   {"model": "text"}),
    "unpin": Command("let refits replace the champion again"),
    "set": Command("change a setting while running", {"setting": "text", "value": "number"}),
    "approve": Command("do what was proposed", {"proposal": "number"}),
    "reject": Command("drop what was proposed", {"proposal": "number"}),
    "measure": Command(
        "what the worker's own clock says; sent by workers", {"name": "text", "value": "number"}
    ),
}  # fmt: skip
"""Every command there is. Each may also carry `revision`: see `problem`."""
OPERATORS = {name: command for name, command in COMMANDS.items() if name != "measure"}
"""Those that people give."""


def problem(control: Control, revision: int) -> str | None:
    """Why a command can't be obeyed, for a person; None when its form is right.

    Parameters
    ----------
    control
        The command.
    revision
        How often commands or the engine itself have changed what stands. A command that carries
        another `revision` was given in view of something that has changed since: it is stale.
    """
    command = COMMANDS.get(control.command)
    if command is None:
        return f"unknown command {control.command!r}; known: {', '.join(sorted(COMMANDS))}"
    given = dict(control.args or {})
    seen = given.pop("revision", None)
    if seen is not None and (isinstance(seen, bool | str) or seen != revision):
        return (
            f"the command is stale: it was given at revision {seen:g}, this is revision {revision};"
            " look again, then repeat it"
        )
    kinds = {**command.required, **command.optional}
    for name, value in given.items():
        if name not in kinds:
            known = ", ".join(kinds) or "none"
            return f"{control.command} takes no argument {name!r}; it takes: {known}"
        if not _is(value, kinds[name]):
            return f"{control.command}: `{name}` is {value!r}, but must be {_NAMES[kinds[name]]}"
    missing = [name for name in command.required if name not in given]
    if missing:
        return f"{control.command} needs `{missing[0]}`, {_NAMES[command.required[missing[0]]]}"
    return None


def _is(value: object, kind: Kind) -> bool:
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "text":
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)
