"""Pairing what was published with what is made again from the same input, one signal at a time.

On a stream both stand under the input entry's ID, so pairs form by ID, and what has no partner is
known at once. A tape has no IDs: pairs form by `signal_id`, and what is left without a partner at
either end lies outside of what the other tape covers, which is said, not called a difference.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import orjson

from streams import START, order

_DECISION_ID = re.compile(rb'"decision_id":"[^"]*",')


def same(one: bytes, other: bytes) -> bool:
    """Whether two decisions are equal byte for byte but for `decision_id`, the transport's own."""
    return _without_id(one) == _without_id(other)


def _without_id(data: bytes) -> bytes:
    return _DECISION_ID.sub(b"", data, count=1)


@dataclass(frozen=True, slots=True)
class Published:
    """An output as it was recorded: its ID (of a tape: its line) and its bytes."""

    id: str
    data: bytes

    @property
    def signal_id(self) -> str | None:
        """The signal that it is about; None when that can't be read."""
        try:
            name = orjson.loads(self.data)["signal_id"]
        except (ValueError, TypeError, KeyError):
            return None
        return name if isinstance(name, str) else None


@dataclass(frozen=True, slots=True)
class Made:
    """An output as it is made again."""

    signal_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Pair:
    """What was published and what is made now about one signal; at least one of them is there.

    Parameters
    ----------
    at
        How many entries had been applied.
    entry_id
        Of the input entry that it belongs to (of a tape: a line).
    in_order
        Whether what was published stands where it should.
    """

    at: int
    entry_id: str
    published: bytes | None
    made: bytes | None
    signal_id: str | None
    in_order: bool = True

    @property
    def equal(self) -> bool:
        """Byte for byte, and in its place."""
        return self.published == self.made and self.in_order


class Alignment(Protocol):
    """Pairs one kind of output."""

    unchecked: int
    """Outputs made again, or published, that the other side doesn't reach."""

    def push(self, at: int, entry_id: str, made: Made | None) -> Iterator[Pair]:
        """The pairs known once an entry is applied, and what was made of it."""
        ...

    def finish(self, at: int) -> Iterator[Pair]:
        """The pairs known once there are no more entries."""
        ...


class ById:
    """Pairs by stream ID.

    Parameters
    ----------
    published
        In the order of the stream, up to the last entry that will be applied.
    kept_from
        Below this ID the stream was trimmed: nothing there can be missed.
    deleted
        The highest ID that was taken out singly; that one can.
    """

    def __init__(
        self, published: Iterator[Published], kept_from: str = START, deleted: str = START
    ) -> None:
        self.unchecked = 0
        self._published = published
        self._next = next(published, None)
        self._kept_from = order(kept_from)
        self._deleted = deleted

    def push(self, at: int, entry_id: str, made: Made | None) -> Iterator[Pair]:
        """The pairs up to `entry_id`."""
        place = order(entry_id)
        while self._next is not None and order(self._next.id) < place:
            yield self._alone(at)
        if self._next is not None and self._next.id == entry_id:
            published = self._next
            self._next = next(self._published, None)
            name = made.signal_id if made else published.signal_id
            yield Pair(at, entry_id, published.data, made.data if made else None, name)
        elif made is not None:
            if place < self._kept_from and entry_id != self._deleted:
                self.unchecked += 1
            else:
                yield Pair(at, entry_id, None, made.data, made.signal_id)

    def finish(self, at: int) -> Iterator[Pair]:
        """What is published under IDs after the last entry."""
        while self._next is not None:
            yield self._alone(at)

    def _alone(self, at: int) -> Pair:
        published = self._next
        assert published is not None
        self._next = next(self._published, None)
        return Pair(at, published.id, published.data, None, published.signal_id)


class BySignal:
    """Pairs by `signal_id`, without the `decision_id`, which only a stream gives."""

    def __init__(self, published: Iterator[Published]) -> None:
        self.unchecked = 0
        self._published = enumerate(published)
        # Published ahead of what was made so far: index, when it was passed, what it is.
        self._passed: dict[str | None, tuple[int, int, Published]] = {}
        self._last = -1  # index of the last published one that has its partner
        self._unmatched: list[Pair] = []  # made since

    def push(self, at: int, entry_id: str, made: Made | None) -> Iterator[Pair]:
        """The pair of `made`, and those that are known to lack a partner."""
        if made is None:
            return
        ours = _without_id(made.data)
        found = self._passed.pop(made.signal_id, None) or self._pull(at, made.signal_id)
        if found is None:
            self._unmatched.append(Pair(at, entry_id, None, ours, made.signal_id))
            return
        index, _, published = found
        in_order = index > self._last
        if in_order:
            if self._last >= 0:
                yield from self._unmatched
            else:
                self.unchecked += len(self._unmatched)
            self._unmatched = []
            self._last = index
        data = _without_id(published.data)
        yield Pair(at, entry_id, data, ours, made.signal_id, in_order)

    def finish(self, at: int) -> Iterator[Pair]:
        """What is published before others that had a partner, and has none."""
        self.unchecked += len(self._unmatched) + sum(1 for _ in self._published)
        for name, (index, passed_at, published) in self._passed.items():
            if index < self._last:
                yield Pair(passed_at, published.id, published.data, None, name)
            else:
                self.unchecked += 1

    def _pull(self, at: int, signal_id: str) -> tuple[int, int, Published] | None:
        for index, published in self._published:
            name = published.signal_id
            if name == signal_id:
                return index, at, published
            self._passed.setdefault(name, (index, at, published))
        return None
