"""What stands where, for people: written by the worker now and then, read by commands.

Nobody decides by it. It may be a second old, and it is gone with the server's memory.
"""

from typing import Any

import orjson

from engine.core import Core
from streams import Connection, Keys, StreamError


class NoView(StreamError):
    """No worker has written what stands where."""


def view(core: Core, position: str) -> dict[str, object]:
    """What people may want to know of a core, plain values only."""
    return {"position": position, "counts": dict(core.counts), **core.figures()}


def write_view(connection: Connection, keys: Keys, found: dict[str, object]) -> None:
    """Publish what `view` gave. Not tried again: the next one says more."""
    data = orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS)
    connection.redis.set(keys.view, data)


def read_view(connection: Connection, keys: Keys) -> dict[str, Any]:
    """What the worker last wrote.

    Raises `NoView` when none has written yet.
    """
    data = connection.retrying(lambda: connection.redis.get(keys.view))
    if data is None:
        raise NoView(
            f"no worker has said anything of itself in {keys.view}; start one with `closeloop run`"
        )
    found: dict[str, Any] = orjson.loads(data)
    return found
