"""Giving commands: signed, into the events stream, where they take effect in their place."""

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import structs

from engine.commands import problem
from engine.config import Config, ConfigError
from engine.controls import sign
from streams import Connection, Control, EventError, Keys, decode, encode


class CommandError(Exception):
    """A command that can't be given; the message says why and what to do."""


def control_key_of(config: Config) -> bytes:
    """The key that commands are signed with. Raises `ConfigError` when none is set."""
    if config.control_key is None:
        raise ConfigError(
            "no control key: set control_key, or CLOSELOOP_CONTROL_KEY, to the engine's"
        )
    return config.control_key.get_secret_value().encode()


def signed(
    key: bytes,
    command: str,
    by: str,
    reason: str,
    args: Mapping[str, float | bool | str | None] | None = None,
) -> bytes:
    """The bytes of a signed command, of now. Raises `CommandError` when it can't be right."""
    blank = Control(
        command=command,
        ts=datetime.now(UTC),
        by=by,
        reason=reason,
        sig="0" * 64,
        args=dict(args) if args else None,
    )
    revision = (args or {}).get("revision")
    why = problem(blank, revision if isinstance(revision, int) else 0)
    if why is not None:
        raise CommandError(why)
    data = encode(structs.replace(blank, sig=sign(blank, key)))
    try:
        decode(data)
    except EventError as error:
        raise CommandError(str(error)) from None
    return data


def send(connection: Connection, keys: Keys, data: bytes) -> str:
    """Publish a signed command; returns the ID of its entry."""
    entry = connection.retrying(lambda: connection.redis.xadd(keys.events, {"e": data}))
    return entry.decode() if isinstance(entry, bytes) else str(entry)
