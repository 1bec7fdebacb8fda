"""One contract for every server: the fake, a real one, and the oldest that is served."""

import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import redis
from redis import exceptions as raw

from streams.connection import Connection, connect, masked, translate
from streams.errors import (
    AddressError,
    ConnectionLost,
    Diverged,
    LeaseHeld,
    LeaseLost,
    ServerError,
    StreamError,
    WritesRefused,
)
from streams.keys import Keys
from streams.transport import GROUP, START, Commit, Lease, RedisTransport

KEYS = Keys()
TTL = 60_000
ANY_BYTES = bytes(range(256)) + b"\r\n$5\r\n\xff\xfe"


@pytest.fixture
def transport(connection: Connection) -> RedisTransport:
    return RedisTransport(connection, KEYS)


def publish(connection: Connection, count: int, first: int = 1) -> list[str]:
    """Entries with the IDs FIRST-0, FIRST+1-0, ... and the bytes of their number."""
    ids = [f"{number}-0" for number in range(first, first + count)]
    for entry_id in ids:
        connection.redis.xadd(KEYS.events, {"e": f"event {entry_id}"}, id=entry_id)
    return ids


def batch(ids: list[str], expected: str = START) -> Commit:
    """A commit that answers each of `ids` with a decision under its own ID, and one alert."""
    return Commit(
        expected=expected,
        position=ids[-1],
        entries=len(ids),
        outputs=[
            *((KEYS.decisions, entry_id, f"decision {entry_id}".encode()) for entry_id in ids),
            (KEYS.alerts, "*", b"alert"),
        ],
        decisions_digest=f"digest at {ids[-1]}",
    )


def entries(connection: Connection, key: str) -> list[tuple[str, bytes]]:
    """A stream's IDs and what their field `e` holds."""
    client: Any = connection.redis
    return [(entry_id.decode(), fields[b"e"]) for entry_id, fields in client.xrange(key)]


def stored(connection: Connection) -> dict[str, object]:
    """All there is on the server, but for the lease's remaining time."""
    client: Any = connection.redis
    content: dict[str, object] = {}
    for key in sorted(client.keys()):
        kind = client.type(key)
        if kind == b"stream":
            content[key.decode()] = (client.xrange(key), client.xinfo_groups(key))
        else:
            content[key.decode()] = client.hgetall(key) if kind == b"hash" else client.get(key)
    return content


def wrote_nothing(
    connection: Connection, error: type[Exception], call: Callable[[], object]
) -> str:
    before = stored(connection)
    with pytest.raises(error) as raised:
        call()
    assert stored(connection) == before
    return str(raised.value)


def expire_lease(connection: Connection) -> None:
    connection.redis.delete(KEYS.lease)


# Reading


def test_entries_come_in_order_batch_by_batch_with_the_bytes_published(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 5)
    connection.redis.xadd(KEYS.events, {"e": ANY_BYTES}, id="6-0")
    first = transport.read(START, 3)
    second = transport.read(first[-1].id, 3)
    assert [entry.id for entry in first + second] == [*ids, "6-0"]
    assert first[0].data == b"event 1-0"
    assert second[-1].data == ANY_BYTES
    assert {entry.problem for entry in first + second} == {None}
    assert transport.read("6-0", 3) == []


def test_reading_waits_for_an_entry_no_longer_than_told(transport: RedisTransport) -> None:
    started = time.monotonic()
    assert transport.read(START, 10, block_ms=20) == []
    assert 0.015 < time.monotonic() - started < 2


def test_an_entry_with_other_fields_comes_back_whole_with_the_problem(
    connection: Connection, transport: RedisTransport
) -> None:
    connection.redis.xadd(KEYS.events, {"price": "1.5", "odd": b"\xff"}, id="1-0")
    connection.redis.xadd(KEYS.events, {"e": "good"}, id="2-0")
    connection.redis.xadd(KEYS.events, {"e": "x", "more": "y"}, id="3-0")
    odd, good, more = transport.read(START, 10)
    assert odd.data == rb'[["price","1.5"],["odd","\\xff"]]'
    assert odd.problem is not None and "price, odd" in odd.problem
    assert (good.data, good.problem) == (b"good", None)
    assert more.problem is not None and more.data == b'[["e","x"],["more","y"]]'


# The lease


def test_a_held_lease_is_refused_to_others_and_names_its_owner(
    connection: Connection, transport: RedisTransport
) -> None:
    lease = transport.acquire("first", TTL)
    assert lease == Lease("first", 1, TTL)
    message = wrote_nothing(connection, LeaseHeld, lambda: transport.acquire("second", TTL))
    assert "'first'" in message and " ms" in message


def test_the_same_owner_may_acquire_again_and_its_old_lease_is_over(
    transport: RedisTransport,
) -> None:
    old = transport.acquire("worker:1", TTL)
    new = transport.acquire("worker:1", TTL)
    assert new.epoch == old.epoch + 1
    transport.renew(new)
    with pytest.raises(LeaseLost):
        transport.renew(old)


def test_a_released_lease_goes_to_the_next_under_a_higher_epoch(transport: RedisTransport) -> None:
    first = transport.acquire("first", TTL)
    transport.release(first)
    second = transport.acquire("second", TTL)
    assert second.epoch > first.epoch
    transport.release(first)
    with pytest.raises(LeaseHeld):
        transport.acquire("third", TTL)


def test_a_lease_runs_out_by_itself(transport: RedisTransport) -> None:
    first = transport.acquire("first", 1)
    deadline = time.monotonic() + 5
    while True:
        try:
            second = transport.acquire("second", TTL)
            break
        except LeaseHeld:
            assert time.monotonic() < deadline
    assert second.epoch == first.epoch + 1


def test_renewing_and_committing_make_the_lease_last(
    connection: Connection, transport: RedisTransport
) -> None:
    lease = transport.acquire("worker", TTL)
    connection.redis.pexpire(KEYS.lease, 1_000)
    transport.renew(lease)
    assert connection.redis.pttl(KEYS.lease) > 50_000
    connection.redis.pexpire(KEYS.lease, 1_000)
    transport.commit(lease, batch(publish(connection, 1)))
    assert connection.redis.pttl(KEYS.lease) > 50_000


def test_the_lineage_is_given_once_and_another_after_a_flush(
    connection: Connection, transport: RedisTransport
) -> None:
    assert transport.checkpoint().lineage == ""
    transport.release(transport.acquire("first", TTL))
    lineage = transport.checkpoint().lineage
    transport.acquire("second", TTL)
    assert transport.checkpoint().lineage == lineage != ""
    connection.redis.flushall()
    transport.acquire("third", TTL)
    assert transport.checkpoint().lineage not in ("", lineage)


# The commit


def test_a_commit_publishes_its_outputs_and_moves_the_checkpoint(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 3)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids))
    decisions = [(entry_id, f"decision {entry_id}".encode()) for entry_id in ids]
    assert entries(connection, KEYS.decisions) == decisions
    assert [data for _, data in entries(connection, KEYS.alerts)] == [b"alert"]
    checkpoint = transport.checkpoint()
    assert (checkpoint.position, checkpoint.entries, checkpoint.epoch) == ("3-0", 3, lease.epoch)
    assert checkpoint.decisions_digest == "digest at 3-0"


def test_any_bytes_survive_a_commit(connection: Connection, transport: RedisTransport) -> None:
    publish(connection, 1)
    outputs = [(KEYS.decisions, "1-0", ANY_BYTES), (KEYS.dead, "*", b"")]
    transport.commit(transport.acquire("worker", TTL), Commit(START, "1-0", 1, outputs, ""))
    assert entries(connection, KEYS.decisions) == [("1-0", ANY_BYTES)]
    assert [data for _, data in entries(connection, KEYS.dead)] == [b""]


def test_a_commit_without_outputs_moves_the_checkpoint(
    connection: Connection, transport: RedisTransport
) -> None:
    publish(connection, 1)
    transport.commit(transport.acquire("worker", TTL), Commit(START, "1-0", 1, [], "none"))
    assert transport.checkpoint().position == "1-0"


def test_a_large_batch_commits_whole(connection: Connection, transport: RedisTransport) -> None:
    ids = [f"{number}-0" for number in range(1, 10_001)]
    connection.redis.xadd(KEYS.events, {"e": "x"}, id=ids[-1])
    transport.commit(transport.acquire("worker", TTL), batch(ids))
    assert connection.redis.xlen(KEYS.decisions) == 10_000


def test_a_commit_sent_again_after_its_reply_was_lost_writes_nothing_more(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 3)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids))
    before = stored(connection)
    transport.commit(lease, batch(ids))
    assert stored(connection) == before


def test_a_paused_worker_that_lost_its_lease_publishes_nothing(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 3)
    paused = transport.acquire("paused", TTL)
    expire_lease(connection)
    other = transport.acquire("other", TTL)
    for effect in (
        lambda: transport.commit(paused, batch(ids)),
        lambda: transport.notify(paused, b"notice"),
        lambda: transport.trim(paused, START),
        lambda: transport.renew(paused),
    ):
        assert "'other'" in wrote_nothing(connection, LeaseLost, effect)
    transport.commit(other, batch(ids))
    # Even the batch that is already there is refused to it.
    wrote_nothing(connection, LeaseLost, lambda: transport.commit(paused, batch(ids)))


def test_a_lease_that_ran_out_still_commits_while_nobody_took_it(
    connection: Connection, transport: RedisTransport
) -> None:
    lease = transport.acquire("worker", TTL)
    expire_lease(connection)
    transport.commit(lease, batch(publish(connection, 1)))
    with pytest.raises(LeaseHeld):
        transport.acquire("other", TTL)


def test_a_commit_from_another_position_is_refused_whole_and_names_both(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 6)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids[:2]))
    for wrong in (batch(ids[4:], expected="4-0"), batch(ids[:1]), batch(ids[:4])):
        message = wrote_nothing(connection, Diverged, partial(transport.commit, lease, wrong))
        assert "2-0" in message and wrong.expected in message


def test_a_server_that_was_flushed_is_noticed(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 2)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids[:1]))
    connection.redis.flushall()
    wrote_nothing(connection, Diverged, lambda: transport.commit(lease, batch(ids[1:], "1-0")))
    wrote_nothing(connection, Diverged, lambda: transport.renew(lease))


def test_an_epoch_given_out_twice_by_a_server_that_lost_its_tail_fences_by_owner(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 1)
    forgotten = transport.acquire("forgotten", TTL)
    connection.redis.delete(KEYS.checkpoint, KEYS.lease)
    assert transport.acquire("new", TTL).epoch == forgotten.epoch
    wrote_nothing(connection, LeaseLost, lambda: transport.commit(forgotten, batch(ids)))


def test_a_decision_stream_that_is_already_further_refuses_the_whole_batch(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 2)
    lease = transport.acquire("worker", TTL)
    connection.redis.xadd(KEYS.decisions, {"e": "foreign"}, id="2-0")
    message = wrote_nothing(connection, Diverged, lambda: transport.commit(lease, batch(ids)))
    assert KEYS.decisions in message


def test_an_output_key_that_is_no_stream_refuses_the_whole_batch(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 2)
    lease = transport.acquire("worker", TTL)
    connection.redis.set(KEYS.alerts, "not a stream")
    message = wrote_nothing(connection, ServerError, lambda: transport.commit(lease, batch(ids)))
    assert "WRONGTYPE" in message


@pytest.mark.parametrize(
    "bad",
    [
        Commit("5-0", "5-0", 0, [], ""),
        Commit("5-0", "4-9", 1, [], ""),
        Commit(START, "2-0", 2, [("s", "2-0", b""), ("s", "1-0", b"")], ""),
        Commit(START, "2-0", 2, [("s", "10-0", b""), ("s", "9-0", b"")], ""),
        Commit(START, "2-0", 2, [("s", "1-0", b""), ("s", "1-0", b"")], ""),
        Commit(START, "2-0", 2, [("s", "*", b""), ("s", "1-0", b"")], ""),
    ],
)
def test_a_batch_that_would_fail_half_way_is_not_sent(bad: Commit) -> None:
    with connect("memory://half-way") as connection:
        transport = RedisTransport(connection, KEYS)
        lease = transport.acquire("worker", TTL)
        wrote_nothing(connection, ValueError, lambda: transport.commit(lease, bad))


def test_ids_are_compared_as_numbers_of_64_bits(
    connection: Connection, transport: RedisTransport
) -> None:
    top = 2**64 - 1
    ids = [f"9-{top - 1}", f"9-{top}", f"10-{top - 1}", f"10-{top}"]
    lease = transport.acquire("worker", TTL)
    expected = START
    for entry_id in ids:
        connection.redis.xadd(KEYS.events, {"e": "x"}, id=entry_id)
        transport.commit(lease, batch([entry_id], expected))
        expected = entry_id
    assert [entry_id for entry_id, _ in entries(connection, KEYS.decisions)] == ids


def test_output_streams_are_bounded(connection: Connection) -> None:
    transport = RedisTransport(connection, KEYS, retain=100)
    lease = transport.acquire("worker", TTL)
    ids = [f"{number}-0" for number in range(1, 2_001)]
    transport.commit(lease, batch(ids))
    assert 100 <= connection.redis.xlen(KEYS.decisions) < 400


def test_a_forgotten_script_is_sent_again(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 2)
    lease = transport.acquire("worker", TTL)
    connection.redis.script_flush()
    transport.commit(lease, batch(ids))
    assert transport.checkpoint().position == "2-0"


# The lag


def group(connection: Connection) -> dict[str, object]:
    (only,) = connection.redis.xinfo_groups(KEYS.events)
    return {name: only.get(name) for name in ("name", "last-delivered-id", "pending", "lag")}


def counts_entries(connection: Connection) -> bool:
    return "entries-added" in connection.redis.xinfo_stream(KEYS.events)


def test_the_consumer_group_shows_position_and_lag(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 10)
    assert transport.lag() == 10
    lease = transport.acquire("worker", TTL)
    assert transport.lag() == 10
    transport.commit(lease, batch(ids[:4]))
    assert transport.lag() == 6
    shown = {"name": GROUP.encode(), "last-delivered-id": b"4-0", "pending": 0}
    assert group(connection) == shown | {"lag": 6 if counts_entries(connection) else None}
    transport.commit(lease, batch(ids[4:], "4-0"))
    publish(connection, 3, first=11)
    assert transport.lag() == 3


def test_the_lag_is_right_over_trimming_and_on_a_stream_trimmed_before_we_came(
    connection: Connection, transport: RedisTransport
) -> None:
    publish(connection, 10)
    connection.redis.xtrim(KEYS.events, minid="5-0", approximate=False)
    lease = transport.acquire("worker", TTL)
    assert transport.lag() == 6
    transport.commit(lease, batch(["5-0", "6-0", "7-0"]))
    assert transport.trim(lease, "7-0") == 2
    assert transport.lag() == 3
    transport.commit(lease, batch(["8-0"], "7-0"))
    assert transport.lag() == 2
    if counts_entries(connection):
        assert group(connection)["lag"] == 2


def test_an_entry_deleted_unread_leaves_the_lag_wrong_only_until_the_end_is_reached(
    connection: Connection, transport: RedisTransport
) -> None:
    publish(connection, 5)
    lease = transport.acquire("worker", TTL)
    connection.redis.xdel(KEYS.events, "2-0")
    transport.commit(lease, batch(["1-0", "3-0", "4-0", "5-0"]))
    assert transport.lag() == 0
    publish(connection, 1, first=6)
    assert transport.lag() == 1


def test_a_deleted_group_is_made_again(connection: Connection, transport: RedisTransport) -> None:
    ids = publish(connection, 4)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids[:2]))
    connection.redis.xgroup_destroy(KEYS.events, GROUP)
    transport.commit(lease, batch(ids[2:], "2-0"))
    assert group(connection)["last-delivered-id"] == b"4-0"


# Trimming, and what the input still holds


def test_trimming_deletes_what_is_below_and_is_recorded(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids[:8]))
    assert transport.trim(lease, "6-0") == 5
    assert transport.checkpoint().trimmed == "6-0"
    assert (transport.first_id(), transport.last_id()) == ("6-0", "10-0")
    assert transport.trim(lease, "3-0") == 0
    assert transport.checkpoint().trimmed == "6-0"


def test_entries_not_yet_committed_are_never_trimmed(
    connection: Connection, transport: RedisTransport
) -> None:
    ids = publish(connection, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids[:8]))
    message = wrote_nothing(connection, ValueError, lambda: transport.trim(lease, "8-1"))
    assert "8-0" in message


def test_the_input_reaches_back_to_where_nothing_after_is_missing(
    connection: Connection, transport: RedisTransport
) -> None:
    assert transport.reaches_back_to(START)
    assert (transport.first_id(), transport.last_id()) == (START, START)
    ids = publish(connection, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, batch(ids))
    assert transport.reaches_back_to(START)
    transport.trim(lease, "6-0")
    found = {n: transport.reaches_back_to(f"{n}-0") for n in (0, 5, 6, 7, 10, 11)}
    assert found == {0: False, 5: False, 6: True, 7: True, 10: True, 11: False}


def test_an_input_that_others_trimmed_is_not_trusted(
    connection: Connection, transport: RedisTransport
) -> None:
    publish(connection, 10)
    transport.acquire("worker", TTL)
    connection.redis.xtrim(KEYS.events, maxlen=3, approximate=False)
    assert [transport.reaches_back_to(f"{n}-0") for n in (6, 7, 8)] == [False, False, True]
    assert transport.reaches_back_to(START) is not counts_entries(connection)


def test_an_input_with_a_hole_reaches_back_only_to_after_it(
    connection: Connection, transport: RedisTransport
) -> None:
    publish(connection, 10)
    transport.acquire("worker", TTL)
    connection.redis.xdel(KEYS.events, "7-0")
    if counts_entries(connection):
        assert [transport.reaches_back_to(f"{n}-0") for n in (0, 6, 8)] == [False, False, True]


def test_a_snapshot_notice_is_published(connection: Connection, transport: RedisTransport) -> None:
    transport.notify(transport.acquire("worker", TTL), ANY_BYTES)
    assert [data for _, data in entries(connection, KEYS.snapshots)] == [ANY_BYTES]


async def test_the_asynchronous_client_sees_the_same_server(connection: Connection) -> None:
    connection.redis.set("key", b"\xff")
    async with connection.aio() as client:
        assert await client.get("key") == b"\xff"


# Addresses and errors


@pytest.mark.parametrize(
    "address",
    [
        "localhost:6379",
        "http://127.0.0.1",
        "",
        "redis://127.0.0.1:port",
        "redis://127.0.0.1:1/?no_such_option=1",
        "embedded://",
    ],
)
def test_an_address_that_is_none_is_named_with_the_mend(address: str) -> None:
    with pytest.raises(AddressError, match=r"embedded://DIR"):
        connect(address)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(ConnectionLost) as raised:
        connect("redis://bot:secret@127.0.0.1:1/0")
    message = str(raised.value)
    assert "bot:***@127.0.0.1:1/0" in message and "embedded://DIR" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:p%40ss@host:1/2", "redis://:***@host:1/2"),
        ("rediss://user:a@b@host", "rediss://user:***@host"),
        ("redis://host?password=p", "redis://host"),
        ("unix:///run/redis.sock?password=p", "unix:///run/redis.sock"),
        ("redis://user:secret@host:port", "redis://..."),
        ("memory://name", "memory://name"),
    ],
)
def test_a_shown_address_has_no_password(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_a_wrong_password_is_a_server_error_with_the_mend(redis_server: str) -> None:
    with pytest.raises(ServerError, match="user and password") as raised:
        connect(redis_server.replace("redis://", "redis://nobody:secret@"))
    assert "secret" not in str(raised.value)


def test_a_server_too_old_is_refused_by_its_version(
    redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.connection.OLDEST", (99, 0))
    with pytest.raises(ServerError, match=r"the server is Redis \d+\.\d+.*, at least 99\.0"):
        connect(redis_server)


def test_a_full_server_refuses_the_whole_batch_with_the_mend(redis_server: str) -> None:
    with connect(redis_server) as connection:
        connection.redis.flushall()
        transport = RedisTransport(connection, KEYS)
        ids = publish(connection, 2)
        lease = transport.acquire("worker", TTL)
        connection.redis.config_set("maxmemory", 1)
        try:
            message = wrote_nothing(
                connection, ServerError, lambda: transport.commit(lease, batch(ids))
            )
        finally:
            connection.redis.config_set("maxmemory", 0)
        assert "maxmemory" in message
        transport.commit(lease, batch(ids))


class LossyProxy:
    """Passes bytes between clients and a server; cuts the connection instead of the next reply."""

    def __init__(self, server: str) -> None:
        host, _, port = server.removeprefix("redis://").partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.lose_next_reply = False

    def serve(self, connections: int) -> None:
        for _ in range(connections):
            client, _peer = self._listener.accept()
            with client, socket.create_connection(self._server) as server:
                self._pass(client, server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for ready in select.select([client, server], [], [], 10)[0]:
                data = ready.recv(1 << 16)
                if not data or (ready is server and self.lose_next_reply):
                    self.lose_next_reply = False
                    return
                (server if ready is client else client).sendall(data)

    def close(self) -> None:
        self._listener.close()


def test_a_commit_whose_reply_is_lost_is_sent_again_and_lands_once(redis_server: str) -> None:
    proxy = LossyProxy(redis_server)
    with (
        closing(proxy),
        ThreadPoolExecutor(1) as background,
        redis.Redis.from_url(redis_server) as direct,
    ):
        direct.flushall()
        served = background.submit(proxy.serve, connections=2)
        with connect(proxy.address) as connection:
            transport = RedisTransport(connection, KEYS)
            ids = publish(connection, 2)
            lease = transport.acquire("worker", TTL)
            transport.checkpoint()
            transport.commit(lease, batch(ids[:1]))
            proxy.lose_next_reply = True
            transport.commit(lease, batch(ids[1:], "1-0"))
            assert not proxy.lose_next_reply
            assert transport.checkpoint().position == "2-0"
        served.result(timeout=10)
        assert direct.xlen(KEYS.decisions) == 2
        assert direct.xlen(KEYS.alerts) == 2


def test_a_server_that_went_away_is_a_lost_connection(redis_server: str) -> None:
    proxy = LossyProxy(redis_server)
    with closing(proxy), ThreadPoolExecutor(1) as background:
        background.submit(proxy.serve, connections=1)
        with connect(proxy.address) as connection:
            transport = RedisTransport(connection, KEYS)
            proxy.close()
            proxy.lose_next_reply = True
            with pytest.raises(ConnectionLost, match=r"start it, or use embedded://DIR"):
                transport.checkpoint()


EXPECTED = {
    raw.ConnectionError: ConnectionLost,
    raw.TimeoutError: ConnectionLost,
    raw.BusyLoadingError: ConnectionLost,
    raw.MaxConnectionsError: ConnectionLost,
    raw.ClusterDownError: ConnectionLost,
    raw.MasterDownError: ConnectionLost,
    raw.TryAgainError: ConnectionLost,
    raw.ReadOnlyError: WritesRefused,
    raw.OutOfMemoryError: WritesRefused,
}


def every_redis_error() -> list[type[Exception]]:
    return [
        kind
        for kind in vars(raw).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]


@pytest.mark.parametrize("kind", every_redis_error(), ids=lambda kind: kind.__name__)
def test_every_error_of_redis_becomes_one_of_ours(kind: type[Exception]) -> None:
    with connect("memory://errors") as connection:

        def fail() -> None:
            raise kind("1 127.0.0.1:1")

        expected = EXPECTED.get(kind, ServerError)
        if kind.__name__ == "ExternalAuthProviderError":
            expected = ConnectionLost
        with pytest.raises(StreamError) as raised:
            connection.retrying(fail)
        assert type(raised.value) is expected
        assert "memory://errors" in str(raised.value)


@pytest.mark.parametrize(
    ("error", "ours", "mend"),
    [
        (raw.ReadOnlyError("You can't write"), WritesRefused, "primary"),
        (raw.OutOfMemoryError("command not allowed"), WritesRefused, "maxmemory"),
        (raw.ResponseError("Error running script: -OOM command"), WritesRefused, "maxmemory"),
        (raw.ResponseError("MISCONF Redis is configured"), WritesRefused, "disk"),
        (raw.ResponseError("BUSY Redis is busy running a script"), ConnectionLost, "try again"),
        (raw.ResponseError("BUSYGROUP name already exists"), ServerError, "log"),
        (raw.NoPermissionError("no permissions"), ServerError, "ACL"),
        (raw.MovedError("1 127.0.0.1:1"), ServerError, "cluster"),
        (raw.ConnectionError("refused"), ConnectionLost, "embedded://DIR"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:24],
)
def test_an_error_says_what_to_mend(error: Exception, ours: type[StreamError], mend: str) -> None:
    translated = translate(error, "redis://host")
    assert type(translated) is ours
    assert mend in str(translated)
