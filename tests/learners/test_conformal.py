"""Intervals that hold what they promise, on whatever comes."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.conformal import MISSES, ProbabilityInterval, ReturnInterval
from learners.history import MAX_RETURN_PCT

WIDEST = 61  # doublings that reach whatever may come, as its docstring says


def misses(interval: ReturnInterval | ProbabilityInterval) -> int:
    return interval.judged - interval.covered


# Returns


def stream(interval: ReturnInterval, errors: list[float], delay: int = 0) -> None:
    """Returns around 0 of usual size 1, whose closes come that many signals late."""
    waiting = []
    for error in errors:
        waiting.append((interval.predict(0.0, 1.0), error))
        if len(waiting) > delay:
            frozen, seen = waiting.pop(0)
            interval.learn(frozen, 0.0, 1.0, seen)


def test_until_enough_is_known_there_is_none() -> None:
    interval = ReturnInterval(least=50)
    for i in range(50):
        assert interval.predict(0.0, 1.0) is None
        interval.learn(None, 0.0, 1.0, float(i))
    assert interval.predict(0.0, 1.0) is not None
    assert interval.judged == 0


def test_it_lies_around_the_expected_return_and_is_as_wide_as_the_symbol_is_wild() -> None:
    interval = ReturnInterval()
    stream(interval, np.random.default_rng(1).normal(size=1000).tolist())
    calm, wild = interval.predict(5.0, 1.0), interval.predict(5.0, 3.0)
    assert calm is not None
    assert wild is not None
    assert calm == pytest.approx((5.0 - 1.64, 5.0 + 1.64), abs=0.25)
    assert wild[1] - wild[0] == pytest.approx(3.0 * (calm[1] - calm[0]))


@pytest.mark.parametrize(
    "errors",
    [
        np.random.default_rng(2).normal(size=4000),
        np.random.default_rng(3).standard_t(2, size=4000),
        np.random.default_rng(4).exponential(size=4000) - 0.3,
        np.random.default_rng(5).normal(size=4000) * np.repeat([1.0, 5.0, 0.2, 2.0], 1000),
        np.random.default_rng(6).normal(size=4000) + np.repeat([0.0, 2.0, -2.0, 0.0], 1000),
        np.where(np.random.default_rng(7).random(4000) < 0.45, 1.0, -1.0)
        + np.random.default_rng(8).normal(0, 0.01, 4000),
    ],
    ids=["normal", "heavy tails", "skewed", "size changes", "mean changes", "two values"],
)
def test_nine_in_ten_returns_lie_in_it(errors: np.ndarray) -> None:
    interval = ReturnInterval()
    stream(interval, errors.tolist(), delay=20)
    assert 0.88 <= interval.covered / interval.judged <= 0.92


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["below", "above", "by turns", "anything"]),
    st.integers(0, 2**32),
    st.sampled_from([0, 7]),
    st.sampled_from([0.005, 0.05]),
    st.integers(1, 900),
)
def test_no_adversary_makes_more_miss_than_promised(
    how: str, seed: int, delay: int, pace: float, closes: int
) -> None:
    rng = np.random.default_rng(seed)
    interval = ReturnInterval(window=100, least=5, pace=pace)
    waiting: list[tuple[tuple[float, float] | None, float]] = []
    for turn in range(closes):
        frozen = interval.predict(0.0, 1.0)
        low, high = frozen or (0.0, 0.0)
        if how == "anything":
            seen = float(rng.choice([0.0, low, high, 1.0, -1e6, 1e6])) + float(rng.normal())
        elif how == "below" or (how == "by turns" and turn // 40 % 2):
            seen = 1.5 * low - 1.0
        else:
            seen = 1.5 * high + 1.0
        waiting.append((frozen, min(max(seen, -MAX_RETURN_PCT), MAX_RETURN_PCT)))
        if len(waiting) > delay:
            before, value = waiting.pop(0)
            interval.learn(before, 0.0, 1.0, value)
        room = 2 * (MISSES / 2 / pace + WIDEST + delay)
        assert misses(interval) <= MISSES * interval.judged + room


def test_returns_that_never_varied_do_not_make_it_slow_to_see_that_they_do() -> None:
    interval = ReturnInterval()
    stream(interval, [1.0] * 20_000)
    calm = interval.judged - interval.covered
    stream(interval, np.random.default_rng(9).normal(size=1000).tolist())
    assert misses(interval) - calm < 0.1 * 1000 + 2 * (0.5 / 0.005)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1e6, -1.0, 0.0, 1.0, 1e6]), min_size=60, max_size=200))
def test_its_ends_are_finite_and_in_order_whatever_came(errors: list[float]) -> None:
    interval = ReturnInterval(window=50, least=5, pace=0.5)
    for error in errors:
        found = interval.predict(-1e6, 1e6)
        interval.learn(found, -1e6, 1e6, error)
        if found is not None:
            assert -math.inf < found[0] <= found[1] < math.inf


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 150))
def test_a_restored_return_interval_goes_on_to_the_bit(seed: int, at: int) -> None:
    errors = np.random.default_rng(seed).normal(size=200).tolist()
    straight = ReturnInterval(window=40, least=10)
    restored = ReturnInterval(window=40, least=10)
    stream(straight, errors[:at])
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    for error in errors[at:]:
        assert restored.predict(0.1, 2.0) == straight.predict(0.1, 2.0)
        stream(straight, [error])
        stream(restored, [error])
    assert repr(restored.state()) == repr(straight.state())


# Probabilities


def judge(interval: ProbabilityInterval, p: list[float], won: list[bool], delay: int = 0) -> None:
    waiting = []
    for said, label in zip(p, won, strict=True):
        waiting.append((said, interval.predict(said), label))
        if len(waiting) > delay:
            interval.learn(*waiting.pop(0))


@pytest.mark.parametrize("bias", [0.0, 0.3, -0.3, 0.7], ids=lambda bias: f"wrong by {bias}")
@pytest.mark.parametrize("stretch", [1.0, 2.0], ids=["as sure as right", "too sure"])
def test_nine_in_ten_groups_of_closes_have_their_share_of_wins_in_it(
    bias: float, stretch: float
) -> None:
    rng = np.random.default_rng(11)
    z = rng.normal(-0.2, 0.6, 50_000)
    won = (rng.random(50_000) < 1.0 / (1.0 + np.exp(-z - bias))).tolist()
    p = (1.0 / (1.0 + np.exp(-stretch * z))).tolist()
    interval = ProbabilityInterval()
    judge(interval, p[:15_000], won[:15_000], delay=20)
    if abs(bias) < 0.5 and stretch == 1.0:  # else it first has to follow
        assert 0.88 <= interval.covered / interval.judged <= 0.92
    before = interval.judged, interval.covered
    judge(interval, p[15_000:], won[15_000:], delay=20)
    assert 0.88 <= (interval.covered - before[1]) / (interval.judged - before[0]) <= 0.92


def test_the_better_calibrated_the_narrower() -> None:
    rng = np.random.default_rng(12)
    p = rng.uniform(0.3, 0.7, 30_000)
    won = rng.random(30_000) < p
    good, bad = ProbabilityInterval(), ProbabilityInterval()
    judge(good, p.tolist(), won.tolist())
    judge(bad, (p + 0.2).tolist(), won.tolist())
    assert good.width < 2.2
    assert bad.width > 2.0 * good.width


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["against", "win", "lose", "anything"]),
    st.integers(0, 2**32),
    st.integers(1, 2000),
)
def test_no_adversary_makes_more_groups_miss_than_promised(
    how: str, seed: int, closes: int
) -> None:
    rng = np.random.default_rng(seed)
    interval = ProbabilityInterval(group=10, ranks=3, window=50)
    for _ in range(closes):
        p = float(rng.choice([0.1, 0.3, 0.5, 0.8, 0.9]))
        won = {"against": p < 0.5, "win": True, "lose": False}.get(how, bool(rng.random() < 0.5))
        interval.learn(p, interval.predict(p), won)
    # Where each interval is all of [0, 1], and one group a rank that began narrower.
    widest = math.sqrt(10 * 0.9 / 0.1) + 3 * interval.pace
    room = (widest - 1.6449) / interval.pace
    assert misses(interval) <= MISSES * interval.judged + room


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0, 400))
def test_it_is_an_interval_of_probabilities_and_holds_its_own(p: float, width: float) -> None:
    interval = ProbabilityInterval()
    interval.width = width
    low, high = interval.predict(p)
    assert 0.0 <= low <= p <= high <= 1.0


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 300))
def test_a_restored_probability_interval_goes_on_to_the_bit(seed: int, at: int) -> None:
    rng = np.random.default_rng(seed)
    p, won = rng.uniform(0.01, 0.99, 400).tolist(), (rng.random(400) < 0.5).tolist()
    straight = ProbabilityInterval(group=10, window=50)
    restored = ProbabilityInterval(group=10, window=50)
    judge(straight, p[:at], won[:at])
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    judge(straight, p[at:], won[at:])
    judge(restored, p[at:], won[at:])
    assert repr(restored.state()) == repr(straight.state())
    assert restored.predict(0.4) == straight.predict(0.4)
