"""What all offered signals were worth, from those alone that were traded.

A skipped signal mostly has no close, and those skipped are not like those taken: a plain mean over
the closes that are there says how good the taken are, not how good the forecasts are. As decisions
are explored with a known propensity e(x), the chance that a signal like this is taken, the means
over all offered can be had without bias. With q the quantity, o = 1 where it was observed:

- plain: the mean of q over the observed;
- inverse propensity: ``mean(o q / e)`` over all offered (Horvitz and Thompson 1952), and
  self-normalised, ``sum(o q / e) / sum(o / e)`` (Hajek 1971), mostly less variable, a hair biased;
- doubly robust: ``mean(m + o (q - m) / e)`` (Robins, Rotnitzky and Zhao 1994; Dudik, Langford and
  Li 2011), m the value expected at the decision. It has no bias when e or m is right, and m here is
  what the decision itself published, fixed before the outcome, so nothing is fit twice on a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.bootstrap import (
    RESAMPLES,
    SEED,
    Estimate,
    Rows,
    block_length,
    estimates,
    mean,
)
from engine.evaluation.prequential import Decisions, Outcomes
from engine.evaluation.scores import losses

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

METHODS = ("plain", "ipw", "self_normalised_ipw", "doubly_robust")


@dataclass(frozen=True, slots=True, eq=False)
class Offered:
    """All signals that were offered, in the order of their decisions; each of shape (signals,).

    Parameters
    ----------
    observed
        Which were traded, so that what came of them is known.
    propensity
        The chance of that, as it was when it was decided; above zero.
    value
        The quantity; only read where `observed`.
    expected
        What the decision expected it to be.
    """

    observed: Bools
    propensity: Floats
    value: Floats
    expected: Floats

    def __len__(self) -> int:
        return len(self.observed)


def off_policy(offered: Offered, count: int = RESAMPLES, seed: int = SEED) -> dict[str, Estimate]:
    """The mean of the value over all offered by each of `METHODS`, with 95 % block-bootstrap ends.

    Raises `ValueError` when a propensity is not above 0 and at most 1: of signals that are never
    taken nothing can be known.
    """
    e = offered.propensity
    if not np.all((e > 0.0) & (e <= 1.0)):
        raise ValueError("propensities must be above 0 and at most 1; leave out the others")
    seen = offered.observed
    value = np.where(seen, offered.value, 0.0)
    weight = seen / e
    residual = np.where(seen, offered.value - offered.expected, 0.0)
    columns = np.column_stack(
        [value, seen, weight * value, weight, offered.expected + weight * residual]
    )

    def statistic(rows: Rows) -> dict[str, float | None]:
        plain, observed, weighted, weights, robust = columns[rows].sum(axis=0).tolist()
        return {
            "plain": plain / observed if observed else None,
            "ipw": weighted / len(rows) if observed else None,
            "self_normalised_ipw": weighted / weights if observed else None,
            "doubly_robust": robust / len(rows) if observed else None,
        }

    if not len(offered):
        return {method: Estimate(None) for method in METHODS}
    block = block_length(columns[:, 2], columns[:, 4])
    return estimates(statistic, len(offered), block, count, seed)


def effective_size(offered: Offered) -> float:
    """How many equally weighted closes tell as much: Kish's ``(sum w)^2 / sum w^2``, w = o / e."""
    weight = offered.observed / offered.propensity
    return float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else 0.0


@dataclass(frozen=True, slots=True)
class Censored:
    """What is known of all offered signals of a run by those that were traded.

    Parameters
    ----------
    offered, observed, effective
        How many signals were offered and can be spoken of; how many of them were traded and closed;
        how many equally likely ones these are worth.
    impossible
        Left out: their propensity is 0, they are never taken.
    unpublished
        Left out: their decision says no propensity.
    lost
        Left out: taken, but no close came, or a paper one.
    log_loss, mean_return_pct
        Each by all `METHODS`, and under "truth" the mean over all closes, those on paper as well,
        when nearly all of the offered have one.
    """

    offered: int
    observed: int
    effective: float
    impossible: int
    unpublished: int
    lost: int
    log_loss: dict[str, Estimate]
    mean_return_pct: dict[str, Estimate]


TRUTH_SHARE = 0.95
"""With closes for so many of the offered, a mean over them is called the truth."""


def censored(
    decisions: Decisions, outcomes: Outcomes, count: int = RESAMPLES, seed: int = SEED
) -> Censored:
    """Estimate log loss and mean return of all offered signals from those executed.

    Parameters
    ----------
    decisions
        Those to be judged, in order.
    outcomes
        Of the whole run: `decisions.outcome` are rows of it.
    """
    closed = decisions.outcome >= 0
    rows = decisions.outcome[closed]
    executed, won = np.zeros((2, len(decisions)), np.bool_)
    returns = np.zeros(len(decisions))
    executed[closed] = outcomes.executed[rows]
    won[closed] = outcomes.won[rows]
    returns[closed] = outcomes.return_pct[rows]
    observed = executed & decisions.taken
    e = decisions.propensity
    unpublished = ~np.isfinite(e)
    impossible = e == 0.0
    lost = decisions.taken & ~observed
    keep = ~(unpublished | impossible | lost)
    p = decisions.probability

    def quantity(value: Floats, expected: Floats) -> dict[str, Estimate]:
        offered = Offered(observed[keep], e[keep], value[keep], expected[keep])
        found = off_policy(offered, count, seed)
        if keep.any() and closed[keep].mean() >= TRUTH_SHARE:
            found["truth"] = mean(value[keep & closed], count, seed)
        return found

    sample = Offered(observed[keep], e[keep], returns[keep], returns[keep])
    return Censored(
        offered=int(keep.sum()),
        observed=int(observed[keep].sum()),
        effective=effective_size(sample),
        impossible=int(impossible.sum()),
        unpublished=int(unpublished.sum()),
        lost=int((lost & ~unpublished & ~impossible).sum()),
        log_loss=quantity(losses(p, won), entropy(p)),
        mean_return_pct=quantity(returns, decisions.expected_return_pct),
    )


def entropy(p: Floats) -> Floats:
    """The log loss that a probability expects of itself, nats."""
    wins = np.ones(len(p), np.bool_)
    return np.asarray(p * losses(p, wins) + (1.0 - p) * losses(p, ~wins))
