import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.window import Due, Order, RefitSchedule, RefitWindow, WindowView


def row(close: int) -> NDArray[np.float64]:
    """The row of the close of this number. Columns come, but signals don't close in their order."""
    return np.arange(3.0 + close // 7 - close % 3) + close


def fill(window: RefitWindow, start: int, stop: int) -> None:
    for close in range(start, stop):
        window.add(row(close), close % 3 - 1.0, float(close), close + 0.5)


def same(a: WindowView, b: WindowView) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "rows")
        for name in ("rows", "won", "returns", "opened", "closed")
    )


@given(st.integers(1, 20), st.integers(0, 6), st.integers(0, 60))
def test_it_holds_the_newest_closes_oldest_first(size: int, lag: int, closes: int) -> None:
    window = RefitWindow(size, lag)
    fill(window, 0, closes)
    view = window.at(closes)
    held = range(max(closes - size, 0), closes)
    assert view.opened.tolist() == [float(close) for close in held]
    assert view.closed.tolist() == [close + 0.5 for close in held]
    assert view.returns.tolist() == [close % 3 - 1.0 for close in held]
    assert view.won.tolist() == [close % 3 == 2 for close in held]
    assert view.rows.dtype == np.float32
    for close, kept in zip(held, view.rows, strict=True):
        values = row(close)
        assert kept[: len(values)].tolist() == values.tolist()
        assert np.isnan(kept[len(values) :]).all()


@given(st.integers(1, 20), st.integers(0, 10), st.integers(0, 60), st.integers(0, 10))
def test_a_window_can_be_had_again_until_the_lag_is_over(
    size: int, lag: int, launched: int, later: int
) -> None:
    window = RefitWindow(size, lag)
    fill(window, 0, launched)
    then = window.at(launched)
    fill(window, launched, launched + later)
    if later <= lag:
        again = window.at(launched)
        columns = then.rows.shape[1]
        assert np.isnan(again.rows[:, columns:]).all()
        assert np.array_equal(again.rows[:, :columns], then.rows, equal_nan=True)
        assert again.opened.tolist() == then.opened.tolist()
    else:
        with pytest.raises(LookupError, match=f"at close {launched} is not to be had"):
            window.at(launched)
    with pytest.raises(LookupError):
        window.at(launched + later + 1)


@given(st.integers(1, 20), st.integers(0, 6), st.integers(0, 60), st.integers(0, 60))
def test_a_restored_window_goes_on_as_if_it_had_never_stopped(
    size: int, lag: int, before: int, after: int
) -> None:
    straight = RefitWindow(size, lag)
    fill(straight, 0, before)
    restored = RefitWindow(size, lag)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    assert restored.closes == before
    for window in (straight, restored):
        fill(window, before, before + after)
    for closes in range(max(before + after - lag, 0), before + after + 1):
        assert same(restored.at(closes), straight.at(closes))
    for mine, theirs in zip(restored.state().values(), straight.state().values(), strict=True):
        assert np.array_equal(mine, theirs, equal_nan=True)


def test_a_view_is_a_copy() -> None:
    window = RefitWindow(5, 2)
    fill(window, 0, 5)
    view, state = window.at(5), window.state()
    fill(window, 5, 12)
    assert view.opened.tolist() == state["opened"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert view.rows[0, 0] == state["rows"][0, 0] == 0.0


def steps(schedule: RefitSchedule, closes: range, drifts: set[int]) -> dict[int, Due]:
    due = {}
    for close in closes:
        if close in drifts:
            schedule.ask(Order("drift"))
        found = schedule.step(close)
        if found != Due():
            due[close] = found
    return due


def test_a_refit_is_launched_every_n_closes_and_installed_exactly_after_the_lag() -> None:
    assert steps(RefitSchedule(10, 3), range(1, 25), set()) == {
        10: Due(launch=10),
        13: Due(install=10),
        20: Due(launch=20),
        23: Due(install=20),
    }


def test_drift_launches_one_at_once_or_when_the_one_under_way_is_installed() -> None:
    assert steps(RefitSchedule(10, 3), range(1, 20), {4, 11, 12}) == {
        4: Due(launch=4),
        7: Due(install=4),
        10: Due(launch=10),
        13: Due(install=10, launch=13),
        16: Due(install=13),
    }


def test_a_launch_that_falls_into_another_refit_is_left_out() -> None:
    assert steps(RefitSchedule(10, 3), range(1, 25), {9}) == {
        9: Due(launch=9),
        12: Due(install=9),
        20: Due(launch=20),
        23: Due(install=20),
    }


def test_of_two_that_are_asked_for_one_is_made_and_it_is_what_either_asked() -> None:
    schedule = RefitSchedule(100, 3)
    schedule.ask(Order("drift"))
    schedule.ask(Order("ann", forced=True))
    schedule.ask(Order("weekly", full=True))
    assert schedule.step(1) == Due(launch=1)
    assert schedule.order == Order("ann", full=True, forced=True)
    schedule.ask(Order("drift"))
    assert schedule.step(4) == Due(install=1, launch=4)
    assert (schedule.done.cause, schedule.order) == ("ann", Order("drift"))


@given(
    st.integers(1, 12),
    st.integers(1, 15),
    st.sets(st.integers(1, 60), max_size=8),
    st.integers(0, 60),
)
def test_never_two_at_once_and_a_restored_schedule_goes_on_the_same(
    every: int, lag: int, drifts: set[int], at: int
) -> None:
    straight = RefitSchedule(every, lag)
    due = steps(straight, range(1, 61), drifts)
    launches = [close for close, found in due.items() if found.launch]
    assert all(b - a >= lag for a, b in pairwise(launches))
    assert all(close - lag == found.install for close, found in due.items() if found.install)
    stopped = RefitSchedule(every, lag)
    first = steps(stopped, range(1, at + 1), drifts)
    restored = RefitSchedule(every, lag)
    restored.restore(pickle.loads(pickle.dumps(stopped.state())))
    assert first | steps(restored, range(at + 1, 61), drifts) == due
