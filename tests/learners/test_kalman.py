"""Kalman filters on coefficients: what a textbook computes, and what follows from it."""

import math
import pickle
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.belief_kernels import HIGHEST, LOWEST
from learners.kalman import KalmanLogistic, KalmanRegression

Filter = TypeVar("Filter", KalmanLogistic, KalmanRegression)
KINDS = (KalmanLogistic, KalmanRegression)
MEAN, VARIANCE, DRIFT = [0.0, 1.0, -0.5], [1.0, 0.1, 0.5], [1e-3, 1e-6, 0.01]


class Textbook:
    """The filter in matrices: Bayesian regression with unit noise, linearised for win or loss."""

    def __init__(self, mean: list[float], variance: list[float], drift: list[float]) -> None:
        self.mean = np.array(mean)
        self.prior = np.diag(variance)
        self.covariance = np.diag(variance)
        self.drift = np.diag(drift)

    def correct(self, x: NDArray[np.float64], error: float, curvature: float) -> None:
        gain = self.covariance @ x / (1.0 + curvature * x @ self.covariance @ x)
        self.mean = self.mean + gain * error
        kept = np.eye(len(x)) - curvature * np.outer(gain, x)
        drifted = kept @ self.covariance
        np.fill_diagonal(drifted, np.minimum(np.diag(drifted + self.drift), np.diag(self.prior)))
        self.covariance = drifted

    def learn_win(self, x: NDArray[np.float64], won: bool) -> None:
        p = 1.0 / (1.0 + math.exp(-float(self.mean @ x)))
        self.correct(x, won - p, p * (1.0 - p))

    def learn_number(self, x: NDArray[np.float64], seen: float) -> None:
        self.correct(x, seen - float(self.mean @ x), 1.0)


def covariance(filtered: KalmanLogistic | KalmanRegression) -> NDArray[np.float64]:
    flat = filtered.state()["covariance"]
    assert isinstance(flat, np.ndarray)
    n = len(filtered.coefficients)
    return flat.reshape(n, n)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_of_wins_it_learns_what_the_textbooks_extended_filter_does(seed: int, closes: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = KalmanLogistic(MEAN, VARIANCE, DRIFT), Textbook(MEAN, VARIANCE, DRIFT)
    for x, won in zip(rng.normal(size=(closes, 3)), rng.random(closes) < 0.6, strict=True):
        p = 1.0 / (1.0 + math.exp(-float(theirs.mean @ x)))
        assert ours.predict(x) == pytest.approx(min(max(p, LOWEST), HIGHEST), abs=1e-9)
        ours.learn(x, bool(won))
        theirs.learn_win(x, bool(won))
    assert ours.coefficients == pytest.approx(theirs.mean, abs=1e-9)
    assert covariance(ours) == pytest.approx(theirs.covariance, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_of_numbers_it_learns_what_the_textbooks_filter_does(seed: int, closes: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = KalmanRegression(MEAN, VARIANCE, DRIFT), Textbook(MEAN, VARIANCE, DRIFT)
    for x, seen in zip(rng.normal(size=(closes, 3)), rng.normal(size=closes), strict=True):
        assert ours.predict(x) == pytest.approx(float(theirs.mean @ x), abs=1e-9)
        spread = math.sqrt(float(x @ theirs.covariance @ x))
        assert ours.deviation(x) == pytest.approx(spread, abs=1e-9)
        ours.learn(x, float(seen))
        theirs.learn_number(x, float(seen))
    assert ours.coefficients == pytest.approx(theirs.mean, abs=1e-9)
    assert covariance(ours) == pytest.approx(theirs.covariance, abs=1e-9)


def test_without_drift_it_is_ridge_regression_over_all_closes() -> None:
    rng = np.random.default_rng(1)
    x, seen = rng.normal(size=(200, 3)), rng.normal(size=200)
    filtered = KalmanRegression([0.0] * 3, [2.0] * 3, [0.0] * 3)
    for row, value in zip(x, seen, strict=True):
        filtered.learn(row, float(value))
    ridge = np.linalg.solve(x.T @ x + np.eye(3) / 2.0, x.T @ seen)
    assert filtered.coefficients == pytest.approx(ridge, abs=1e-9)


def test_known_coefficients_are_found_again() -> None:
    rng = np.random.default_rng(2)
    truth = np.array([0.3, -1.2, 0.8])
    wins = KalmanLogistic([0.0] * 3, [1.0] * 3, [0.0] * 3)
    numbers = KalmanRegression([0.0] * 3, [1.0] * 3, [0.0] * 3)
    for x in rng.normal(size=(4000, 3)):
        wins.learn(x, bool(rng.random() < 1.0 / (1.0 + math.exp(-float(truth @ x)))))
        numbers.learn(x, float(truth @ x + rng.normal()))
    assert wins.coefficients == pytest.approx(truth, abs=0.2)
    assert numbers.coefficients == pytest.approx(truth, abs=0.08)
    # As sure of itself as it should be: four standard deviations hold all three.
    for filtered in (wins, numbers):
        errors = np.abs(filtered.coefficients - truth)
        assert (errors < 4.0 * np.sqrt(np.diag(covariance(filtered)))).all()


@pytest.mark.parametrize("drift", [0.0, 1e-3])
def test_what_it_forgets_it_forgets_by_drift(drift: float) -> None:
    filtered = KalmanRegression([0.0], [1.0], [drift])
    one = np.ones(1)
    for _ in range(2000):
        filtered.learn(one, 1.0)
    for _ in range(300):
        filtered.learn(one, -1.0)
    # Without drift the mean of all closes; with it, what came last.
    assert filtered.predict(one) == pytest.approx(-1.0 if drift else 1700 / 2301, abs=0.05)


def test_doubt_never_grows_past_the_priors() -> None:
    filtered = KalmanRegression([0.0, 0.0], [0.5, 2.0], [0.3, 0.3])
    asleep = np.array([1.0, 0.0])
    for _ in range(100):
        filtered.learn(asleep, 0.0)
        assert (np.diag(covariance(filtered)) <= [0.5, 2.0]).all()
    assert np.diag(covariance(filtered)).tolist() == [0.5, 2.0]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.tuples(
            st.lists(
                st.sampled_from([0.0, 1.0, -1.0, 8.0, -14.0, 1e6, -1e6, 1e-300]),
                min_size=3, max_size=3,
            ),
            st.booleans(),
        ),
        min_size=1, max_size=80,
    ),
)  # fmt: skip
def test_extreme_inputs_leave_it_finite(
    kind: type[KalmanLogistic] | type[KalmanRegression],
    closes: list[tuple[list[float], bool]],
) -> None:
    filtered = kind(MEAN, VARIANCE, DRIFT)
    for values, won in closes:
        x = np.array(values)
        assert math.isfinite(filtered.predict(x))
        if isinstance(filtered, KalmanLogistic):
            assert LOWEST <= filtered.predict(x) <= HIGHEST
        else:
            assert math.isfinite(filtered.deviation(x))
        filtered.learn(x, won)
    assert np.isfinite(filtered.coefficients).all()
    assert np.isfinite(covariance(filtered)).all()


def test_after_very_many_closes_its_doubt_is_still_a_covariance() -> None:
    rng = np.random.default_rng(4)
    filtered = KalmanLogistic([1.0] + [0.0] * 8, [0.1] * 9, [1e-6] * 9)
    # Inputs that nearly are one and the same, as experts' are, and large.
    for common in rng.normal(0, 3, 30_000):
        x = np.append(common + rng.normal(0, 1e-3, 8), 1.0)
        filtered.learn(x, bool(rng.random() < 0.5))
    found = covariance(filtered)
    assert found == pytest.approx(found.T, abs=1e-9)
    assert np.linalg.eigvalsh((found + found.T) / 2).min() > -1e-9
    assert np.isfinite(filtered.coefficients).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 1, 150])
def test_a_restored_filter_goes_on_to_the_bit(kind: type[Filter], at: int) -> None:
    rng = np.random.default_rng(5)
    x, won = rng.normal(size=(200, 3)), rng.random(200) < 0.5
    straight, restored = kind(MEAN, VARIANCE, DRIFT), kind(MEAN, VARIANCE, DRIFT)
    for row, label in zip(x[:at], won[:at], strict=True):
        straight.learn(row, bool(label))
    state = straight.state()
    restored.restore(pickle.loads(pickle.dumps(state)))
    taken = pickle.dumps(state)
    for row, label in zip(x[at:], won[at:], strict=True):
        assert restored.predict(row) == straight.predict(row)
        straight.learn(row, bool(label))
        restored.learn(row, bool(label))
    assert pickle.dumps(restored.state()) == pickle.dumps(straight.state())
    assert pickle.dumps(state) == taken  # a copy, that later learning leaves alone
