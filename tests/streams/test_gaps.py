"""Input that somebody else deleted before it was read: never passed over in silence."""

import pytest

from streams import Commit, Connection, InputGap, Keys, LeaseLost, RedisTransport

KEYS = Keys()
TTL = 60_000


@pytest.fixture
def transport(connection: Connection) -> RedisTransport:
    return RedisTransport(connection, KEYS)


def publish(connection: Connection, first: int, last: int) -> None:
    for number in range(first, last + 1):
        connection.redis.xadd(KEYS.events, {"e": f"event {number}"}, id=f"{number}-0")


def commit(number: int, expected: int, entries: int = 1) -> Commit:
    """A commit that moves from one entry to another."""
    return Commit(f"{expected}-0", f"{number}-0", entries, [], "digest")


def alerts(connection: Connection) -> list[bytes]:
    return [fields[b"e"] for _, fields in connection.redis.xrange(KEYS.alerts)]


def counts_entries(connection: Connection) -> bool:
    return "entries-added" in connection.redis.xinfo_stream(KEYS.events)


def trimmed_beyond(connection: Connection, transport: RedisTransport):
    """A lease, with entries 1 to 4 of 10 committed and 1 to 6 deleted."""
    publish(connection, 1, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, commit(4, 0, 4))
    connection.redis.xtrim(KEYS.events, minid="7-0", approximate=False)
    return lease


def test_a_commit_over_a_gap_is_refused_and_names_what_is_missing(connection, transport):
    lease = trimmed_beyond(connection, transport)
    with pytest.raises(InputGap) as raised:
        transport.commit(lease, commit(7, 4))
    how_many = "2 were" if counts_entries(connection) else "perhaps some were"
    assert f"after 4-0 and before 7-0, {how_many} deleted" in str(raised.value)
    assert transport.checkpoint().position == "4-0"


def test_an_idle_worker_finds_out_when_it_renews_its_lease(connection, transport):
    lease = trimmed_beyond(connection, transport)
    with pytest.raises(InputGap):
        transport.renew(lease, "4-0")
    transport.renew(lease)  # without a position nothing is looked at


def test_once_the_gap_is_reported_the_commit_goes_through(connection, transport):
    lease = trimmed_beyond(connection, transport)
    transport.report_gap(lease, b"gap")
    transport.renew(lease, "4-0")
    transport.commit(lease, commit(7, 4))
    assert transport.checkpoint().position == "7-0"


def test_a_gap_is_reported_once_whoever_sends_it_again_and_the_next_is_another(
    connection, transport
):
    trimmed_beyond(connection, transport)
    transport.report_gap(transport.acquire("worker", TTL), b"first")
    lease = transport.acquire("worker", TTL)
    transport.report_gap(lease, b"again")
    transport.commit(lease, commit(7, 4))
    connection.redis.xtrim(KEYS.events, minid="10-0", approximate=False)
    with pytest.raises(InputGap):
        transport.commit(lease, commit(10, 7))
    transport.report_gap(lease, b"second")
    assert alerts(connection) == [b"first", b"second"]


def test_a_loss_reported_at_the_same_position_hides_no_gap(connection, transport):
    lease = trimmed_beyond(connection, transport)
    transport.report_loss(lease, b"loss")
    with pytest.raises(InputGap):
        transport.renew(lease, "4-0")


def test_who_has_lost_the_lease_reports_no_gap(connection, transport):
    stale = trimmed_beyond(connection, transport)
    transport.acquire("worker", TTL)
    with pytest.raises(LeaseLost):
        transport.report_gap(stale, b"stale")
    assert alerts(connection) == []


@pytest.mark.parametrize("delete", ["DEL", "XTRIM"])
def test_input_deleted_as_a_whole_is_a_gap_also_when_it_begins_anew(connection, transport, delete):
    publish(connection, 1, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, commit(4, 0, 4))
    if delete == "DEL":
        connection.redis.delete(KEYS.events)
    else:
        connection.redis.xtrim(KEYS.events, maxlen=0, approximate=False)
    with pytest.raises(InputGap, match="after 4-0 "):
        transport.renew(lease, "4-0")
    publish(connection, 11, 20)
    with pytest.raises(InputGap, match="before 11-0"):
        transport.commit(lease, commit(20, 4, 10))


def test_input_deleted_as_a_whole_after_a_batch_was_read_is_a_gap_before_it_is_committed(
    connection, transport
):
    publish(connection, 1, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, commit(4, 0, 4))
    connection.redis.delete(KEYS.events)
    with pytest.raises(InputGap, match="after 4-0 perhaps some"):
        transport.commit(lease, commit(6, 4, 2))
    publish(connection, 11, 12)
    if counts_entries(connection):  # before Redis 7 it shows at the next look
        with pytest.raises(InputGap, match="after 4-0 and before 11-0, perhaps some"):
            transport.commit(lease, commit(6, 4, 2))


def test_what_is_trimmed_up_to_the_checkpoint_is_no_gap(connection, transport):
    publish(connection, 1, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, commit(4, 0, 4))
    transport.trim(lease, "4-0")
    transport.commit(lease, commit(5, 4))
    if counts_entries(connection):  # before Redis 7 it can't be told from a gap
        connection.redis.xtrim(KEYS.events, minid="6-0", approximate=False)
    transport.commit(lease, commit(10, 5, 5))
    connection.redis.xtrim(KEYS.events, maxlen=0, approximate=False)
    transport.renew(lease, "10-0")


def test_what_is_trimmed_once_it_was_read_is_no_gap_but_what_follows_is_one(connection, transport):
    publish(connection, 1, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, commit(2, 0, 2))
    connection.redis.xtrim(KEYS.events, minid="6-0", approximate=False)
    if counts_entries(connection):  # before Redis 7 it can't be told from a gap
        transport.commit(lease, commit(7, 2, 5))
        publish(connection, 11, 12)
    else:
        transport.commit(lease, commit(5, 2, 3))
    position = transport.checkpoint().position
    connection.redis.xtrim(KEYS.events, minid="10-0", approximate=False)
    with pytest.raises(InputGap, match=f"after {position} and before 10-0"):
        transport.commit(lease, commit(12, int(position[:-2]), 3))


def test_how_many_are_missing_is_told_apart_from_what_was_trimmed_once_it_was_read(
    connection, transport
):
    lease = trimmed_beyond(connection, transport)
    entries = transport.read("4-0", 2)
    assert [entry.id for entry in entries] == ["7-0", "8-0"]
    connection.redis.xtrim(KEYS.events, minid="8-0", approximate=False)
    how_many = "2 were" if counts_entries(connection) else "perhaps some were"
    with pytest.raises(InputGap, match=f"before 8-0, {how_many}"):
        transport.commit(lease, commit(8, 4, 2))


def test_when_all_that_was_read_is_gone_the_rest_shows_at_the_next_look(connection, transport):
    publish(connection, 1, 10)
    lease = transport.acquire("worker", TTL)
    transport.commit(lease, commit(2, 0, 2))
    connection.redis.xtrim(KEYS.events, minid="8-0", approximate=False)
    transport.commit(lease, commit(5, 2, 3))
    how_many = "2 were" if counts_entries(connection) else "perhaps some were"
    with pytest.raises(InputGap, match=f"after 5-0 and before 8-0, {how_many}"):
        transport.renew(lease, "5-0")


def test_a_worker_that_is_the_first_begins_where_the_stream_does(connection, transport):
    publish(connection, 1, 10)
    lease = transport.acquire("worker", TTL)
    connection.redis.xtrim(KEYS.events, minid="7-0", approximate=False)
    transport.commit(lease, commit(7, 0))
