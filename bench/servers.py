"""The server under a live bench, and a place of its own on it for every run."""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from streams import Connection, Keys, connect

_BATCH = 1_000


@contextmanager
def served(address: str | None) -> Iterator[tuple[Connection, Path]]:
    """A connection to `address`, or else to a real server of our own, and a folder for files."""
    with TemporaryDirectory(prefix="closeloop-bench-") as scratch:
        folder = Path(scratch)
        with connect(address or f"embedded://{folder / 'server'}") as connection:
            yield connection, folder


@contextmanager
def own_keys(connection: Connection) -> Iterator[Keys]:
    """Keys that nobody else uses; what lies under them is deleted at the end."""
    keys = Keys(prefix=f"closeloop-bench-{secrets.token_hex(4)}")
    try:
        yield keys
    finally:
        names = [name for name in dir(Keys) if isinstance(getattr(Keys, name), property)]
        connection.redis.unlink(*(getattr(keys, name) for name in names))


def publish(connection: Connection, stream: str, entries: Iterable[bytes]) -> list[bytes]:
    """Add entries to a stream as fast as it goes; their IDs."""
    ids: list[bytes] = []
    pipeline = connection.redis.pipeline(transaction=False)
    for data in entries:
        pipeline.xadd(stream, {"e": data})
        if len(pipeline) == _BATCH:
            ids += pipeline.execute()
    ids += pipeline.execute()
    return ids


def server_version(connection: Connection) -> str:
    """What serves, and its release."""
    info = connection.redis.info("server")
    name = info.get("server_name", "redis")
    return f"{name} {info.get(f'{name}_version', info['redis_version'])}"
