"""What lies in the input stream, recorded from beside: the truth that the worker is held to.

Nothing is asked of the worker, so what it does wrong can't hide here. Entries that the worker trims
stay recorded; entries that the server loses are taken out again, and named.
"""

from streams import START, Connection, Keys, RawEntry, RedisTransport, connect, order

_MANY = 1_000


class Gap(AssertionError):
    """The input isn't what it was, and no fault explains that."""


class Record:
    """The input stream's entries since it began, or since the server was flushed.

    Parameters
    ----------
    port
        The server's own, not a proxy's.
    """

    def __init__(self, port: int) -> None:
        self.entries: list[RawEntry] = []
        self._connection: Connection | None = None
        self.follow(port)

    def follow(self, port: int) -> None:
        """From now on another server has the stream."""
        self.close()
        self._connection = connect(f"redis://127.0.0.1:{port}")
        self._transport = RedisTransport(self._connection, Keys())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def last(self) -> str:
        """The ID of the last entry recorded."""
        return self.entries[-1].id if self.entries else START

    def poll(self) -> None:
        """Record what has come since."""
        while found := self._transport.read(self.last, _MANY):
            self.entries += found

    def checkpoint(self) -> str:
        """Up to which entry the worker has committed."""
        return self._transport.checkpoint().position

    def lineage(self) -> str:
        """The name of the stream's history."""
        return self._transport.checkpoint().lineage

    def decisions_digest(self) -> str:
        return self._transport.checkpoint().decisions_digest

    def lose(self) -> list[RawEntry]:
        """Take out what the server no longer has at its end; returns that."""
        last = order(self._transport.last_until(self.last))
        keep = len(self.entries)
        while keep and order(self.entries[keep - 1].id) > last:
            keep -= 1
        lost, self.entries = self.entries[keep:], self.entries[:keep]
        return lost

    def require_whole(self) -> None:
        """Raise `Gap` unless the stream holds what was recorded, but for what was trimmed."""
        first = order(self._transport.first_id())
        there: list[RawEntry] = []
        after = START
        while found := self._transport.read(after, _MANY):
            there += found
            after = found[-1].id
        expected = [entry for entry in self.entries if order(entry.id) >= first]
        if there != expected:
            raise Gap(f"the stream holds {len(there)} entries, {len(expected)} were recorded")
