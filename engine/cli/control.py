"""`closeloop control`: an operator's commands, signed, into the events stream."""

import getpass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from msgspec import structs

from engine.cli.options import AddressOption, ConfigOption, JsonOption, note, print_json, settings
from engine.config import ConfigError
from engine.controls import sign
from streams.connection import connect
from streams.errors import EventError
from streams.events import Control, decode, encode
from streams.keys import Keys


class Command(StrEnum):
    """What the engine can be told."""

    HALT = "halt"
    ARM = "arm"
    REFIT = "refit"


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("control")(control)


def control(
    command: Annotated[
        Command, typer.Argument(help="halt: stop deciding; arm: decide again; refit: LightGBM now.")
    ],
    reason: Annotated[str, typer.Option(help="Why: it stands in the alert.")],
    by: Annotated[
        str | None, typer.Option(help="Who says so.", show_default="the user of this machine")
    ] = None,
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell the engine something, signed with the control key: halt, arm, refit.

    It takes effect in its place among the events, so a replay does the same. The engine answers
    with an alert, or with a dead letter that says why it didn't obey.
    """
    chosen = settings(config, address)
    if chosen.control_key is None:
        raise ConfigError(
            "no control key: set control_key, or CLOSELOOP_CONTROL_KEY, to the engine's"
        )
    by = by or getpass.getuser()
    now = datetime.now(UTC)
    key = chosen.control_key.get_secret_value().encode()
    said = Control(command=command.value, ts=now, by=by, reason=reason, sig="0" * 64)
    data = encode(structs.replace(said, sig=sign(said, key)))
    try:
        decode(data)
    except EventError as error:
        raise typer.BadParameter(str(error)) from None
    keys = Keys(chosen.stream.shard, chosen.stream.prefix)
    with connect(chosen.stream.address) as connection:
        entry = connection.retrying(lambda: connection.redis.xadd(keys.events, {"e": data}))
    name = entry.decode() if isinstance(entry, bytes) else str(entry)
    if as_json:
        print_json({"command": command.value, "by": by, "entry_id": name})
    else:
        note(f"{command.value} is in as {name}; the alerts stream has the engine's answer")
