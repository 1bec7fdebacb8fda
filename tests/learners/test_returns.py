import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.returns import Returns

CLOSES = st.lists(st.tuples(st.floats(-1e9, 1e9), st.sampled_from([True, False, None])))


def test_before_anything_is_known_it_expects_nothing_and_risk_is_even() -> None:
    assert Returns().expected_return_pct(0.7) == 0.0
    assert Returns().risk(0.7) == 0.5


def test_it_learns_what_wins_and_losses_are_worth_and_where_they_end() -> None:
    returns = Returns()
    for _ in range(5000):
        returns.learn(2.0, False)
        returns.learn(-1.0, True)
    assert returns.expected_return_pct(1.0) == pytest.approx(2.0, rel=1e-2)
    assert returns.expected_return_pct(0.5) == pytest.approx(0.5, rel=1e-2)
    assert returns.risk(1.0) == pytest.approx(0.0, abs=1e-2)
    assert returns.risk(0.4) == pytest.approx(0.6, abs=1e-2)


def test_a_close_of_unknown_end_says_nothing_about_the_stop() -> None:
    returns = Returns()
    returns.learn(-1.0, None)
    assert returns.risk(0.3) == 0.5
    assert returns.expected_return_pct(0.3) < 0.0


def test_the_mean_loss_is_what_losses_return_whatever_wins_do() -> None:
    returns = Returns()
    assert returns.mean_loss_pct == 0.0
    returns.learn(9.0, None)
    assert returns.mean_loss_pct == 0.0
    returns.learn(-3.0, None)
    assert returns.mean_loss_pct == -1.5  # shrunk towards 0 by the weight of one close
    for _ in range(5000):
        returns.learn(-3.0, None)
    assert returns.mean_loss_pct == pytest.approx(-3.0, rel=1e-2)


def test_it_follows_the_market() -> None:
    returns = Returns(half_life=10)
    for value in [1.0] * 1000 + [5.0] * 100:
        returns.learn(value, None)
    assert returns.expected_return_pct(1.0) > 4.5


@settings(deadline=None)
@given(CLOSES, st.floats(0, 1))
def test_risk_is_a_probability_whatever_came(
    closes: list[tuple[float, bool | None]], p: float
) -> None:
    returns = Returns()
    for close in closes:
        returns.learn(*close)
    assert 0.0 < returns.risk(p) < 1.0
    assert abs(returns.expected_return_pct(p)) <= 1e6


@settings(deadline=None)
@given(CLOSES, CLOSES)
def test_restored_returns_go_on_as_if_they_had_never_stopped(
    before: list[tuple[float, bool | None]], after: list[tuple[float, bool | None]]
) -> None:
    straight = Returns()
    for close in before:
        straight.learn(*close)
    restored = Returns()
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    for close in after:
        straight.learn(*close)
        restored.learn(*close)
    assert repr(restored.state()) == repr(straight.state())
    assert restored.risk(0.3) == straight.risk(0.3)
