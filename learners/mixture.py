"""The mixture: experts' probabilities averaged by weights that follow their log loss.

It is Bayes' rule over stories of the form "this expert is the best one, and now and then another
takes over": the fixed share of Herbster and Warmuth (1998, Tracking the best expert). How often
is learned too: every rate of a small grid keeps weights of its own, and the rates compete by
their likelihood. An expert that abstains sleeps (Freund, Schapire, Singer and Warmuth 1997, Using
and combining predictors that specialize): it counts as if it had said what the mixture said.

Labels come late. Weights are updated in the order of the closes, by the probabilities that were
frozen when the signal was decided, as in Korotin, V'yugin and Burnaev (2019, arXiv:1902.10433).
A label that comes `age` closes late counts as ``1 / (1 + age)`` of one: until then the weights
could not answer, and trades that overlap tend to win and lose together, so that taking each of
them at its full word runs after noise.
"""

from collections.abc import Mapping, Sequence
from math import log, nan
from typing import cast

import numpy as np
from numpy.typing import NDArray

SHARE_RATES = (0.0, 0.001, 0.01, 0.1)
"""How often, per close, the best expert may change: the stories that compete."""


class Mixture:
    r"""A Bayesian mixture with learned fixed share over experts that may abstain.

    With labels that come before the next signal, losses ``l`` in nats, ``T`` closes, ``R`` rates
    and an expert ``i`` of prior ``w_i``, over the closes for which the expert was awake,

    .. math:: \sum_t \frac{l_t(\text{mixture}) - l_t(i)}{1 + \text{age}_t}
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
        given = [1.0] * len(names) if prior is None else list(prior)
        total = sum(given)
        self.prior = [weight / total for weight in given]
        self.losses = [0.0] * len(names)
        """Each expert's cumulative log loss, in nats, over the closes for which it was awake."""
        self.awake = [0] * len(names)
        """For how many closes each expert was awake."""
        self.reset()

    def reset(self) -> None:
        """Forget which experts were good: back to the prior weights."""
        # joint[r][i]: the weight of the story that i is the best now and changes come at rate r.
        self._joint = [[weight / len(self.rates) for weight in self.prior] for _ in self.rates]
        self._weights = list(self.prior)

    @property
    def weights(self) -> list[float]:
        """Each expert's weight, summed over the rates. They sum to 1."""
        return list(self._weights)

    def predict(self, p: NDArray[np.float64]) -> float:
        """The mixture's win probability from the experts' `p`, of shape (experts,), NaN: abstains.

        0.5 when all abstain.
        """
        mean = total = 0.0
        for value, weight in zip(p.tolist(), self._weights, strict=True):
            if value == value:  # only NaN differs from itself
                mean += weight * value
                total += weight
        return mean / total if total > 0.0 else 0.5

    def learn(self, p: NDArray[np.float64], won: bool, age: int = 0) -> NDArray[np.float64]:
        """Take in one close. Returns each expert's log loss of it, NaN where it abstained.

        `p` are the probabilities in (0, 1) as they were frozen at the signal, `age` is how many
        closes were learned between the signal and this close.
        """
        counts = 1.0 / (1 + age)
        frozen = p.tolist()
        losses = [nan] * len(frozen)
        ratios = [1.0] * len(frozen)
        mean = total = 0.0
        for i, value in enumerate(frozen):
            if value == value:
                likelihood = value if won else 1.0 - value
                losses[i] = -log(likelihood)
                self.losses[i] += losses[i]
                self.awake[i] += 1
                ratios[i] = likelihood**counts
                mean += self._weights[i] * ratios[i]
                total += self._weights[i]
        # A sleeper is taken to have said what the mixture did: divided by that, it stays as it is.
        scale = total / mean if total > 0.0 else 1.0
        joint = [
            [
                weight if value != value else weight * ratio * scale
                for weight, ratio, value in zip(row, ratios, frozen, strict=True)
            ]
            for row in self._joint
        ]
        total = sum(map(sum, joint))  # 1, but for rounding
        keep = (1.0 - self.restart) / total
        afresh = self.restart / len(self.rates)
        for r, rate in enumerate(self.rates):
            share = keep * rate * sum(joint[r]) + afresh
            stay = keep * (1.0 - rate)
            joint[r] = [
                stay * weight + share * prior
                for weight, prior in zip(joint[r], self.prior, strict=True)
            ]
        self._joint = joint
        self._weights = [sum(column) for column in zip(*joint, strict=True)]
        return np.array(losses)

    def state(self) -> dict[str, object]:
        """All that `restore` needs; `joint` has shape (rates, experts)."""
        return {
            "joint": np.array(self._joint),
            "losses": np.array(self.losses),
            "awake": list(self.awake),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the mixture whose `state` this is."""
        self._joint = cast(NDArray[np.float64], state["joint"]).tolist()
        self._weights = [sum(column) for column in zip(*self._joint, strict=True)]
        self.losses = cast(NDArray[np.float64], state["losses"]).tolist()
        self.awake = list(cast(list[int], state["awake"]))
