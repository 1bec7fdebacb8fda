"""Calibration: it mends forecasts that err alike, and hurts none."""

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.belief_kernels import HIGHEST, LOWEST
from learners.calibration import KNOTS, NAMES, Calibration
from learners.mixture import SHARE_RATES

Sure = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def log_loss(p: float, won: bool) -> float:
    return -math.log(p if won else 1.0 - p)


def logistic(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(1.0 / (1.0 + np.exp(-z)), LOWEST, HIGHEST)


def run(
    calibration: Calibration,
    experts: NDArray[np.float64],
    mixed: NDArray[np.float64],
    won: NDArray[np.bool_],
    delay: int = 0,
) -> NDArray[np.float64]:
    """What was said of each signal, whose closes come that many signals late."""
    said, waiting = [], []
    for row, mean, label in zip(experts, mixed.tolist(), won.tolist(), strict=True):
        p, forecasts = calibration.predict(row, mean)
        said.append(p)
        waiting.append((row, forecasts, label, p))
        if len(waiting) > delay:
            before, frozen, ended, spoken = waiting.pop(0)
            calibration.learn(before, frozen, ended, delay, spoken)
    return np.array(said)


def mean_loss(p: NDArray[np.float64], won: NDArray[np.bool_]) -> float:
    return float(np.mean(-np.log(np.where(won, p, 1.0 - p))))


ERRORS: dict[str, Sure] = {
    "timid": lambda z: 0.5 * z,
    "bold": lambda z: 2.5 * z,
    "too low": lambda z: z - 0.6,
    "too high": lambda z: z + 0.6,
    "bold above and timid below": lambda z: np.where(z > 0, 2.5 * z, 0.4 * z),
}


@pytest.mark.parametrize("error", ERRORS)
def test_forecasts_that_err_alike_are_calibrated_within_1500_closes(error: str) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 1, 5000)
    won = rng.random(5000) < logistic(z)
    mixed = logistic(ERRORS[error](z))
    experts = np.column_stack([np.full(5000, 0.5), mixed])
    said = run(Calibration(2, 0), experts, mixed, won, delay=10)
    late = slice(1500, None)
    right = mean_loss(logistic(z)[late], won[late])
    before = mean_loss(mixed[late], won[late]) - right
    after = mean_loss(said[late], won[late]) - right
    assert before > 0.015
    assert after < min(0.2 * before, 0.006)
    # By tenths of what is said, as many win as was said.
    for tenth in np.array_split(np.argsort(said[late]), 10):
        share = won[late][tenth].mean()
        assert said[late][tenth].mean() == pytest.approx(share, abs=0.09)


@pytest.mark.parametrize("correction", NAMES[1:])
def test_each_correction_mends_it_by_itself(correction: str) -> None:
    rng = np.random.default_rng(10)
    z = rng.normal(0, 1, 3000)
    won = rng.random(3000) < logistic(z)
    calibration = Calibration(2, 0)
    said, mixed = [], logistic(2.5 * z)
    for mean, label in zip(mixed.tolist(), won.tolist(), strict=True):
        row = np.array([0.5, mean])
        p, forecasts = calibration.predict(row, mean)
        said.append(forecasts[NAMES.index(correction)])
        calibration.learn(row, forecasts, label, 0, p)
    right = mean_loss(logistic(z)[1500:], won[1500:])
    bold = mean_loss(mixed[1500:], won[1500:]) - right
    assert mean_loss(np.array(said[1500:]), won[1500:]) - right < 0.35 * bold


def test_where_nothing_is_to_mend_it_costs_next_to_nothing() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(-0.2, 0.5, 8000)
    won = rng.random(8000) < logistic(z)
    experts = logistic(np.column_stack([np.full(8000, -0.2), z, rng.normal(-0.2, 0.5, 8000)]))
    said = run(Calibration(3, 0), experts, logistic(z), won)
    assert mean_loss(said, won) - mean_loss(logistic(z), won) < 0.0004


def test_what_each_of_the_experts_knows_adds_up_where_their_mean_is_timid() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(0, 1, (4000, 2))
    won = rng.random(4000) < logistic(z.sum(axis=1))
    experts = np.column_stack([np.full(4000, 0.5), logistic(z)])
    mixed = experts[:, 1:].mean(axis=1)
    said = run(Calibration(3, 0), experts, mixed, won)
    right = mean_loss(logistic(z.sum(axis=1))[1000:], won[1000:])
    timid = mean_loss(mixed[1000:], won[1000:]) - right
    assert timid > 0.03
    assert mean_loss(said[1000:], won[1000:]) - right < 0.15 * timid


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 150),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from(["chance", "against", "by turns"]),
)
def test_it_is_never_worse_than_the_mixture_by_more_than_its_bound(
    seed: int, closes: int, absent: float, how: str
) -> None:
    rng = np.random.default_rng(seed)
    calibration = Calibration(3, 0)
    regret = 0.0
    for turn in range(closes):
        row = rng.uniform(LOWEST, HIGHEST, 3)
        row[1:][rng.random(2) < absent] = math.nan
        mixed = float(np.nanmean(row))
        p, forecasts = calibration.predict(row, mixed)
        assert LOWEST <= p <= HIGHEST
        assert forecasts[0] == mixed
        chance = {"chance": rng.random() < 0.5, "against": p < 0.5, "by turns": turn // 7 % 2 == 0}
        won = bool(chance[how])
        regret += log_loss(p, won) - log_loss(mixed, won)
        calibration.learn(row, forecasts, won, 0, p)
        assert regret <= math.log(len(SHARE_RATES) / 0.5) + (turn + 1) * 2e-5


def test_half_of_the_first_belief_is_in_what_it_corrects() -> None:
    prior = dict(zip(NAMES, Calibration(2, 0).mixture.prior, strict=True))
    assert prior["mixture"] == 0.5


def test_before_any_close_it_says_what_the_mixture_says() -> None:
    for mixed in (0.01, 0.3, 0.5, 0.77, 0.98):
        p, forecasts = Calibration(2, 0).predict(np.array([0.4, 0.9]), mixed)
        assert p == pytest.approx(mixed, abs=1e-9)
        assert forecasts == pytest.approx(np.full(4, mixed), abs=1e-9)


def test_beyond_the_last_knot_a_curve_is_flat() -> None:
    last = float(logistic(KNOTS[-1:])[0])
    _, forecasts = Calibration(2, 0).predict(np.array([0.4, math.nan]), HIGHEST)
    assert forecasts == pytest.approx([HIGHEST, HIGHEST, last, last], abs=1e-9)


def test_an_expert_that_abstains_counts_as_one_that_says_the_base_rate() -> None:
    rng = np.random.default_rng(4)
    absent, same = Calibration(3, 1), Calibration(3, 1)
    for _ in range(200):
        row = rng.uniform(0.05, 0.95, 3)
        mixed, won = float(row.mean()), bool(rng.random() < 0.5)
        if rng.random() < 0.5:
            row[2] = math.nan
        filled = np.where(np.isnan(row), row[1], row)
        p, forecasts = absent.predict(row, mixed)
        twin = same.predict(filled, mixed)
        assert (p, forecasts.tolist()) == (twin[0], twin[1].tolist())
        assert math.isfinite(p)
        absent.learn(row, forecasts, won, 0, p)
        same.learn(filled, twin[1], won, 0, p)


def learned(calibration: Calibration, seed: int, closes: int) -> list[float]:
    rng = np.random.default_rng(seed)
    experts = rng.uniform(0.05, 0.95, (closes, 3))
    experts[:, 1:][rng.random((closes, 2)) < 0.3] = math.nan
    mixed = np.nanmean(experts, axis=1)
    return run(calibration, experts, mixed, rng.random(closes) < mixed, delay=3).tolist()


def test_asking_changes_nothing_and_what_was_frozen_stays_as_it_was() -> None:
    calibration, quiet = Calibration(3, 0), Calibration(3, 0)
    for one in (calibration, quiet):
        learned(one, 5, 50)
    rng = np.random.default_rng(6)
    row = rng.uniform(0.1, 0.9, 3)
    p, frozen = calibration.predict(row, 0.6)
    kept = frozen.tobytes()
    for other in rng.uniform(0.1, 0.9, (20, 3)):
        calibration.predict(other, 0.3)
    assert frozen.tobytes() == kept
    calibration.learn(row, frozen, True, 0, p)
    quiet.learn(row, quiet.predict(row, 0.6)[1], True, 0, p)
    assert pickle.dumps(calibration.state()) == pickle.dumps(quiet.state())


@pytest.mark.parametrize("at", [0, 1, 200])
def test_a_restored_calibration_goes_on_to_the_bit(at: int) -> None:
    straight, restored = Calibration(3, 0), Calibration(3, 0)
    learned(straight, 7, at)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    assert learned(restored, 8, 200) == learned(straight, 8, 200)
    assert pickle.dumps(restored.state()) == pickle.dumps(straight.state())
