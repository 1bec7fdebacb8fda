"""The expected return of a trade and the probability of its stop, neither worse than a mean.

The expected return is a Kalman filter's, over the running mean of all trades, the means of like
trades, what follows from the win probability, each forest's own regression, and what the experts
think of the win. It is mixed with that running mean by squared error: where it is worse, it goes.
Returns are measured by what is usual for the symbol. The probability of the stop is a mixture in
which the running rate has half the prior.
"""

from collections.abc import Mapping, Sequence
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift.native import ready
from learners.belief_kernels import HIGHEST, LOWEST, expect, learn_expected
from learners.groups import GroupMeans
from learners.kalman import KalmanRegression
from learners.mixture import Mixture
from learners.returns import Returns

_SMALLEST = 1e-9  # percent: the usual size of returns is taken to be at least this
_PRIOR = (0.2, 0.8)
"""Of the mean and the filter: the filter holds the mean, and shrinks to it by itself."""


class _Input:
    """The prior of a coefficient: mean, variance, drift."""

    ONE = (0.0, 0.0004, 1e-8)
    MEAN = (1.0, 0.1, 1e-7)
    GROUP = (0.3, 0.1, 1e-7)
    FORECAST = (0.5, 0.1, 1e-7)
    OPINION = (0.0, 0.01, 1e-8)


class UsualSize:
    """The root mean square return by symbol, following the market."""

    def __init__(self) -> None:
        self._squares = GroupMeans(shrink=20.0, half_life=500.0)
        self._all = GroupMeans(shrink=0.0, half_life=500.0)

    def of(self, symbol: str) -> float:
        """In percent; 1 before anything is known."""
        square = self._squares.mean(symbol, self._all.mean("", 1.0))
        return max(sqrt(square), _SMALLEST)

    def relative(self, symbol: str) -> float:
        """The symbol's usual size by that of all trades."""
        return self.of(symbol) / max(sqrt(self._all.mean("", 1.0)), _SMALLEST)

    def learn(self, symbol: str, return_pct: float) -> None:
        """Take in one close."""
        self._squares.learn(symbol, return_pct * return_pct)
        self._all.learn("", return_pct * return_pct)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"squares": self._squares.state(), "all": self._all.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self._squares.restore(state["squares"])
        self._all.restore(state["all"])


class ExpectedReturn:
    """The expected return of a trade, in percent, net of costs.

    Parameters
    ----------
    payoff
        What wins and losses are like; learned elsewhere.
    voters
        How many experts forecast returns themselves.
    experts
        How many experts there are.
    base
        Which of them is the base rate.
    """

    def __init__(self, payoff: Returns, voters: int, experts: int, base: int) -> None:
        self._payoff = payoff
        self._base = base
        inputs = [_Input.ONE, _Input.MEAN, _Input.GROUP, _Input.GROUP, _Input.FORECAST]
        inputs += [_Input.FORECAST] * voters + [_Input.OPINION] * experts
        self._kalman = KalmanRegression(*zip(*inputs, strict=True))
        self.mixture = Mixture(["mean", "kalman"], _PRIOR)
        self._size = 2 + len(inputs)
        self._spread = np.zeros(1)
        ready(expect, learn_expected)
        self._closes = 0
        self._total = 0.0
        self._alike = GroupMeans(shrink=100.0)
        self._symbols = GroupMeans(shrink=100.0)

    def predict(
        self,
        p: float,
        symbol: str,
        alike: str,
        voters: Sequence[float],
        experts: NDArray[np.float64],
        scale: float,
    ) -> tuple[float, float, NDArray[np.float64]]:
        """What a trade of win probability `p` should return.

        Parameters
        ----------
        p
            As published.
        symbol, alike
            The symbol; the group of like trades: strategy and side.
        voters
            What the experts say that forecast returns, NaN: abstains.
        experts
            The experts' win probabilities, NaN: abstains.
        scale
            The symbol's usual size of a return, percent.

        Returns
        -------
        The expected return, the standard deviation of what is believed of it, and what to hand
        back at the close.
        """
        mean = self._total / (self._closes + 1)
        means = (
            mean,
            self._alike.mean(alike, mean),
            self._symbols.mean(symbol, mean),
            self._payoff.expected_return_pct(p),
            *voters,
        )
        frozen = np.empty(self._size)
        expected = expect(
            np.array(means),
            experts,
            self._base,
            scale,
            self._kalman.flat,
            self.mixture.flat,
            frozen,
            self._spread,
        )
        return expected, float(self._spread[0]), frozen

    def learn(
        self,
        frozen: NDArray[np.float64],
        symbol: str,
        alike: str,
        scale: float,
        return_pct: float,
        age: int,
        said: float = nan,
    ) -> None:
        """Take in one close; `said` is the expected return as published."""
        if said != said:
            said = self.mixture.predict(frozen[:2])
        learn_expected(frozen, scale, return_pct, age, said, self._kalman.flat, self.mixture.flat)
        self._closes += 1
        self._total += return_pct
        self._alike.learn(alike, return_pct)
        self._symbols.learn(symbol, return_pct)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "mixture": self.mixture.state(),
            "kalman": self._kalman.state(),
            "closes": self._closes,
            "total": self._total,
            "alike": self._alike.state(),
            "symbols": self._symbols.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self.mixture.restore(state["mixture"])
        self._kalman.restore(state["kalman"])
        self._closes = state["closes"]
        self._total = state["total"]
        self._alike.restore(state["alike"])
        self._symbols.restore(state["symbols"])


class StopRisk:
    """The probability that a trade ends at its stop.

    Parameters
    ----------
    payoff, voters
        As of `ExpectedReturn`.
    """

    def __init__(self, payoff: Returns, voters: int) -> None:
        self._payoff = payoff
        own = [f"voter_{i}" for i in range(voters)]
        self.names = ["rate", "strategy_side", "payoff", *own]
        others = len(self.names) - 1
        self.mixture = Mixture(self.names, [float(others)] + [1.0] * others)
        self._closes = 0
        self._stops = 0
        self._alike = GroupMeans()

    def predict(
        self, p: float, alike: str, voters: list[float]
    ) -> tuple[float, NDArray[np.float64]]:
        """The probability of the stop, and what to hand back at the close."""
        rate = (self._stops + 1) / (self._closes + 2)
        said = [rate, self._alike.mean(alike, rate), self._payoff.risk(p), *voters]
        frozen = np.array([min(max(q, LOWEST), HIGHEST) if q == q else q for q in said])
        return self.mixture.predict(frozen), frozen

    def learn(
        self, frozen: NDArray[np.float64], alike: str, stopped: bool, age: int, said: float = nan
    ) -> None:
        """Take in one close of which is known how it ended; `said` is the risk as published."""
        self.mixture.learn(frozen, stopped, age, said)
        self._closes += 1
        self._stops += stopped
        self._alike.learn(alike, float(stopped))

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "mixture": self.mixture.state(),
            "closes": self._closes,
            "stops": self._stops,
            "alike": self._alike.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self.mixture.restore(state["mixture"])
        self._closes = state["closes"]
        self._stops = state["stops"]
        self._alike.restore(state["alike"])
