"""The report of what a server lost: one for each loss, whoever sends it and however often."""

import pytest

from streams import Commit, Connection, Keys, LeaseLost, RedisTransport

KEYS = Keys()


@pytest.fixture
def transport(connection: Connection) -> RedisTransport:
    return RedisTransport(connection, KEYS)


def reports(connection: Connection) -> list[bytes]:
    return [fields[b"e"] for _, fields in connection.redis.xrange(KEYS.alerts)]


def test_a_loss_is_reported_once_whoever_sends_it_again(connection, transport):
    transport.report_loss(transport.acquire("one", 60_000), b"first")
    again = transport.acquire("one", 60_000)
    transport.report_loss(again, b"again")
    assert reports(connection) == [b"first"]


def test_once_something_is_committed_the_next_loss_is_another_one(connection, transport):
    lease = transport.acquire("one", 60_000)
    transport.report_loss(lease, b"first")
    transport.commit(lease, Commit("0-0", "1-0", 1, [], "d"))
    transport.report_loss(lease, b"second")
    assert reports(connection) == [b"first", b"second"]


def test_who_has_lost_the_lease_reports_nothing(connection, transport):
    lease = transport.acquire("one", 60_000)
    transport.acquire("one", 60_000)
    with pytest.raises(LeaseLost):
        transport.report_loss(lease, b"stale")
    assert reports(connection) == []
