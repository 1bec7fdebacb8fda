"""A tape into the streams: every line as it stands, in order, at a pace."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from time import monotonic, sleep

from streams.connection import Connection, translated
from streams.errors import EventError
from streams.events import Close, Control, Signal, decode
from streams.keys import Keys
from streams.protocol import Router
from streams.tape import Line

BATCH = 1_000
BATCH_BYTES = 4 * 2**20


class Publisher:
    """Publishes tapes. What is no event is published as well: the worker buries it, with a reason.

    Parameters
    ----------
    connection
        Where to.
    prefix, shards
        The streams. With several shards a close goes where its signal went, and what belongs to no
        shard (controls, closes of signals not seen here, what is no event) to the first.
    speed
        How many times the tape's own pace, by the events' ``ts``; 0 is as fast as it goes.
    """

    def __init__(self, connection: Connection, prefix: str, shards: int, speed: float) -> None:
        self._connection = connection
        self._streams = [Keys(shard, prefix).events for shard in range(shards)]
        self._router = Router(shards)
        self._speed = speed
        self._started: tuple[float, datetime] | None = None
        self.sent = 0
        """Lines that the server has taken for sure."""
        self.kinds: Counter[str] = Counter()
        """The same by type; ``bad`` is what is no event."""

    def publish(self, lines: Iterable[Line], progress: Callable[[], None]) -> None:
        """Publish `lines`, calling `progress` after each round trip.

        Raises our errors as the connection does. Lines after the first `sent` may then have been
        taken, too: publish those again, copies are known by their `signal_id`.
        """
        batch: list[tuple[str, str, bytes]] = []
        size = 0
        for line in lines:
            event = _decoded(line)
            pause = self._pause(event)
            if batch and (pause > 0 or len(batch) == BATCH or size >= BATCH_BYTES):
                self._send(batch)
                progress()
                batch, size = [], 0
            if pause > 0:
                sleep(pause)
            kind = "bad" if event is None else event.type
            batch.append((kind, self._streams[self._shard(event)], line.data))
            size += len(line.data)
        if batch:
            self._send(batch)
            progress()

    def _pause(self, event: Signal | Close | Control | None) -> float:
        """Seconds until an event is due. What has no time is due with what came before it."""
        if event is None or not self._speed:
            return 0.0
        if self._started is None:
            self._started = monotonic(), event.ts
        began, first = self._started
        return began + (event.ts - first).total_seconds() / self._speed - monotonic()

    def _shard(self, event: Signal | Close | Control | None) -> int:
        if len(self._streams) > 1 and isinstance(event, Signal | Close):
            with suppress(EventError):
                return self._router.route(event).shard
        return 0

    def _send(self, batch: list[tuple[str, str, bytes]]) -> None:
        # Not a transaction: the server may serve others in between. Order holds all the same.
        pipeline = self._connection.redis.pipeline(transaction=False)
        for _, stream, data in batch:
            pipeline.xadd(stream, {"e": data})
        with translated(self._connection.address):
            pipeline.execute()
        self.sent += len(batch)
        self.kinds.update(kind for kind, _, _ in batch)


def _decoded(line: Line) -> Signal | Close | Control | None:
    try:
        return decode(line.data)
    except EventError:
        return None
