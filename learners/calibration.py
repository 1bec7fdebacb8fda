"""Calibration: what the mixture says, corrected by what came of it, where that has helped.

Averages of probabilities are timid, and all experts may err the same way. Three corrections are
learned online: a logistic stack of the experts' log odds (Wolpert 1992, Stacked generalization),
and a curve over log odds, piecewise linear between fixed knots, one for the stack and one for the
mixture itself. None of them can hurt: a second `Mixture` of the three and of what they correct,
which has half the prior, says how far to go with them. So whatever bound the first mixture has,
the published probability has, plus that of the second: ln(R / 0.5) nats, times one plus the delay.

Each close teaches every correction by the forecasts frozen at the signal.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift.native import ready
from learners.belief_kernels import calibrate, learn_calibration
from learners.kalman import KalmanLogistic
from learners.mixture import Mixture

NAMES = ("mixture", "stack", "stack_curve", "mixture_curve")
"""What is mixed in the end: the mixture as it is, and the three corrections."""

KNOTS = np.array([-5.0, -3.5, -2.5, -1.75, -1.0, -0.5, 0.0, 0.5, 1.0, 1.75, 2.5, 3.5, 5.0])
"""Log odds between which the curves are straight."""

_STACK_VARIANCE, _STACK_DRIFT = 0.1, 1e-6
_CURVE_VARIANCE, _CURVE_DRIFT = 0.2, 1e-6


class Calibration:
    """The corrections side by side, and how far to go with each.

    Parameters
    ----------
    experts
        How many experts the stack stands on.
    base
        Which of them is the base rate, that never abstains.
    """

    def __init__(self, experts: int, base: int) -> None:
        self._base = base
        inputs = experts + 2
        # At first the stack says what the mixture says.
        start = [1.0] + [0.0] * (inputs - 1)
        self.stack = KalmanLogistic(start, [_STACK_VARIANCE] * inputs, [_STACK_DRIFT] * inputs)
        self._curves = [
            KalmanLogistic(
                KNOTS.tolist(), [_CURVE_VARIANCE] * len(KNOTS), [_CURVE_DRIFT] * len(KNOTS)
            )
            for _ in range(2)
        ]
        self.mixture = Mixture(NAMES, [3.0, 1.0, 1.0, 1.0])
        self._room = np.zeros(inputs + len(KNOTS))
        ready(calibrate, learn_calibration)

    def predict(
        self, experts: NDArray[np.float64], mixed: float
    ) -> tuple[float, NDArray[np.float64]]:
        """The calibrated probability of a win, and what to hand back at the close.

        `experts` are the experts' probabilities, of shape (experts,), NaN: abstains; `mixed` is
        the mixture of them.
        """
        forecasts = np.empty(len(NAMES))
        p = calibrate(
            experts,
            self._base,
            mixed,
            self.stack.flat,
            self._curves[0].flat,
            self._curves[1].flat,
            self.mixture.flat,
            KNOTS,
            self._room,
            forecasts,
        )
        return p, forecasts

    def learn(
        self,
        experts: NDArray[np.float64],
        forecasts: NDArray[np.float64],
        won: bool,
        age: int,
        said: float = math.nan,
    ) -> None:
        """Take in one close: what was frozen at the signal, and the label."""
        if said != said:
            said = self.mixture.predict(forecasts)
        learn_calibration(
            experts,
            self._base,
            forecasts,
            won,
            age,
            said,
            self.stack.flat,
            self._curves[0].flat,
            self._curves[1].flat,
            self.mixture.flat,
            KNOTS,
            self._room,
        )

    def doubt(self) -> None:
        """The world has changed: learn the corrections as fast as at the beginning."""
        self.stack.doubt()
        for curve in self._curves:
            curve.doubt()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "stack": self.stack.state(),
            "curves": [curve.state() for curve in self._curves],
            "mixture": self.mixture.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the calibration whose `state` this is."""
        self.stack.restore(state["stack"])
        for curve, saved in zip(self._curves, state["curves"], strict=True):
            curve.restore(saved)
        self.mixture.restore(state["mixture"])
