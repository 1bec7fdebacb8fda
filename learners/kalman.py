r"""Regression on a few inputs that never stops learning: Kalman filters on the coefficients.

The coefficients have a normal prior and drift as a random walk, so that old closes are forgotten
at a pace that the drift sets. `KalmanLogistic` is the extended filter for win or loss (Penny and
Roberts 1999, Dynamic logistic regression), `KalmanRegression` the plain one for a number with
unit noise (recursive least squares). What grows by the drift never exceeds the prior's variance.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from drift.native import (
    BUFFER,
    INTEGER,
    NOTHING,
    NUMBER,
    READ_ONLY,
    Floats,
    compiled,
    entry,
    ready,
)

LOWEST, HIGHEST = 0.001, 0.999
"""Within these a probability stays."""
_FLATTEST = 1e-3  # least curvature of the logistic

# The buffer: coefficients, their prior variances, their drifts, room for gains, covariance.
_MEAN, _VARIANCE, _DRIFT, _GAIN, _COVARIANCE = range(5)


@compiled
def _dot(flat: Floats, x: Floats) -> float:
    total = 0.0
    for a in range(x.size):
        total += flat[a] * x[a]
    return total


@compiled
def _correct(flat: Floats, x: Floats, error: float, curvature: float) -> None:
    """Move the coefficients by an error whose precision is `curvature`, then let them drift."""
    n = x.size
    gain = flat[_GAIN * n : (_GAIN + 1) * n]
    covariance = flat[_COVARIANCE * n :].reshape((n, n))
    spread = 0.0
    for a in range(n):
        gain[a] = 0.0
        for b in range(n):
            gain[a] += covariance[a, b] * x[b]
        spread += gain[a] * x[a]
    scale = 1.0 / (1.0 + curvature * spread)
    for a in range(n):
        flat[a] += scale * gain[a] * error
        for b in range(n):
            covariance[a, b] -= curvature * scale * gain[a] * gain[b]
        drifted = covariance[a, a] + flat[_DRIFT * n + a]
        covariance[a, a] = min(drifted, flat[_VARIANCE * n + a])


@entry(NUMBER, BUFFER, READ_ONLY)
def _probability(flat: Floats, x: Floats) -> float:
    p = 1.0 / (1.0 + math.exp(-min(max(_dot(flat, x), -30.0), 30.0)))
    return min(max(p, LOWEST), HIGHEST)


@entry(NOTHING, BUFFER, READ_ONLY, INTEGER)
def _learn_win(flat: Floats, x: Floats, won: int) -> None:
    p = 1.0 / (1.0 + math.exp(-min(max(_dot(flat, x), -30.0), 30.0)))
    _correct(flat, x, won - p, max(p * (1.0 - p), _FLATTEST))


@entry(NUMBER, BUFFER, READ_ONLY)
def _value(flat: Floats, x: Floats) -> float:
    return _dot(flat, x)


@entry(NUMBER, BUFFER, READ_ONLY)
def _deviation(flat: Floats, x: Floats) -> float:
    n = x.size
    spread = 0.0
    for a in range(n):
        for b in range(n):
            spread += x[a] * flat[_COVARIANCE * n + a * n + b] * x[b]
    return math.sqrt(max(spread, 0.0))


@entry(NOTHING, BUFFER, READ_ONLY, NUMBER)
def _learn_number(flat: Floats, x: Floats, seen: float) -> None:
    _correct(flat, x, seen - _dot(flat, x), 1.0)


class _Filter:
    def __init__(
        self, mean: Sequence[float], variance: Sequence[float], drift: Sequence[float]
    ) -> None:
        n = len(mean)
        self._n = n
        self._flat = np.concatenate(
            [mean, variance, drift, np.zeros(n), np.diag(variance).ravel()]
        ).astype(np.float64)
        ready(_probability, _learn_win, _value, _deviation, _learn_number)

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """The coefficients as they are believed to be now, of shape (inputs,)."""
        return self._flat[: self._n].copy()

    def doubt(self) -> None:
        """Believe as little as at the beginning, but go on from the coefficients there are."""
        n = self._n
        variance = self._flat[_VARIANCE * n : (_VARIANCE + 1) * n]
        self._flat[_COVARIANCE * n :] = np.diag(variance).ravel()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "mean": self._flat[: self._n].copy(),
            "covariance": self._flat[_COVARIANCE * self._n :].copy(),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the filter whose `state` this is."""
        self._flat[: self._n] = cast(NDArray[np.float64], state["mean"])
        self._flat[_COVARIANCE * self._n :] = cast(NDArray[np.float64], state["covariance"])


class KalmanLogistic(_Filter):
    """Win probability from inputs of shape (inputs,).

    Parameters
    ----------
    mean, variance
        Of the normal prior of each coefficient.
    drift
        The variance that each gains with every close.
    """

    def predict(self, x: NDArray[np.float64]) -> float:
        """The win probability, within [0.001, 0.999]."""
        return _probability(self._flat, x)

    def learn(self, x: NDArray[np.float64], won: bool) -> None:
        """Take in one close."""
        _learn_win(self._flat, x, won)


class KalmanRegression(_Filter):
    """A number from inputs of shape (inputs,), in units in which its noise has variance 1.

    Parameters are those of `KalmanLogistic`.
    """

    def predict(self, x: NDArray[np.float64]) -> float:
        """The expected number."""
        return _value(self._flat, x)

    def deviation(self, x: NDArray[np.float64]) -> float:
        """The standard deviation of what is believed of the expected number."""
        return _deviation(self._flat, x)

    def learn(self, x: NDArray[np.float64], seen: float) -> None:
        """Take in one close."""
        _learn_number(self._flat, x, seen)
