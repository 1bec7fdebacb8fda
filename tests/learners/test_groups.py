"""Means and rates by group, that borrow from the mean of all."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.groups import LEVELS, GroupMeans, GroupRate

CLOSES = st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=60)


def signal(name: str) -> dict[str, str]:
    return {"symbol": name, "strategy": "orb", "side": "long", "regime": "ranging"}


def test_a_group_is_shrunk_towards_the_mean_of_all_as_by_hand() -> None:
    means = GroupMeans(shrink=4.0, half_life=1.0)
    assert means.mean("a", 0.25) == 0.25
    means.learn("a", 3.0)
    assert means.mean("a", 0.25) == (3.0 + 4.0 * 0.25) / (1.0 + 4.0)
    means.learn("a", 1.0)
    # With a half-life of one close the first now counts half.
    assert means.mean("a", 0.25) == (0.5 * 3.0 + 1.0 + 4.0 * 0.25) / (1.5 + 4.0)
    assert means.mean("b", 0.25) == 0.25


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=50), st.floats(-10, 10))
def test_the_mean_is_between_the_groups_own_and_that_of_all(
    values: list[float], overall: float
) -> None:
    means = GroupMeans(shrink=5.0, half_life=1e12)
    for value in values:
        means.learn("a", value)
    n, own = len(values), sum(values) / len(values)
    assert means.mean("a", overall) == pytest.approx(
        (n * own + 5.0 * overall) / (n + 5.0), abs=1e-6
    )


def test_a_group_that_has_many_closes_is_believed_and_one_that_has_few_is_not() -> None:
    means = GroupMeans()
    for _ in range(5000):
        means.learn("many", 1.0)
    means.learn("few", 1.0)
    assert means.mean("many", 0.0) > 0.95
    assert means.mean("few", 0.0) < 0.05


def test_it_follows_the_market() -> None:
    means = GroupMeans(shrink=1.0, half_life=10.0)
    for value in [0.0] * 1000 + [1.0] * 50:
        means.learn("a", value)
    assert means.mean("a", 0.0) > 0.85


def test_groups_are_bounded_and_the_one_whose_last_close_is_the_oldest_goes_first() -> None:
    means = GroupMeans(max_groups=3)
    for group in "abcabd":  # c's last close is now the oldest
        means.learn(group, 1.0)
    assert [means.closes(group) for group in "abcd"] == [2, 2, 0, 1]
    for i in range(1000):
        means.learn(f"g{i}", 1.0)
    assert len(means.state()) == 3


@settings(deadline=None)
@given(CLOSES, CLOSES)
def test_restored_means_go_on_to_the_bit(
    before: list[tuple[str, bool]], after: list[tuple[str, bool]]
) -> None:
    straight, restored = GroupMeans(max_groups=3), GroupMeans(max_groups=3)
    for group, value in before:
        straight.learn(group, value)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    for group, value in after:
        straight.learn(group, value)
        restored.learn(group, value)
    assert repr(restored.state()) == repr(straight.state())


# The expert


def test_it_says_the_groups_win_rate_shrunk_towards_that_of_all() -> None:
    rate = GroupRate("symbol", shrink=4.0, half_life=1e12)
    for name, won in [("a", True), ("a", True), ("b", False)]:
        rate.learn_one(signal(name), won)
    overall = (2 + 1) / (3 + 2)
    expected = (2 + 4 * overall) / (2 + 4)
    assert rate.predict_proba_one(signal("a"))[True] == pytest.approx(expected)
    assert rate.predict_proba_one(signal("a"))[False] == pytest.approx(1 - expected)
    assert rate.predict_proba_one(signal("c"))[True] == overall


def test_it_abstains_until_its_group_has_enough_closes() -> None:
    rate = GroupRate("symbol", min_closes=3)
    for _ in range(2):
        rate.learn_one(signal("a"), True)
        rate.learn_one(signal("b"), True)
    assert rate.predict_proba_one(signal("a")) == {}
    rate.learn_one(signal("a"), False)
    assert True in rate.predict_proba_one(signal("a"))
    assert rate.predict_proba_one(signal("b")) == {}
    assert rate.predict_proba_one(signal("never heard of")) == {}


@pytest.mark.parametrize("level", LEVELS)
def test_signals_that_differ_in_another_level_are_alike(level: str) -> None:
    rate = GroupRate(level, min_closes=1)
    rate.learn_one(signal("a"), True)
    for other in LEVELS:
        changed = signal("a") | {other: "other"}
        assert (rate.predict_proba_one(changed) == {}) == (other == level)


def test_levels_are_joined() -> None:
    rate = GroupRate("strategy+side", min_closes=1)
    rate.learn_one(signal("a"), True)
    assert rate.predict_proba_one(signal("b")) != {}
    assert rate.predict_proba_one(signal("a") | {"side": "short"}) == {}
    assert rate.predict_proba_one(signal("a") | {"strategy": "trend"}) == {}


@pytest.mark.parametrize("by", ["colour", "symbol+colour", "", "symbol+"])
def test_a_level_that_does_not_exist_is_refused_with_those_that_do(by: str) -> None:
    with pytest.raises(ValueError, match="is no level; use symbol, strategy, side, regime"):
        GroupRate(by)


@settings(deadline=None)
@given(CLOSES, CLOSES)
def test_a_restored_rate_goes_on_to_the_bit(
    before: list[tuple[str, bool]], after: list[tuple[str, bool]]
) -> None:
    straight = GroupRate("symbol", min_closes=1, max_groups=3)
    restored = straight.clone()
    for name, won in before:
        straight.learn_one(signal(name), won)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    for name, won in after:
        assert restored.predict_proba_one(signal(name)) == straight.predict_proba_one(signal(name))
        straight.learn_one(signal(name), won)
        restored.learn_one(signal(name), won)
    assert repr(restored.state()) == repr(straight.state())


@settings(deadline=None)
@given(CLOSES)
def test_what_it_says_is_a_probability(closes: list[tuple[str, bool]]) -> None:
    rate = GroupRate("symbol")
    for name, won in closes:
        assert 0.0 < rate.predict_proba_one(signal(name))[True] < 1.0
        rate.learn_one(signal(name), won)
