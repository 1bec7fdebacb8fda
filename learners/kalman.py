r"""Regression on a few inputs that never stops learning: Kalman filters on the coefficients.

The coefficients have a normal prior and drift as a random walk, so that old closes are forgotten
at a pace that the drift sets. `KalmanLogistic` is the extended filter for win or loss (Penny and
Roberts 1999, Dynamic logistic regression), `KalmanRegression` the plain one for a number with
unit noise (recursive least squares). What grows by the drift never exceeds the prior's variance.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from drift.native import ready
from learners.belief_kernels import (
    COVARIANCE,
    VARIANCE,
    correct_number,
    correct_win,
    deviation,
    probability,
    value,
)


class _Filter:
    def __init__(
        self, mean: Sequence[float], variance: Sequence[float], drift: Sequence[float]
    ) -> None:
        n = len(mean)
        self._n = n
        self.flat = np.concatenate(
            [mean, variance, drift, np.zeros(n), np.diag(variance).ravel()]
        ).astype(np.float64)
        """The whole state, as the kernels see it."""
        ready(probability, correct_win, value, deviation, correct_number)

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """The coefficients as they are believed to be now, of shape (inputs,)."""
        return self.flat[: self._n].copy()

    def doubt(self) -> None:
        """Believe as little as at the beginning, but go on from the coefficients there are."""
        n = self._n
        variance = self.flat[VARIANCE * n : (VARIANCE + 1) * n]
        self.flat[COVARIANCE * n :] = np.diag(variance).ravel()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "mean": self.flat[: self._n].copy(),
            "covariance": self.flat[COVARIANCE * self._n :].copy(),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the filter whose `state` this is."""
        self.flat[: self._n] = cast(NDArray[np.float64], state["mean"])
        self.flat[COVARIANCE * self._n :] = cast(NDArray[np.float64], state["covariance"])


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
        return probability(self.flat, x)

    def learn(self, x: NDArray[np.float64], won: bool) -> None:
        """Take in one close."""
        correct_win(self.flat, x, won)


class KalmanRegression(_Filter):
    """A number from inputs of shape (inputs,), in units in which its noise has variance 1.

    Parameters are those of `KalmanLogistic`.
    """

    def predict(self, x: NDArray[np.float64]) -> float:
        """The expected number."""
        return value(self.flat, x)

    def deviation(self, x: NDArray[np.float64]) -> float:
        """The standard deviation of what is believed of the expected number."""
        return deviation(self.flat, x)

    def learn(self, x: NDArray[np.float64], seen: float) -> None:
        """Take in one close."""
        correct_number(self.flat, x, seen)
