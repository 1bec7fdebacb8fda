"""Intervals: they hold the truth as often as they say, also for series with a memory."""

import math

import numpy as np
import pytest

from engine.evaluation import bootstrap
from engine.evaluation.bootstrap import Estimate

COUNT = 200


def with_memory(closes: int, seed: int, phi: float = 0.7) -> np.ndarray:
    """A first-order autoregression around 0."""
    noise = np.random.default_rng(seed).normal(size=closes)
    series = np.zeros(closes)
    for i in range(1, closes):
        series[i] = phi * series[i - 1] + noise[i]
    return series


def held(found: Estimate, truth: float) -> bool:
    assert found.interval is not None
    low, high = found.interval
    return low <= truth <= high


def test_intervals_hold_the_truth_of_a_series_with_a_memory():
    runs = [with_memory(600, seed) for seed in range(120)]
    blocks = sum(held(bootstrap.mean(series, COUNT), 0.0) for series in runs)
    assert blocks / 120 > 0.85
    # Closes drawn one by one forget that they are alike, and claim too much.
    alone = 0
    for series in runs:
        found = bootstrap.estimates(
            lambda rows, series=series: {"mean": float(series[rows].mean())}, 600, 1.0, COUNT
        )
        alone += held(found["mean"], 0.0)
    assert alone / 120 < 0.75


def test_a_series_with_a_memory_is_drawn_in_long_blocks():
    noise = np.random.default_rng(1).normal(size=2_000)
    assert bootstrap.block_length(with_memory(2_000, 1)) > 3 * bootstrap.block_length(noise)
    assert bootstrap.block_length(noise, with_memory(2_000, 1)) > 10


def test_taking_at_random_claims_nothing_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    found = [
        bootstrap.mean_difference(rng.random(400) < 0.3, rng.normal(size=400), COUNT)
        for _ in range(150)
    ]
    assert 0.88 < np.mean([held(each, 0.0) for each in found]) < 0.99
    assert np.mean([(each.p or 0.0) < 0.05 for each in found]) < 0.12


def test_taking_what_is_better_is_told():
    rng = np.random.default_rng(6)
    taken = rng.random(2_000) < 0.3
    returns = rng.normal(size=2_000) + 0.5 * taken
    found = bootstrap.mean_difference(taken, returns, COUNT)
    assert found.value == pytest.approx(returns[taken].mean() - returns.mean())
    assert found.interval is not None and found.interval[0] > 0.0
    assert held(found, 0.5 * 0.7)
    assert found.p is not None and found.p < 1e-4


def test_the_standard_error_is_that_of_the_difference():
    rng = np.random.default_rng(8)
    taken, returns = rng.random(4_000) < 0.25, rng.normal(size=4_000)
    found = bootstrap.mean_difference(taken, returns, 500)
    # mean(taken) - mean(all) = (1 - share) (mean(taken) - mean(skipped)), of independent closes.
    expected = 0.75 * math.sqrt(1 / 1_000 + 1 / 3_000)
    assert found.error == pytest.approx(expected, rel=0.15)
    influence = bootstrap.influence(taken, returns)
    assert influence.std() / math.sqrt(4_000) == pytest.approx(expected, rel=0.1)


def test_the_same_seed_gives_the_same_interval_and_another_another():
    series = with_memory(300, 2)
    assert bootstrap.mean(series, COUNT) == bootstrap.mean(series, COUNT)
    assert bootstrap.mean(series, COUNT) != bootstrap.mean(series, COUNT, seed=1)


@pytest.mark.parametrize("closes", [0, 1, bootstrap.FEWEST - 1])
def test_too_few_closes_have_a_figure_and_no_interval(closes: int):
    found = bootstrap.mean(np.arange(closes) + 1.0, COUNT)
    assert found.interval is None and found.p is None
    assert found.value == ((closes + 1) / 2 if closes else None)


def test_none_taken_is_no_difference():
    found = bootstrap.mean_difference(np.zeros(100, np.bool_), np.ones(100), COUNT)
    assert found == Estimate(None)


def test_a_series_that_never_varies_has_an_interval_without_width():
    found = bootstrap.mean(np.full(100, 0.25), COUNT)
    assert found.interval == (0.25, 0.25) and found.p is None


def test_a_figure_that_resamples_often_lack_has_no_interval():
    def statistic(rows: np.ndarray) -> dict[str, float | None]:
        return {
            "rare": 1.0 if 7 in rows else None,
            "common": 1.0 if (rows < 10).any() else None,
        }

    found = bootstrap.estimates(statistic, 50, 1.0, COUNT)
    assert found["rare"] == Estimate(1.0)
    assert found["common"].interval == (1.0, 1.0)


def test_many_looks_are_paid_for_and_missing_ones_are_not():
    assert bootstrap.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert bootstrap.holm([None, None]) == [None, None]
    assert bootstrap.holm([]) == []


def test_p_values_go_far_below_one_in_the_number_of_resamples():
    assert Estimate(1.0, 0.8, 1.2, 0.1).p == pytest.approx(1.5e-23, rel=0.02)
    assert Estimate(0.196, 0.0, 0.4, 0.1).p == pytest.approx(0.05, abs=1e-4)
    assert Estimate(-0.196, -0.4, 0.0, 0.1).p == Estimate(0.196, 0.0, 0.4, 0.1).p
