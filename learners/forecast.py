"""From the experts' forecasts to what is believed of a signal, and from closes to better beliefs.

The win probability is the mixture of the experts, calibrated; from it and from what the experts say
themselves come the expected return and the risk of the stop; conformal intervals say how sure all
of it is. Everything that a close is learned by is frozen at the signal, in `Frozen`.
"""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.calibration import Calibration
from learners.conformal import ProbabilityInterval, ReturnInterval
from learners.expectation import ExpectedReturn, StopRisk, UsualSize
from learners.history import MAX_RETURN_PCT
from learners.mixture import Mixture
from learners.panel import Forecast
from learners.returns import Returns


class Frozen(NamedTuple):
    """What a signal's close is learned by.

    Parameters
    ----------
    experts
        The experts' win probabilities, of shape (experts,), NaN: abstained.
    calibration, risks
        The forecasts that were mixed: win probability, probability of the stop.
    returns
        The two returns that were mixed, percent, and what the second was made of.
    scale
        The symbol's usual size of a return, percent.
    """

    experts: NDArray[np.float64]
    calibration: NDArray[np.float64]
    returns: NDArray[np.float64]
    risks: NDArray[np.float64]
    scale: float


class Outlook(NamedTuple):
    """What is believed of a signal.

    Parameters
    ----------
    probability
        Of a win.
    probability_interval
        Where the share of wins among trades like this lies, nine times in ten.
    expected_return_pct
        Net of costs.
    deviation_pct
        The standard deviation of what is believed of the expected return.
    return_interval_pct
        Where the return lies, nine times in ten; None while too little is known.
    risk
        The probability that the trade ends at its stop.
    """

    probability: float
    probability_interval: tuple[float, float]
    expected_return_pct: float
    deviation_pct: float
    return_interval_pct: tuple[float, float] | None
    risk: float


class Forecaster:
    """The mixture and all that follows from it.

    Parameters
    ----------
    names
        The experts.
    base
        Which of them is the base rate.
    voters
        How many of them forecast returns and stops, too.
    """

    def __init__(self, names: Sequence[str], base: int, voters: int) -> None:
        # Half of the prior belief is in what does no harm (G7); the others share the other half.
        prior = [1.0] * len(names)
        prior[base] = float(max(len(names) - 1, 1))
        self.mixture = Mixture(names, prior)
        self.calibration = Calibration(len(names), base)
        self.payoff = Returns()
        self.expected_return = ExpectedReturn(self.payoff, voters + 1, len(names), base)
        self.stop_risk = StopRisk(self.payoff, voters)
        self.probability_interval = ProbabilityInterval()
        self.return_interval = ReturnInterval()
        self.usual_size = UsualSize()

    def predict(
        self, forecast: Forecast, sized: float, symbol: str, alike: str
    ) -> tuple[Outlook, Frozen]:
        """What is believed of a signal of that symbol, and of that strategy and side.

        `sized` is the refit's forecast of its return, in usual sizes; NaN when there is none.
        """
        mixed = self.mixture.predict(forecast.p)
        p, calibration = self.calibration.predict(forecast.p, mixed)
        scale = self.usual_size.of(symbol)
        expected, deviation, returns = self.expected_return.predict(
            p, symbol, alike, (sized * scale, *forecast.returns), forecast.p, scale
        )
        risk, risks = self.stop_risk.predict(p, alike, forecast.stops)
        outlook = Outlook(
            p,
            self.probability_interval.predict(p),
            expected,
            deviation,
            self.return_interval.predict(expected, scale),
            risk,
        )
        return outlook, Frozen(forecast.p, calibration, returns, risks, scale)

    def mean_loss_pct(self, symbol: str) -> float:
        """What a losing trade in that symbol returns, percent, at most 0."""
        return self.payoff.mean_loss_pct * self.usual_size.relative(symbol)

    def learn(
        self,
        outlook: Outlook,
        frozen: Frozen,
        symbol: str,
        alike: str,
        return_pct: float,
        stopped: bool | None,
        age: int,
    ) -> NDArray[np.float64]:
        """Take in one close: the beliefs as of its signal, and how it ended.

        `stopped` is None when the bot didn't say, `age` is how many closes were learned since the
        signal. Returns the experts' log losses, of shape (experts,), NaN: abstained.
        """
        won = return_pct > 0.0
        value = min(max(return_pct, -MAX_RETURN_PCT), MAX_RETURN_PCT)
        losses = self.mixture.learn(frozen.experts, won, age, outlook.probability)
        self.calibration.learn(frozen.experts, frozen.calibration, won, age, outlook.probability)
        self.probability_interval.learn(outlook.probability, outlook.probability_interval, won)
        self.expected_return.learn(
            frozen.returns, symbol, alike, frozen.scale, value, age, outlook.expected_return_pct
        )
        self.return_interval.learn(
            outlook.return_interval_pct, outlook.expected_return_pct, frozen.scale, value
        )
        if stopped is not None:
            self.stop_risk.learn(frozen.risks, alike, stopped, age, outlook.risk)
        self.payoff.learn(return_pct, stopped)
        self.usual_size.learn(symbol, value)
        return losses

    def figures(self) -> dict[str, dict[str, float]]:
        """How its parts do, each figure by what it is of; NaN where nothing is known yet.

        ``regret`` is by how many nats all that was published is behind each expert, over the
        closes for which that expert was awake; the largest is the regret against the best one.
        """
        experts = self.mixture
        spoken = zip(experts.losses, experts.awake, strict=True)
        intervals: dict[str, ProbabilityInterval | ReturnInterval] = {
            "probability": self.probability_interval,
            "return": self.return_interval,
        }
        return {
            "expert_weight": dict(zip(experts.names, experts.weights, strict=True)),
            "expert_log_loss": dict(
                zip(experts.names, [loss / n if n else nan for loss, n in spoken], strict=True)
            ),
            "regret": dict(zip(experts.names, experts.regrets, strict=True)),
            "calibration_weight": _weights(self.calibration.mixture),
            "return_weight": _weights(self.expected_return.mixture),
            "stop_weight": _weights(self.stop_risk.mixture),
            "interval_coverage": {
                name: part.covered / part.judged if part.judged else nan
                for name, part in intervals.items()
            },
        }

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {name: part.state() for name, part in self._parts().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the forecaster whose `state` this is."""
        for name, part in self._parts().items():
            part.restore(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "mixture": self.mixture,
            "calibration": self.calibration,
            "payoff": self.payoff,
            "expected_return": self.expected_return,
            "stop_risk": self.stop_risk,
            "probability_interval": self.probability_interval,
            "return_interval": self.return_interval,
            "usual_size": self.usual_size,
        }


def _weights(mixture: Mixture) -> dict[str, float]:
    return dict(zip(mixture.names, mixture.weights, strict=True))
