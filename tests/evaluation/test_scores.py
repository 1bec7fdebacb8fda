"""Scores: the field's own definitions, and None where the data define nothing."""

import numpy as np
import pytest
from sklearn import metrics

from engine.evaluation import scores

RNG = np.random.default_rng(7)
P = RNG.uniform(0.05, 0.95, 600)
WON = RNG.random(600) < P
RETURNS = np.where(WON, 1.0, -1.0) * RNG.uniform(0.2, 2.0, 600)
NONE = np.zeros(0)
NOBODY = np.zeros(0, np.bool_)


def test_calls_are_scored_as_scikit_learn_does():
    called = P > 0.6
    for ours, theirs in (
        (scores.accuracy, metrics.accuracy_score),
        (scores.precision, metrics.precision_score),
        (scores.recall, metrics.recall_score),
        (scores.f1, metrics.f1_score),
    ):
        assert ours(called, WON) == pytest.approx(theirs(WON, called))


def test_probabilities_are_scored_as_scikit_learn_does():
    found = scores.probability_scores(P, WON)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(WON, P))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(WON, P))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(WON, P))
    assert scores.losses(P, WON).mean() == pytest.approx(metrics.log_loss(WON, P))


def test_trades_are_scored_by_their_definitions():
    returns = np.array([2.0, -1.0, 3.0, -2.0])
    found = scores.trade_scores(returns)
    assert found["mean_return_pct"] == 0.5
    assert found["win_rate"] == 0.5
    assert found["profit_factor"] == pytest.approx(5 / 3)
    assert found["sharpe"] == pytest.approx(0.5 / np.std(returns, ddof=1))
    assert found["sortino"] == pytest.approx(0.5 / np.sqrt((1 + 4) / 4))
    assert found["max_drawdown_pct"] == 2.0


@pytest.mark.parametrize(
    ("returns", "deepest"),
    [([1, -3, 1, -1], 3), ([-2, -1], 3), ([1, 2], 0), ([5, -4, 5, -5], 5), ([-1], 1)],
)
def test_a_drawdown_is_measured_from_the_highest_sum_so_far_and_from_zero(returns, deepest):
    assert scores.max_drawdown(np.array(returns, float)) == deepest


def test_what_no_data_define_is_none_and_never_a_nan():
    both = {**scores.trade_scores(NONE), **scores.call_scores(NOBODY, NOBODY)}
    every = {**both, **scores.probability_scores(NONE, NOBODY)}
    assert set(every.values()) == {None}
    assert scores.calibrated_ece(NONE) is None
    winners = np.array([True, True])
    assert scores.auc(np.array([0.3, 0.6]), winners) is None
    assert scores.recall(winners, ~winners) is None
    assert scores.precision(~winners, winners) is None
    assert scores.f1(~winners, ~winners) is None


@pytest.mark.parametrize("returns", [[0.1], [0.1, 0.1, 0.1], [0.0, 0.0]])
def test_returns_that_never_vary_or_never_lose_have_no_ratio(returns):
    found = scores.trade_scores(np.array(returns))
    assert found["sharpe"] is None and found["sortino"] is None
    assert found["profit_factor"] is None


def test_reliability_has_bins_of_equal_mass_that_make_up_the_ece():
    said, came, sizes = scores.reliability(P, WON)
    assert sizes.tolist() == [40] * scores.BINS
    assert (np.diff(said) > 0).all()
    assert (np.abs(said - came) * sizes).sum() / 600 == pytest.approx(scores.ece(P, WON))
    of, _, _ = scores.reliability(P, WON, P + 1.0)
    assert of == pytest.approx(said + 1.0)


def test_calibrated_forecasts_exceed_their_bound_one_time_in_twenty():
    rng = np.random.default_rng(3)
    bound = scores.calibrated_ece(P)
    assert bound is not None
    drawn = [scores.ece(P, rng.random(600) < P) for _ in range(400)]
    assert 0.02 <= np.mean([ece > bound for ece in drawn if ece is not None]) <= 0.09


def test_coverage_asks_only_published_intervals_and_counts_their_ends():
    low = np.array([0.0, 0.0, np.nan, 0.0])
    value = np.array([0.0, 1.0, 5.0, 2.0])
    assert scores.coverage(low, low + 1.0, value) == pytest.approx(2 / 3)
    assert scores.coverage(low[2:3], low[2:3], value[2:3]) is None
