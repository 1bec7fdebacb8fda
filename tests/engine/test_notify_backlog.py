"""Which of the alerts that wait a receiver is told, and in what number."""

from collections import Counter

import pytest

from engine.notify import Message
from engine.notify.marks import UNREADABLE
from engine.notify.message import TRIMMED
from streams import Connection
from streams.events import Severity
from tests.engine.telling import KEYS, Listener, Office, alert, publish


@pytest.fixture
def office(connection: Connection) -> Office:
    return Office(connection)


def test_what_is_not_severe_enough_is_passed_over(office: Office) -> None:
    critical, warning, everything = Listener("critical"), Listener("warning"), Listener("info")
    for name, listener in enumerate((critical, warning, everything)):
        listener.name = str(name)
        office.courier(listener).place()
    severities: tuple[Severity, ...] = ("info", "warning", "critical")
    publish(office.connection, *(alert(severity, severity) for severity in severities))
    for listener in (critical, warning, everything):
        office.courier(listener).tell()
    assert critical.subjects == ["critical"]
    assert warning.subjects == ["warning", "critical"]
    assert everything.subjects == ["info", "warning", "critical"]


def test_of_many_that_wait_the_worst_and_latest_are_told_and_the_rest_summed_up(
    office: Office,
) -> None:
    listener = Listener("warning", most=4)
    courier = office.courier(listener)
    courier.place()
    publish(
        office.connection,
        alert("early", "critical", "halted"),
        *(alert(f"w{i}", "warning", "drift") for i in range(300)),
        alert("late", "critical", "halted"),
        *(alert(f"x{i}", "warning", "refit") for i in range(300)),
        *(alert(f"i{i}", "info", "said") for i in range(10)),
    )
    courier.tell()
    assert listener.subjects == ["early", "late", "x298", "x299"]
    assert listener.got[0].untold == {"drift": 300, "refit": 298}
    assert [message.untold for message in listener.got[1:]] == [{}, {}, {}]
    assert office.count("listener", "sent") == 4
    assert office.count("listener", "summed_up") == 598
    courier.tell()
    assert len(listener.got) == 4


def test_the_sum_says_how_many_of_which_code() -> None:
    codes = Counter({"drift": 30, "refit": 10} | {f"c{i:02}": 1 for i in range(12)})
    (said,) = [value for name, value in Message("", "", alert("a"), codes).facts if "one" in name]
    assert said == (
        "52 alerts: drift 30, refit 10, c00 1, c01 1, c02 1, c03 1, c04 1, c05 1, c06 1, c07 1,"
        " others 4"
    )


def test_alerts_trimmed_unread_are_told_as_a_number_where_the_server_counts(
    office: Office,
) -> None:
    redis = office.connection.redis
    counts = "entries-added" in _info(office)
    listener = Listener()
    courier = office.courier(listener)
    publish(office.connection, alert("zero"))
    courier.place()
    publish(office.connection, alert("one"))
    courier.tell()
    publish(office.connection, *(alert(str(i)) for i in range(10)))
    redis.xtrim(KEYS.alerts, maxlen=3, approximate=False)
    courier.tell()
    assert listener.subjects == ["one", "7", "8", "9"]
    assert listener.got[1].untold == ({TRIMMED: 7} if counts else {})
    publish(office.connection, alert("on"))
    courier.tell()
    assert listener.got[-1].untold == {}


def _info(office: Office) -> dict[str, object]:
    publish(office.connection, alert("asked"))
    found: dict[str, object] = office.connection.redis.xinfo_stream(KEYS.alerts)
    return found


def test_what_lies_in_the_stream_and_is_no_alert_is_told_of_as_such(office: Office) -> None:
    listener = Listener()
    courier = office.courier(listener)
    courier.place()
    office.connection.redis.xadd(KEYS.alerts, {"e": b"{}"})
    office.connection.redis.xadd(KEYS.alerts, {"other": b"{}"})
    publish(office.connection, alert("next"))
    courier.tell()
    assert [message.alert.code for message in listener.got] == [UNREADABLE, UNREADABLE, "halted"]
