"""The mixture: experts' forecasts averaged by weights that follow their loss.

It is Bayes' rule over stories of the form "this expert is the best one, and now and then another
takes over": the fixed share of Herbster and Warmuth (1998, Tracking the best expert). How often
is learned too: every rate of a small grid keeps weights of its own, and the rates compete by
their likelihood. An expert that abstains sleeps (Freund, Schapire, Singer and Warmuth 1997, Using
and combining predictors that specialize): it counts as if it had said what the mixture said.

Labels come late. Weights are updated in the order of the closes, by the probabilities that were
frozen when the signal was decided, as in Korotin, V'yugin and Burnaev (2019, arXiv:1902.10433).
When labels come `delay` closes late on average, each counts as ``1 / (1 + delay)`` of one: until
then the weights could not answer, and trades that overlap tend to win and lose together, so that
taking each of them at its full word runs after noise. It is the average and not the label's own
age that counts: stops come sooner than targets, so young labels are losses more often than not.

Forecasts of a number (a return) are mixed likewise, by the likelihood of a normal distribution
around each expert's forecast, cut off at four standard deviations.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from drift.native import ready
from learners.belief_kernels import (
    AWAKE,
    COUNT,
    DELAY,
    JOINT,
    LOSS,
    LOSSES,
    PRIOR,
    RATES,
    REGRET,
    RESTART,
    SEEN,
    WEIGHT,
    learn_number,
    learn_win,
    mix,
)

SHARE_RATES = (0.0, 0.001, 0.01, 0.1)
"""How often, per close, the best expert may change: the stories that compete."""


class Mixture:
    r"""A Bayesian mixture with learned fixed share over experts that may abstain.

    With labels that come before the next signal, losses ``l`` in nats, ``T`` closes, ``R`` rates
    and an expert ``i`` of prior ``w_i``, over the closes for which the expert was awake,

    .. math:: \sum_t \frac{l_t(\text{mixture}) - l_t(i)}{1 + \text{delay}_t}
        \le \ln(R / w_i) - T \ln(1 - \text{restart}).

    Against experts that take over from each other ``m`` times, a rate ``a`` in the grid adds
    ``m ln(1 / (a w)) - T ln(1 - a)`` with ``w`` their smallest prior. So when all labels are
    ``D`` closes late, the mixture's loss exceeds an expert's by some ``(D + 1) ln(R / w_i)`` nats
    for good, which is the order of what delay costs at worst.

    Parameters
    ----------
    names
        The experts, in the order of their probabilities.
    prior
        What each expert's weight is at first, and what the shares are dealt out by; positive.
        All the same when left out. It is scaled to a sum of 1.
    rates
        The grid of share rates, each in [0, 1).
    restart
        The part of all weight that is dealt out afresh at each close, over experts and rates. It
        keeps each of them able to come back, and costs ``restart`` nats a close.
    """

    def __init__(
        self,
        names: Sequence[str],
        prior: Sequence[float] | None = None,
        rates: Sequence[float] = SHARE_RATES,
        restart: float = 1e-5,
    ) -> None:
        self.names = list(names)
        self.rates = list(rates)
        self.restart = restart
        given = np.ones(len(names)) if prior is None else np.array(prior, np.float64)
        self.flat = np.zeros(RATES + len(rates) + (JOINT + len(rates)) * len(names))
        """The whole state, as the kernels see it."""
        self.flat[RESTART] = restart
        self.flat[COUNT] = len(rates)
        self.flat[RATES : RATES + len(rates)] = rates
        # One row a fact, one column an expert: a view.
        self._table = self.flat[RATES + len(rates) :].reshape(-1, len(names))
        self._loss = self._table[LOSS]
        self._table[PRIOR] = given / given.sum()
        ready(mix, learn_win, learn_number)
        self.reset()

    def reset(self) -> None:
        """Forget which experts were good: back to the prior weights."""
        # joint[r, i]: the weight of the story that i is the best now and changes come at rate r.
        self._table[JOINT:] = self._table[PRIOR] / len(self.rates)
        self._sum_up()

    @property
    def prior(self) -> list[float]:
        """Each expert's weight at first. They sum to 1."""
        return cast(list[float], self._table[PRIOR].tolist())

    @property
    def weights(self) -> list[float]:
        """Each expert's weight, summed over the rates. They sum to 1."""
        return cast(list[float], self._table[WEIGHT].tolist())

    @property
    def losses(self) -> list[float]:
        """Each expert's cumulative log loss, in nats, over the closes for which it was awake."""
        return cast(list[float], self._table[LOSSES].tolist())

    @property
    def awake(self) -> list[int]:
        """For how many closes each expert was awake."""
        return [int(closes) for closes in self._table[AWAKE]]

    @property
    def regrets(self) -> list[float]:
        """How much more was lost by what was said than by each expert, while it was awake."""
        return cast(list[float], self._table[REGRET].tolist())

    @property
    def delay(self) -> float:
        """Closes between a signal and its close, on average over the last ones."""
        return float(self.flat[DELAY])

    def predict(self, p: NDArray[np.float64]) -> float:
        """The mixture's forecast from the experts' `p`, of shape (experts,), NaN: abstains.

        NaN when all abstain.
        """
        return mix(self.flat, p)

    def learn(
        self, p: NDArray[np.float64], won: bool, age: int = 0, said: float = math.nan
    ) -> NDArray[np.float64]:
        """Take in one close. Returns each expert's log loss of it, NaN where it abstained.

        `p` are the probabilities in (0, 1) as they were frozen at the signal, `said` what was
        published in the end, `age` is how many closes were learned between the signal and this
        close.
        """
        learn_win(self.flat, p, won, age, self.predict(p) if said != said else said)
        losses: NDArray[np.float64] = self._loss.copy()
        return losses

    def learn_number(
        self,
        values: NDArray[np.float64],
        seen: float,
        deviation: float,
        age: int = 0,
        said: float = math.nan,
    ) -> None:
        """Take in one close that gave the number `seen`, where the experts had said `values`.

        `deviation` is the standard deviation to expect of it, and positive.
        """
        said = self.predict(values) if said != said else said
        learn_number(self.flat, values, seen, deviation, age, said)

    def state(self) -> dict[str, object]:
        """All that `restore` needs; `joint` has shape (rates, experts)."""
        return {
            "joint": self._table[JOINT:].copy(),
            "losses": self._table[LOSSES].copy(),
            "regrets": self._table[REGRET].copy(),
            "awake": self.awake,
            "delay": self.flat[[DELAY, SEEN]],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the mixture whose `state` this is."""
        self._table[JOINT:] = cast(NDArray[np.float64], state["joint"])
        self._table[LOSSES] = cast(NDArray[np.float64], state["losses"])
        self._table[REGRET] = cast(NDArray[np.float64], state["regrets"])
        self._table[AWAKE] = cast(list[int], state["awake"])
        self.flat[[DELAY, SEEN]] = cast(NDArray[np.float64], state["delay"])
        self._sum_up()

    def _sum_up(self) -> None:
        """Each expert's weight from the joint ones, in the order of `_learn`, to the same bits."""
        weights = self._table[WEIGHT]
        weights[:] = 0.0
        for row in self._table[JOINT:]:
            weights += row
