"""The stream of alerts, and up to where each receiver has been told of it.

The marks lie in one hash, `Keys.notified`: per receiver the ID of the last alert it was told, and
how many alerts the stream had been given by then, which tells later how many were trimmed unread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from streams import START, Connection, EventError, Keys, ServerError, StreamError
from streams.events import Alert, decode_output

UNREADABLE = "unreadable_alert"


@dataclass(frozen=True, slots=True)
class Mark:
    """An alert's ID, and which of all alerts it is, from 1; None where the server doesn't count."""

    entry_id: str
    number: int | None


class AlertStream:
    """A shard's alerts. Everything here may raise `StreamError`, and may then be done again."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._alerts = keys.alerts
        self._marks = keys.notified

    def mark(self, receiver: str) -> Mark | None:
        """Up to where the receiver has been told, if it ever was."""
        entry_id, number = self._ask(
            lambda redis: redis.hmget(self._marks, [receiver, _number_of(receiver)])
        )
        if entry_id is None:
            return None
        return Mark(entry_id.decode(), int(number) if number else None)

    def move(self, receiver: str, mark: Mark) -> None:
        """Remember up to where the receiver has been told."""
        number = "" if mark.number is None else mark.number
        fields = [receiver, mark.entry_id, _number_of(receiver), number]
        self._ask(lambda redis: redis.hset(self._marks, items=fields))

    def end(self) -> Mark:
        """The last alert that ever was."""
        last, added, _ = self._state()
        return Mark(last, added)

    def after(self, mark: Mark, count: int) -> list[tuple[Mark, Alert]]:
        """Up to `count` alerts after the mark, in order, of those that the stream still has.

        What lies there and is no alert becomes one that says so.
        """
        rows = self._ask(lambda redis: redis.xrange(self._alerts, f"({mark.entry_id}", "+", count))
        if not rows:
            return []
        number = mark.number
        if number is not None:
            _, added, length = self._state()
            # Streams are trimmed from the head: what is gone are the first `added - length`.
            number = max(number, (added or 0) - length)
        found = []
        for raw_id, fields in rows:
            entry_id = raw_id.decode()
            number = None if number is None else number + 1
            found.append((Mark(entry_id, number), _read(entry_id, fields)))
        return found

    def _state(self) -> tuple[str, int | None, int]:
        """The highest ID ever given, how many were, and how many are there."""
        try:
            info = self._ask(lambda redis: redis.xinfo_stream(self._alerts))
        except ServerError as error:
            if "no such key" in str(error):
                return START, 0, 0
            raise
        return info["last-generated-id"].decode(), info.get("entries-added"), info["length"]

    def _ask(self, command: Callable[[Redis], Any]) -> Any:
        redis = self._connection.redis
        try:
            return self._connection.retrying(lambda: command(redis))
        except StreamError:
            # Behind the same address another server may be the primary now.
            redis.connection_pool.disconnect(inuse_connections=False)
            raise


def _number_of(receiver: str) -> str:
    return f"{receiver}:number"


def _read(entry_id: str, fields: dict[bytes, bytes]) -> Alert:
    try:
        return decode_output(Alert, fields.get(b"e", b""))
    except EventError as error:
        return Alert(
            ts=datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1_000, UTC),
            severity="warning",
            code=UNREADABLE,
            subject=entry_id,
            message=f"an entry in the stream of alerts is none: {error}",
        )
