"""Expected return and risk, from the probability of a win and what wins and losses were like."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from learners.history import MAX_RETURN_PCT


class Returns:
    """Mean return of wins and of losses, and how often each of them ended at the stop.

    All are exponentially weighted, so they follow the market. The means are shrunk towards 0 by
    the weight of one close, the stop rates towards 1/2 by the weight of two: before anything is
    known the expected return is 0 and the risk 1/2.

    Parameters
    ----------
    half_life
        After how many closes of its own kind (wins, losses) a close counts half.
    """

    def __init__(self, half_life: int = 1000) -> None:
        self.half_life = half_life
        self._decay = 0.5 ** (1.0 / half_life)
        # For losses and for wins: weight and sum of returns, weight and sum of known stops.
        self._sums = [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]

    def expected_return_pct(self, p: float) -> float:
        """The expected return in percent, net of costs, when the win probability is `p`."""
        loss, win = (total / (weight + 1.0) for weight, total, _, _ in self._sums)
        return p * win + (1.0 - p) * loss

    @property
    def mean_loss_pct(self) -> float:
        """What a losing trade returns, percent, at most 0."""
        weight, total, _, _ = self._sums[0]
        return total / (weight + 1.0)

    def risk(self, p: float) -> float:
        """The probability that the trade ends at its stop, when the win probability is `p`."""
        loss, win = ((stops + 1.0) / (weight + 2.0) for _, _, weight, stops in self._sums)
        return p * win + (1.0 - p) * loss

    def learn(self, return_pct: float, stopped: bool | None) -> None:
        """Take in one close; `stopped` is None when the bot didn't say how it ended."""
        sums = self._sums[return_pct > 0.0]
        value = min(max(return_pct, -MAX_RETURN_PCT), MAX_RETURN_PCT)
        sums[0] = sums[0] * self._decay + 1.0
        sums[1] = sums[1] * self._decay + value
        if stopped is not None:
            sums[2] = sums[2] * self._decay + 1.0
            sums[3] = sums[3] * self._decay + stopped

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"sums": np.array(self._sums)}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self._sums = cast(NDArray[np.float64], state["sums"]).tolist()
