"""The doctor: looks at everything closeloop depends on, changes nothing, and names the mend."""

from collections.abc import Callable, Iterator
from functools import partial

from engine.bootstrap import keys_of
from engine.config import Config
from engine.doctor import server, shard, snapshots
from engine.doctor.diagnosis import Diagnosis, from_error
from streams.connection import Connection, connect
from streams.errors import ServerError, StreamError
from streams.transport import RedisTransport

__all__ = ["Diagnosis", "examine"]

_SERVER = {
    "server": server.version,
    "persistence": server.persistence,
    "memory": server.memory,
    "clocks": server.clock,
}
_SHARD = {
    "streams": shard.streams,
    "event time": shard.event_time,
    "lag": shard.progress,
    "lease": shard.lease,
    "safety": shard.safety,
}


def examine(config: Config) -> Iterator[Diagnosis]:
    """Look at everything, one thing after the other."""
    try:
        with connect(config.stream.address) as connection:
            yield Diagnosis("ok", "connection", connection.address)
            yield from _server(config, connection)
    except StreamError as error:
        yield from_error("problem", "connection", error)
        yield from snapshots.recovery(config, None)
    yield from snapshots.folder(config)
    yield from snapshots.versions()


def _server(config: Config, connection: Connection) -> Iterator[Diagnosis]:
    keys = keys_of(config)
    looked_at = shard.Shard(connection, keys, RedisTransport(connection, keys), config)
    if connection.address.startswith("memory://"):
        mend = "for more than a trial, use embedded://DIR or a Redis"
        yield Diagnosis("warning", "server", "in this process's memory, and gone with it", mend)
    else:
        for name, check in _SERVER.items():
            yield from _allowed(name, partial(check, connection))
    for name, look in _SHARD.items():
        yield from _allowed(name, partial(look, looked_at))
    yield from _allowed("snapshots", partial(snapshots.recovery, config, looked_at.transport))


def _allowed(name: str, check: Callable[[], Iterator[Diagnosis]]) -> Iterator[Diagnosis]:
    """What `check` says, and a warning where the server doesn't let it look."""
    try:
        yield from check()
    except ServerError as error:
        seen = from_error("warning", name, error).seen
        mend = "give the address's user the right to, or ask whoever runs the server"
        yield Diagnosis("warning", name, f"not allowed to look: {seen}", mend)
