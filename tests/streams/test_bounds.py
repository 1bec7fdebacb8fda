"""Bounds in bytes: what a read takes in at once, and what the dead letters come to."""

import time
from typing import Any

import pytest

from streams import START, Commit, Connection, Keys, RedisTransport
from streams.transport import PAGE, READ_BYTES

KEYS = Keys()
BOUND = 10_000
E = len("e")


@pytest.fixture
def transport(connection: Connection) -> RedisTransport:
    return RedisTransport(connection, KEYS, retain=50, retain_dead_bytes=BOUND)


def publish(connection: Connection, sizes: list[int]) -> list[str]:
    pipeline = connection.redis.pipeline(transaction=False)
    for number, size in enumerate(sizes, 1):
        pipeline.xadd(KEYS.events, {"e": b"x" * size}, id=f"{number}-0")
    return [entry_id.decode() for entry_id in pipeline.execute()]


# Reading


@pytest.mark.parametrize("size", [65_536, READ_BYTES // 2])
def test_a_read_of_large_entries_stops_at_its_bytes_and_the_next_goes_on(
    connection: Connection, transport: RedisTransport, size: int
) -> None:
    ids = publish(connection, [size] * (PAGE + 10))
    first = transport.read(START, 512)
    assert READ_BYTES <= sum(len(entry.data) for entry in first) <= READ_BYTES + PAGE * size
    assert len(first) == PAGE
    second = transport.read(first[-1].id, 512, block_ms=1)
    assert [entry.id for entry in first + second] == ids


def test_a_read_of_usual_entries_has_as_many_as_asked_for_in_order(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, [700] * 600)
    assert [entry.id for entry in transport.read(START, 512)] == ids[:512]
    assert [entry.id for entry in transport.read("512-0", 512, block_ms=1)] == ids[512:]
    assert [entry.id for entry in transport.read(START, PAGE, block_ms=1)] == ids[:PAGE]
    assert [entry.id for entry in transport.read(START, 1)] == ids[:1]


def test_a_read_waits_for_the_first_entry_and_for_no_other(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, [700] * PAGE)
    started = time.monotonic()
    assert [entry.id for entry in transport.read(START, 512, block_ms=5_000)] == ids
    assert time.monotonic() - started < 4


# Dead letters


class Burials:
    """Commits dead letters, one batch after another."""

    def __init__(self, connection: Connection, transport: RedisTransport) -> None:
        self._redis: Any = connection.redis
        self._transport = transport
        self._lease = transport.acquire("worker", 60_000)
        self._number = 0

    def bury(self, *letters: bytes) -> None:
        expected, self._number = self._number, self._number + 1
        entry_id = self._redis.xadd(KEYS.events, {"e": "bad"}, id=f"{self._number}-0").decode()
        outputs = [(KEYS.dead, "*", letter) for letter in letters]
        self._transport.commit(self._lease, Commit(f"{expected}-0", entry_id, 1, outputs, ""))

    @property
    def kept(self) -> list[bytes]:
        return [fields[b"e"] for _, fields in self._redis.xrange(KEYS.dead)]


@pytest.fixture
def burials(connection: Connection, transport: RedisTransport) -> Burials:
    return Burials(connection, transport)


def letters(count: int, size: int) -> list[bytes]:
    """Letters that take `size` bytes each, in the stream."""
    return [str(number).encode().rjust(size - E) for number in range(count)]


def test_dead_letters_are_bounded_in_bytes_and_the_oldest_go(burials: Burials) -> None:
    large = letters(25, 1_000)
    for number in range(0, 25, 5):
        burials.bury(*large[number : number + 5])
    assert burials.kept == large[15:]


def test_dead_letters_are_bounded_in_entries_too(burials: Burials) -> None:
    small = letters(120, 20)
    for letter in small:
        burials.bury(letter)
    assert burials.kept == small[70:]


def test_a_large_letter_takes_the_room_of_many_small_ones(burials: Burials) -> None:
    small, (large,) = letters(40, 100), letters(1, 9_500)
    burials.bury(*small)
    burials.bury(large)
    assert burials.kept == [*small[35:], large]
    burials.bury(*small[:3])
    assert burials.kept == [*small[38:], large, *small[:3]]


def test_the_newest_letter_stays_however_large(burials: Burials) -> None:
    burials.bury(*letters(3, 100))
    burials.bury(b"x" * (2 * BOUND))
    assert burials.kept == [b"x" * (2 * BOUND)]
    burials.bury(b"next")
    assert burials.kept == [b"next"]


@pytest.mark.parametrize("how", ["DEL", "XTRIM", "XADD"])
def test_the_bound_holds_when_others_delete_or_add_letters(
    connection: Connection, burials: Burials, how: str
) -> None:
    large = letters(20, 1_000)
    burials.bury(*large[:8])
    if how == "DEL":
        connection.redis.delete(KEYS.dead)
    elif how == "XTRIM":
        connection.redis.xtrim(KEYS.dead, maxlen=2, approximate=False)
    else:
        for letter in large[:4]:
            connection.redis.xadd(KEYS.dead, {"e": letter})
    burials.bury(*large[8:16])
    left = [] if how == "DEL" else large[6:8] if how == "XTRIM" else large[2:4]
    assert burials.kept == [*left, *large[8:16]][-10:]


def test_a_batch_without_dead_letters_trims_none(burials: Burials) -> None:
    burials.bury(b"x" * (2 * BOUND))
    burials.bury()
    assert len(burials.kept) == 1
