"""From the stream of alerts to a receiver: in order, at least once, a bounded number."""

import pytest
import structlog

from engine.notify.courier import MAX_PAUSE_S, POLL_S
from engine.notify.log import Log
from engine.notify.receiver import Undelivered
from streams import Connection, connect, encode
from streams.events import Severity
from tests.engine.telling import KEYS, Listener, Office, alert, publish


class Killed(BaseException):
    """What a process doesn't survive."""


@pytest.fixture
def office(connection: Connection) -> Office:
    return Office(connection)


def test_a_receiver_never_told_before_begins_at_the_end_of_the_stream(office: Office) -> None:
    publish(office.connection, alert("old"))
    listener = Listener()
    office.courier(listener).place()
    publish(office.connection, alert("new"))
    # By another, so that the place was stored.
    office.courier(listener).tell()
    assert listener.subjects == ["new"]


def test_where_there_is_no_stream_yet_it_begins_at_its_start(office: Office) -> None:
    listener = Listener()
    courier = office.courier(listener)
    courier.place()
    publish(office.connection, alert("first"), alert("second"))
    courier.tell()
    assert listener.subjects == ["first", "second"]


def test_another_process_goes_on_where_the_last_one_was(office: Office) -> None:
    listener = Listener()
    office.courier(listener).place()
    for subject in ("one", "two", "three"):
        publish(office.connection, alert(subject))
        office.courier(listener).tell()
    office.courier(listener).tell()
    assert listener.subjects == ["one", "two", "three"]


def test_killed_between_telling_and_remembering_it_tells_again_and_misses_nothing(
    office: Office,
) -> None:
    listener = Listener()
    office.courier(listener).place()
    publish(office.connection, alert("one"), alert("two"), alert("three"))

    def die() -> None:
        if listener.subjects == ["one", "two"]:
            raise Killed

    listener.then = die
    with pytest.raises(Killed):
        office.courier(listener).tell()
    office.courier(listener).tell()
    assert listener.subjects == ["one", "two", "two", "three"]
    first, again = listener.got[1:3]
    assert first.entry_id == again.entry_id


def test_receivers_have_a_mark_each(office: Office) -> None:
    early, late = Listener(), Listener()
    late.name = "late"
    office.courier(early).place()
    office.courier(late).place()
    publish(office.connection, alert("one"))
    office.courier(early).tell()
    publish(office.connection, alert("two"))
    office.courier(late).tell()
    assert (early.subjects, late.subjects) == (["one"], ["one", "two"])


def test_only_the_leader_tells(office: Office) -> None:
    listener = Listener()
    standby = office.courier(listener)
    standby.place()
    publish(office.connection, alert("one"), alert("two"), alert("three"))
    office.leads = False
    standby.tell()
    assert listener.got == []

    def lose_the_lease() -> None:
        office.leads = False

    office.leads = True
    listener.then = lose_the_lease
    standby.tell()
    assert listener.subjects == ["one"]
    office.leads = True
    listener.then = lambda: None
    standby.tell()
    assert listener.subjects == ["one", "two", "three"]


def test_after_some_failures_an_alert_arrives_once(office: Office) -> None:
    listener = Listener()
    courier = office.courier(listener)
    courier.place()
    publish(office.connection, alert("one"), alert("two"))
    listener.troubles = [Undelivered("busy"), OSError("odd"), None]
    courier.tell()
    assert listener.subjects == ["one", "two"]
    assert office.stop.waits == [2.0, 2.0]
    assert office.count("listener", "sent") == 2
    assert office.count("listener", "undelivered") == 0


def test_after_the_last_try_it_is_logged_counted_and_the_next_message_tells_of_it(
    office: Office,
) -> None:
    listener = Listener()
    courier = office.courier(listener, attempts=2)
    courier.place()
    publish(office.connection, alert("lost", code="drift"), alert("kept"), alert("after"))
    listener.troubles = [Undelivered("busy"), Undelivered("still busy")]
    with structlog.testing.capture_logs() as logs:
        courier.tell()
    assert listener.subjects == ["kept", "after"]
    assert [message.untold for message in listener.got] == [{"drift": 1}, {}]
    assert office.count("listener", "undelivered") == 1
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("alert_undelivered", "error")
    assert (line["subject"], line["tries"], line["detail"]) == ("lost", 2, "still busy")


def test_what_trying_again_cannot_mend_is_tried_once(office: Office) -> None:
    listener = Listener()
    courier = office.courier(listener)
    courier.place()
    publish(office.connection, alert("one"), alert("two"))
    listener.troubles = [Undelivered("no such mailbox", again=False)]
    courier.tell()
    assert listener.subjects == ["two"]
    assert office.stop.waits == []


@pytest.mark.parametrize(("asked", "waited"), [(0.5, 2.0), (30.0, 30.0), (1e9, MAX_PAUSE_S)])
def test_a_receiver_is_left_alone_for_as_long_as_it_asks_within_bounds(
    office: Office, asked: float, waited: float
) -> None:
    listener = Listener()
    courier = office.courier(listener)
    courier.place()
    publish(office.connection, alert("one"))
    listener.troubles = [Undelivered("too many", after_s=asked)]
    courier.tell()
    assert listener.subjects == ["one"]
    assert office.stop.waits == [waited]


def test_stopped_between_two_tries_it_leaves_the_alert_to_the_next_process(
    office: Office,
) -> None:
    listener = Listener()
    courier = office.courier(listener)
    courier.place()
    publish(office.connection, alert("one"))
    listener.troubles = [Undelivered("busy")]
    office.stop.meanwhile = office.stop.set
    courier.tell()
    assert listener.got == []
    assert office.count("listener", "undelivered") == 0
    office.stop.clear()
    office.courier(listener).tell()
    assert listener.subjects == ["one"]


def test_told_while_the_server_takes_no_writes_it_is_not_told_again(redis_server: str) -> None:
    with connect(redis_server) as connection:
        connection.redis.flushall()
        office, listener = Office(connection), Listener()
        courier = office.courier(listener)
        courier.place()
        publish(connection, alert("one"))

        def make_room() -> None:
            if len(office.stop.waits) == 3:
                connection.redis.config_set("maxmemory", 0)

        office.stop.meanwhile = make_room
        connection.redis.config_set("maxmemory", 1)
        courier.tell()
        connection.redis.config_set("maxmemory", 0)
        office.courier(listener).tell()
    assert listener.subjects == ["one"]
    assert office.stop.waits == [POLL_S] * 3


def test_a_server_that_refuses_is_only_waited_for(redis_server: str) -> None:
    with connect(redis_server) as connection:
        connection.redis.flushall()
        office, listener = Office(connection), Listener()
        in_turn = iter(
            [
                lambda: connection.redis.config_set("maxmemory", 0),
                lambda: publish(connection, alert("one")),
                office.stop.set,
            ]
        )
        office.stop.meanwhile = lambda: next(in_turn)()
        connection.redis.config_set("maxmemory", 1)
        try:
            office.courier(listener).run()
        finally:
            connection.redis.config_set("maxmemory", 0)
    assert listener.subjects == ["one"]


def test_when_the_server_has_forgotten_everything_what_comes_then_is_told(office: Office) -> None:
    listener = Listener()
    courier = office.courier(listener)
    courier.place()
    publish(office.connection, alert("one"))
    courier.tell()
    office.connection.redis.flushall()
    # In the same millisecond it would have the ID of the one before.
    office.connection.redis.xadd(KEYS.alerts, {"e": encode(alert("two"))}, "99999999999999-0")
    courier.tell()
    assert listener.subjects == ["one", "two"]


def test_the_log_gets_every_alert_once_at_its_level(office: Office) -> None:
    courier = office.courier(Log())
    courier.place()
    severities: tuple[Severity, ...] = ("critical", "warning", "info")
    publish(office.connection, *(alert(f"{i}", severities[i % 3]) for i in range(600)))
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):  # a page each, and one more time for nothing
            courier.tell()
    assert [log["subject"] for log in logs] == [str(i) for i in range(600)]
    assert [log["log_level"] for log in logs] == [severities[i % 3] for i in range(600)]
    assert {log["event"] for log in logs} == {"alert"}
