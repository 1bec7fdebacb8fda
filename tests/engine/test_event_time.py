"""Event time: moved by most of the last events, never by one."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.event_time import MEDIAN_OF, EventTime
from tests.streams.generated import times


def seen(*moments: datetime) -> EventTime:
    time = EventTime()
    for moment in moments:
        time.see(moment)
    return time


@settings(deadline=None)
@given(st.lists(times, min_size=1, max_size=40), times)
def test_one_time_of_the_last_never_leads_beyond_the_others(honest, lie):
    for place in range(len(honest) + 1):
        time = seen(*honest[:place], lie, *honest[place:])
        assert min(honest) <= time.now <= max(honest) or time.now == min(lie, min(honest))


def test_it_is_the_time_of_most_of_the_last():
    old, new = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    assert seen(*[old] * 40, *[new] * (MEDIAN_OF // 2)).now == old
    assert seen(*[old] * 40, *[new] * (MEDIAN_OF // 2 + 1)).now == new


@settings(deadline=None)
@given(st.lists(times, max_size=40), st.lists(times, max_size=5))
def test_going_on_from_a_state_equals_never_having_stopped(before, after):
    there = seen(*before)
    here = EventTime()
    here.restore(there.state())
    assert here.now == there.now
    for moment in after:
        here.see(moment)
        there.see(moment)
    assert (here.now, here.state()) == (there.now, there.state())
