"""A stream's entries, for a tape."""

from collections.abc import Iterator
from time import sleep
from typing import cast

import orjson

from streams.connection import Connection
from streams.errors import ConnectionLost

BATCH = 1_000
_BLOCK_MS = 1_000
_RETRY_S = 1.0

Found = list[tuple[str, bytes]]
_Reply = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]


def recorded(connection: Connection, stream: str, start: str, follow: bool) -> Iterator[Found]:
    """Batches of the entries of `stream` from the ID `start` on: ID and bytes.

    Ends at the end of the stream; with `follow` never: then batches may be empty, and a server that
    is lost is waited for. An entry that isn't one field ``e`` becomes a list of its fields, which
    is no event either.
    """
    after = _before(start)
    while True:
        try:
            reply = connection.retrying(
                lambda after=after: connection.redis.xread(  # type: ignore[misc]
                    {stream: after}, BATCH, _BLOCK_MS if follow else None
                )
            )
        except ConnectionLost:
            if not follow:
                raise
            yield []
            sleep(_RETRY_S)
            continue
        found = cast(_Reply, reply)[0][1] if reply else []
        if found:
            after = found[-1][0].decode()
        yield [(entry_id.decode(), _data(fields)) for entry_id, fields in found]
        if not follow and len(found) < BATCH:
            return


def next_id(entry_id: str) -> str:
    """The lowest ID above `entry_id`: where a recording that ended with it goes on."""
    milliseconds, sequence = map(int, entry_id.split("-"))
    return f"{milliseconds}-{sequence + 1}"


def _before(entry_id: str) -> str:
    """The greatest ID below `entry_id`; reading is from after an ID."""
    milliseconds, _, sequence = entry_id.partition("-")
    if int(sequence or 0) > 0:
        return f"{milliseconds}-{int(sequence) - 1}"
    return f"{int(milliseconds) - 1}-{2**64 - 1}" if int(milliseconds) else "0-0"


def _data(fields: dict[bytes, bytes]) -> bytes:
    if fields.keys() == {b"e"}:
        return fields[b"e"]
    texts = [[part.decode(errors="backslashreplace") for part in field] for field in fields.items()]
    return orjson.dumps(texts)
