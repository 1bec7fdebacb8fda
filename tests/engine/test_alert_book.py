"""The same isn't said twice, a flood is summed up, and nothing held back is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from engine.finding import Finding
from engine.safety.alert_book import REMEMBERED, AlertBook
from engine.safety.settings import AlertsConfig
from streams.events import Alert
from tests.engine.histories import at


def book(**settings: float) -> AlertBook:
    return AlertBook(AlertsConfig.model_validate(settings))


def happened(subject: str = "x", code: str = "drift", severity: str = "info") -> Finding:
    return Finding(severity, code, subject, "it did")  # type: ignore[arg-type]


def condition(state: str) -> Finding:
    return Finding("warning", "late_labels", "kill_switch", "late", state)  # type: ignore[arg-type]


def say(one: AlertBook, finding: Finding, minutes: float) -> Alert | None:
    return one.say(finding, at(minutes), at(minutes))


def test_the_same_is_said_again_only_after_a_while_and_then_with_how_many_were_held_back():
    alerts = book(repeat_minutes=60)
    assert say(alerts, happened(), 0) is not None
    assert say(alerts, happened(), 10) is None
    assert say(alerts, happened(), 59.9) is None
    again = say(alerts, happened(), 60)
    assert again is not None
    assert again.unsaid == 2
    assert alerts.held_back == 2
    assert say(alerts, happened("y"), 60.1) is not None


def test_a_condition_is_said_when_it_begins_and_when_it_is_over():
    alerts = book()
    assert say(alerts, condition("resolved"), 0) is None  # of what nobody heard of
    begun = say(alerts, condition("firing"), 1)
    assert begun is not None
    assert begun.state == "firing"
    assert say(alerts, condition("firing"), 200) is None
    over = say(alerts, condition("resolved"), 300)
    assert over is not None
    assert (over.state, over.unsaid) == ("resolved", 1)
    assert say(alerts, condition("firing"), 301) is not None


def test_a_flood_is_held_back_and_counted_but_nothing_critical():
    alerts = book(max_per_hour=3)
    said = [say(alerts, happened(f"s{i}", "signal_expired"), i / 100) for i in range(10)]
    assert [one is not None for one in said] == [True] * 3 + [False] * 7
    assert say(alerts, happened("z", "halt", "critical"), 0.2) is not None
    later = say(alerts, happened("later", "signal_expired"), 61)
    assert later is not None
    assert later.unsaid == 7


def test_who_waits_for_an_answer_gets_it():
    alerts = book(max_per_hour=1)
    answer = Finding("info", "refit", "model", "asked for", always=True)
    assert all(say(alerts, answer, 0) is not None for _ in range(5))


def test_an_hour_that_began_in_a_wrong_clocks_future_ends():
    alerts = book(max_per_hour=2)
    for i in range(2):
        assert say(alerts, happened(f"{i}"), 10**6) is not None
    assert say(alerts, happened("now"), 0) is not None


def test_memory_is_bounded_and_what_is_forgotten_is_still_counted():
    alerts = book(max_per_hour=10**6)
    assert say(alerts, happened("first"), 0) is not None
    assert say(alerts, happened("first"), 0) is None
    told = [say(alerts, happened(f"s{i}"), 0) for i in range(REMEMBERED + 1)]
    assert len(alerts.state()["said"]) == REMEMBERED
    assert sum(one.unsaid or 0 for one in told if one is not None) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["info", "critical"]),
            st.sampled_from([None, "firing", "resolved"]),
            st.floats(0, 300),
        ),
        max_size=40,
    ),
    st.integers(0, 40),
)
def test_restored_it_goes_on_the_same_and_all_is_said_or_counted(said, cut):
    straight, stopped = book(max_per_hour=4), book(max_per_hour=4)
    findings = [
        (Finding(severity, "code", subject, "m", state), minutes)
        for subject, severity, state, minutes in said
    ]
    whole = [say(straight, finding, minutes) for finding, minutes in findings]
    first = [say(stopped, finding, minutes) for finding, minutes in findings[:cut]]
    again = book(max_per_hour=4)
    again.restore(stopped.state())
    assert first + [say(again, f, minutes) for f, minutes in findings[cut:]] == whole
    told = [one for one in whole if one is not None]
    waiting = sum(count for *_, count in straight.state()["unsaid"])
    assert len(findings) == len(told) + straight.held_back
    assert straight.held_back == sum(one.unsaid or 0 for one in told) + waiting
