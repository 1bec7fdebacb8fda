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

SHARE_RATES = (0.0, 0.001, 0.01, 0.1)
"""How often, per close, the best expert may change: the stories that compete."""

DELAY_OVER = 500
"""Closes that the average delay looks back on."""

# Rows of the table that the kernels work on, with one column an expert: what is known of the
# experts, then for each share rate the joint weights.
_PRIOR, _WEIGHT, _LOSSES, _AWAKE, _LOSS, _RATIO, _REGRET = range(7)
_JOINT = 7
_FARTHEST = 4.0  # standard deviations: one wild return must not decide between experts


@entry(NUMBER, BUFFER, READ_ONLY)
def _predict(table: Floats, p: Floats) -> float:
    """The mean of `p` by the weights of those that are awake."""
    weights = table[_WEIGHT * p.size : (_WEIGHT + 1) * p.size]
    mean = 0.0
    total = 0.0
    for i in range(p.size):
        if p[i] == p[i]:
            mean += weights[i] * p[i]
            total += weights[i]
    return mean / total if total > 0.0 else math.nan


@compiled
def _update(
    flat: Floats, losses: Floats, rates: Floats, counts: float, restart: float, mine: float
) -> None:
    """Take in one close with these losses, that counts as `counts` of one; `mine` is ours."""
    table = flat.reshape((-1, losses.size))
    weights = table[_WEIGHT]
    joint = table[_JOINT:]
    mean = 0.0
    total = 0.0
    for i in range(losses.size):
        if losses[i] == losses[i]:
            table[_LOSSES, i] += losses[i]
            table[_REGRET, i] += mine - losses[i]
            table[_AWAKE, i] += 1.0
            table[_RATIO, i] = math.exp(-losses[i] * counts)
            mean += weights[i] * table[_RATIO, i]
            total += weights[i]
    # A sleeper is taken to have said what the mixture did: divided by that, it stays as it is.
    scale = total / mean if total > 0.0 else 1.0
    total = 0.0
    for r in range(rates.size):
        for i in range(losses.size):
            if losses[i] == losses[i]:
                joint[r, i] *= table[_RATIO, i] * scale
            total += joint[r, i]
    keep = (1.0 - restart) / total  # 1, but for rounding
    weights[:] = 0.0
    for r in range(rates.size):
        share = keep * rates[r] * joint[r].sum() + restart / rates.size
        stay = keep * (1.0 - rates[r])
        for i in range(losses.size):
            joint[r, i] = stay * joint[r, i] + share * table[_PRIOR, i]
            weights[i] += joint[r, i]


@entry(NOTHING, BUFFER, READ_ONLY, READ_ONLY, INTEGER, NUMBER, NUMBER, NUMBER)
def _learn(
    flat: Floats, p: Floats, rates: Floats, won: int, counts: float, restart: float, said: float
) -> None:
    """Take in one close: log loss."""
    losses = flat[_LOSS * p.size : (_LOSS + 1) * p.size]
    for i in range(p.size):
        losses[i] = -math.log(p[i] if won else 1.0 - p[i])
    mine = -math.log(said if won else 1.0 - said)
    _update(flat, losses, rates, counts, restart, mine)


@entry(NOTHING, BUFFER, READ_ONLY, READ_ONLY, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
def _learn_number(
    flat: Floats,
    values: Floats,
    rates: Floats,
    seen: float,
    deviation: float,
    counts: float,
    restart: float,
    said: float,
) -> None:
    """Take in one close: half the squared error in standard deviations."""
    losses = flat[_LOSS * values.size : (_LOSS + 1) * values.size]
    for i in range(values.size):
        error = min(abs(seen - values[i]) / deviation, _FARTHEST)
        losses[i] = 0.5 * error * error if values[i] == values[i] else math.nan
    error = min(abs(seen - said) / deviation, _FARTHEST)
    _update(flat, losses, rates, counts, restart, 0.5 * error * error)


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
        self.delay = 0.0
        """Closes between a signal and its close, on average over the last ones."""
        self._seen = 0
        self._flat = np.zeros((_JOINT + len(rates)) * len(names))
        self._table[_PRIOR] = given / given.sum()
        self._rates = np.array(rates, np.float64)
        ready(_predict, _learn, _learn_number)
        self.reset()

    def reset(self) -> None:
        """Forget which experts were good: back to the prior weights."""
        # joint[r, i]: the weight of the story that i is the best now and changes come at rate r.
        self._table[_JOINT:] = self._table[_PRIOR] / len(self.rates)
        self._sum_up()

    @property
    def prior(self) -> list[float]:
        """Each expert's weight at first. They sum to 1."""
        return cast(list[float], self._table[_PRIOR].tolist())

    @property
    def weights(self) -> list[float]:
        """Each expert's weight, summed over the rates. They sum to 1."""
        return cast(list[float], self._table[_WEIGHT].tolist())

    @property
    def losses(self) -> list[float]:
        """Each expert's cumulative log loss, in nats, over the closes for which it was awake."""
        return cast(list[float], self._table[_LOSSES].tolist())

    @property
    def awake(self) -> list[int]:
        """For how many closes each expert was awake."""
        return [int(closes) for closes in self._table[_AWAKE]]

    @property
    def regrets(self) -> list[float]:
        """How much more was lost by what was said than by each expert, while it was awake."""
        return cast(list[float], self._table[_REGRET].tolist())

    def predict(self, p: NDArray[np.float64]) -> float:
        """The mixture's forecast from the experts' `p`, of shape (experts,), NaN: abstains.

        NaN when all abstain.
        """
        return _predict(self._flat, p)

    def learn(
        self, p: NDArray[np.float64], won: bool, age: int = 0, said: float = math.nan
    ) -> NDArray[np.float64]:
        """Take in one close. Returns each expert's log loss of it, NaN where it abstained.

        `p` are the probabilities in (0, 1) as they were frozen at the signal, `said` what was
        published in the end, `age` is how many closes were learned between the signal and this
        close.
        """
        if said != said:
            said = self.predict(p)
        _learn(self._flat, p, self._rates, won, self._counts(age), self.restart, said)
        n = len(self.names)
        return self._flat[_LOSS * n : (_LOSS + 1) * n].copy()

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
        if said != said:
            said = self.predict(values)
        counts = self._counts(age)
        _learn_number(self._flat, values, self._rates, seen, deviation, counts, self.restart, said)

    def _counts(self, age: int) -> float:
        self._seen = min(self._seen + 1, DELAY_OVER)
        self.delay += (age - self.delay) / self._seen
        return 1.0 / (1.0 + self.delay)

    def state(self) -> dict[str, object]:
        """All that `restore` needs; `joint` has shape (rates, experts)."""
        return {
            "joint": self._table[_JOINT:].copy(),
            "losses": self._table[_LOSSES].copy(),
            "regrets": self._table[_REGRET].copy(),
            "awake": self.awake,
            "delay": [self.delay, self._seen],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the mixture whose `state` this is."""
        self._table[_JOINT:] = cast(NDArray[np.float64], state["joint"])
        self._table[_LOSSES] = cast(NDArray[np.float64], state["losses"])
        self._table[_REGRET] = cast(NDArray[np.float64], state["regrets"])
        self._table[_AWAKE] = cast(list[int], state["awake"])
        self.delay, self._seen = cast(tuple[float, int], state["delay"])
        self._sum_up()

    @property
    def _table(self) -> NDArray[np.float64]:
        return self._flat.reshape(-1, len(self.names))

    def _sum_up(self) -> None:
        """Each expert's weight from the joint ones, in the order of `_learn`, to the same bits."""
        weights = self._table[_WEIGHT]
        weights[:] = 0.0
        for row in self._table[_JOINT:]:
            weights += row
