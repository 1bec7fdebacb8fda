"""`closeloop control ...`: an operator's commands, signed, into the events stream.

The subcommands are made of the table of commands, `engine.commands.COMMANDS`: what an argument of
a command is there, it is on the command line.
"""

import getpass
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from inspect import Parameter, Signature
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any, Literal

import orjson
import typer

from engine.bootstrap import keys_of
from engine.cli.options import AddressOption, ConfigOption, JsonOption, note, print_json, settings
from engine.commands import OPERATORS, Command, Kind
from engine.sending import CommandError, control_key_of, send, signed
from engine.view import NoView, read_view
from streams import START, Connection, Keys, RedisTransport, StreamError, connect, order

IN_VIEW_OF = frozenset({"approve", "arm", "install", "mode", "reject", "rollback"})
"""Commands that depend on what stands: they carry the revision that was seen."""
ANSWER_S = 3.0
LOOK_S = 0.05
"""How long the engine's answer is waited for, and how often it is looked for."""
REFUSED = 1

_ARGUMENTS = {
    "force": "Although the gate refuses it; the registry says so for ever after.",
    "full": "Try several shapes of trees.",
    "mode": "shadow, advisory, canary or live.",
    "model": "The ID of a kept model.",
    "percent": "Of the signals, for the model, in canary.",
    "proposal": "Its number.",
    "setting": "Its name, such as policy.max_risk_pct.",
    "value": "The new value.",
}
_TYPES: dict[Kind, type] = {"text": str, "number": float, "flag": bool}

ReasonOption = Annotated[str, typer.Option(help="Why: it stands in the alert.")]
ByOption = Annotated[
    str | None, typer.Option(help="Who says so.", show_default="the user of this machine")
]
RevisionOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="That of the status you have seen: if it has changed since, the engine refuses.",
        show_default="as it stands where it matters, else none",
    ),
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the answer.")]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine made of a command."""

    state: Literal["obeyed", "refused", "unanswered"]
    message: str


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Tell the engine something, signed with the control key. It takes effect in its place"
        " among the events, so a replay does the same.",
    )
    for name, command in OPERATORS.items():
        group.command(name)(subcommand(name, command))
    app.add_typer(group, name="control")


def subcommand(name: str, command: Command) -> Callable[..., None]:
    """A function of the command's own arguments and the options that all share."""
    own = list(_own(command))
    shared: list[tuple[str, Any, Any]] = [("by", ByOption, None)]
    if name != "halt":
        # Nothing may stand in the way of a halt.
        shared.append(("revision", RevisionOption, None))
    shared += [
        ("wait", WaitOption, True),
        ("config", ConfigOption, None),
        ("address", AddressOption, None),
        ("as_json", JsonOption, False),
    ]

    def tell(**given: Any) -> None:
        args = {key: given.pop(key) for key, _, _ in own}
        # By identity: 0 is a value.
        said = {key: each for key, each in args.items() if each is not None and each is not False}
        _tell(name, said, **given)

    parameters = [*own, ("reason", ReasonOption, Parameter.empty), *shared]
    tell.__signature__ = Signature(  # type: ignore[attr-defined] # it is how typer reads it
        [
            Parameter(key, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, annotation, default in parameters
        ]
    )
    tell.__annotations__ = {key: annotation for key, annotation, _ in parameters}
    tell.__doc__ = f"{command.meaning[0].upper()}{command.meaning[1:]}."
    return tell


def _own(command: Command) -> Iterator[tuple[str, Any, Any]]:
    """Name, annotation and default of a command's arguments: what is said in words or needed is
    given by its place, the rest by options.
    """
    for key, kind in command.required.items():
        yield key, Annotated[_TYPES[kind], typer.Argument(help=_ARGUMENTS[key])], Parameter.empty
    for key, kind in command.optional.items():
        if kind == "text":
            yield key, Annotated[str | None, typer.Argument(help=_ARGUMENTS[key])], None
        elif kind == "flag":
            yield key, Annotated[bool, typer.Option(f"--{key}", help=_ARGUMENTS[key])], False
        else:
            yield key, Annotated[float | None, typer.Option(help=_ARGUMENTS[key])], None


def _tell(
    name: str,
    args: dict[str, Any],
    reason: str,
    by: str | None,
    wait: bool,
    config: Path | None,
    address: str | None,
    as_json: bool,
    revision: int | None = None,
) -> None:
    """Send the command, and say what the engine made of it."""
    chosen = settings(config, address)
    key = control_key_of(chosen)
    by = by or getpass.getuser()
    keys = keys_of(chosen)
    with connect(chosen.stream.address) as connection:
        if revision is None and name in IN_VIEW_OF:
            revision = _revision(connection, keys)
        if revision is not None:
            args["revision"] = revision
        try:
            data = signed(key, name, by, reason, args)
        except CommandError as error:
            raise typer.BadParameter(str(error)) from None
        replies = None
        if wait:
            # Who may not read the answers may still halt.
            with suppress(StreamError):
                replies = Replies(connection, keys)
        entry = send(connection, keys, data)
        if not as_json:
            note(f"{name} is in as {entry}; the alerts stream has the engine's answer")
        answer = None if replies is None else replies.to(entry, f"by {by}: {reason}")
    if as_json:
        said = {"command": name, "by": by, "entry_id": entry, "revision": revision}
        print_json(said | {"answer": None if answer is None else asdict(answer)})
    elif answer is not None:
        note(f"{answer.state}: {answer.message}")
    if answer is not None and answer.state == "refused":
        raise typer.Exit(REFUSED)


def _revision(connection: Connection, keys: Keys) -> int | None:
    """As it stands: what the worker shows of itself may be a second behind what it has done."""
    committed = order(RedisTransport(connection, keys).checkpoint().position)
    until = monotonic() + ANSWER_S
    while True:
        try:
            shown = read_view(connection, keys)
        except NoView:
            return None
        if order(shown["position"]) >= committed or monotonic() > until:
            found: int = shown["revision"]
            return found
        sleep(LOOK_S)


class Replies:
    """What the engine says from now on.

    Once it has committed past a command, it has obeyed, unless a dead letter of that entry says
    otherwise: the two are committed together.
    """

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._ends = {key: self._end(key) for key in (keys.alerts, keys.dead)}

    def to(self, entry: str, said: str) -> Answer:
        """The answer to the command of that entry, whose alert, if it has one, has `said`."""
        redis, keys = self._connection.redis, self._keys
        transport = RedisTransport(self._connection, keys)
        if not self._connection.retrying(lambda: redis.exists(keys.lease)):
            return Answer("unanswered", "no worker is at work; the next one obeys it")
        until = monotonic() + ANSWER_S
        while order(transport.checkpoint().position) < order(entry):
            if monotonic() > until:
                return Answer(
                    "unanswered",
                    f"the worker hasn't come to it within {ANSWER_S:g} s; `closeloop status` has"
                    " its lag, and the alerts stream the answer in the end",
                )
            sleep(LOOK_S)
        for letter in self._since(keys.dead):
            if letter["entry_id"] == entry:
                return Answer("refused", letter["message"])
        for alert in self._since(keys.alerts):
            if said in alert["message"]:
                return Answer("obeyed", alert["message"])
        return Answer("obeyed", "no alert tells of it")

    def _end(self, key: str) -> str:
        newest: Any = self._connection.retrying(
            lambda: self._connection.redis.xrevrange(key, count=1)
        )
        return newest[0][0].decode() if newest else START

    def _since(self, key: str) -> list[Any]:
        found: Any = self._connection.retrying(
            lambda: self._connection.redis.xrange(key, f"({self._ends[key]}")
        )
        return [orjson.loads(fields[b"e"]) for _, fields in found]
