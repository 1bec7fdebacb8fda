"""Scores of probabilities, of calls and of trades, as plain functions over arrays.

All arrays have shape (closes,), in the order of the closes; returns are in percent, net of costs.
A score that its data doesn't define (no trades, one class, no losses) is None, never a NaN.

Those of a probability (`log_loss`, `brier`, `auc`, `ece`) are `engine.report`'s, which `replay`
shows too.
"""

import numpy as np
from numpy.typing import NDArray

from engine.report import BINS, SKIPPED_SHARE, auc, brier, ece, log_loss

__all__ = [
    "BINS", "SKIPPED_SHARE", "accuracy", "auc", "brier", "calibrated_ece", "call_scores",
    "coverage", "ece", "f1", "log_loss", "losses", "max_drawdown", "mean_return", "precision",
    "probability_scores", "profit_factor", "recall", "reliability", "sharpe", "sortino",
    "trade_scores", "win_rate",
]  # fmt: skip

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Score = float | None

# Probabilities


def losses(p: Floats, won: Bools) -> Floats:
    """The log loss of each, nats; `log_loss` is their mean."""
    return np.asarray(-np.log(np.maximum(np.where(won, p, 1.0 - p), 1e-15)))


def probability_scores(p: Floats, won: Bools) -> dict[str, Score]:
    """All scores of a probability."""
    return {
        "log_loss": log_loss(p, won),
        "brier": brier(p, won),
        "auc": auc(p, won),
        "ece": ece(p, won),
    }


def reliability(
    p: Floats, won: Bools, of: Floats | None = None
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean probability, win rate and size of each bin of `ece`: equal mass, by rising `p`.

    With `of`, its mean in each bin instead of that of `p`.
    """
    order = np.argsort(p, kind="stable")
    bins = [b for b in np.array_split(order, BINS) if len(b)]
    column = p if of is None else of
    return (
        np.array([column[b].mean() for b in bins]),
        np.array([won[b].mean() for b in bins]),
        np.array([len(b) for b in bins], np.int64),
    )


def calibrated_ece(p: Floats, draws: int = 200, seed: int = 42) -> Score:
    """The 95th percentile of the ECE if every win had come with exactly the probability `p`.

    An ECE is never zero on a finite sample; below this one it says nothing against `p`.
    """
    if not len(p):
        return None
    rng = np.random.default_rng(seed)
    # In bins the order of equal p doesn't matter to its size, so sorting once will do.
    ordered = np.sort(p)
    bounds = np.cumsum([0, *(len(b) for b in np.array_split(ordered, BINS) if len(b))])
    found = np.empty(draws)
    for draw in range(draws):
        gap = ordered - (rng.random(len(p)) < ordered)
        found[draw] = np.abs(np.add.reduceat(gap, bounds[:-1])).sum() / len(p)
    return float(np.quantile(found, 0.95))


def coverage(low: Floats, high: Floats, value: Floats) -> Score:
    """The share of values inside their interval, ends included, where one was published."""
    published = np.isfinite(low) & np.isfinite(high)
    if not published.any():
        return None
    inside = (low <= value) & (value <= high)
    return float(inside[published].mean())


# Calls: taking a trade is the call that it wins, leaving it that it doesn't.


def accuracy(called: Bools, won: Bools) -> Score:
    """The share of right calls."""
    return float((called == won).mean()) if len(won) else None


def precision(called: Bools, won: Bools) -> Score:
    """The share of wins among those called wins."""
    return float(won[called].mean()) if called.any() else None


def recall(called: Bools, won: Bools) -> Score:
    """The share of the wins that were called so."""
    return float(called[won].mean()) if won.any() else None


def f1(called: Bools, won: Bools) -> Score:
    """The harmonic mean of precision and recall."""
    either = int(called.sum() + won.sum())
    return 2.0 * float((called & won).sum()) / either if either else None


def call_scores(called: Bools, won: Bools) -> dict[str, Score]:
    """All scores of calls."""
    return {
        "accuracy": accuracy(called, won),
        "precision": precision(called, won),
        "recall": recall(called, won),
        "f1": f1(called, won),
    }


# Trades


def win_rate(returns: Floats) -> Score:
    """The share of returns above zero."""
    return float((returns > 0).mean()) if len(returns) else None


def mean_return(returns: Floats) -> Score:
    """The mean, percent a trade."""
    return float(returns.mean()) if len(returns) else None


def profit_factor(returns: Floats) -> Score:
    """The sum of the gains over the sum of the losses."""
    lost = -returns[returns < 0].sum()
    return float(returns[returns > 0].sum() / lost) if lost > 0 else None


def sharpe(returns: Floats) -> Score:
    """Mean over standard deviation (of the sample), a trade; not annualised, the riskless rate 0.

    Sharpe (1994), The Sharpe Ratio. Trades overlap, so a figure a year would claim more than is
    known.
    """
    return _ratio(returns, float(returns.std(ddof=1)) if len(returns) > 1 else 0.0)


def sortino(returns: Floats) -> Score:
    """Mean over downside deviation, the root of mean ``min(return, 0)^2``, a trade; target 0.

    Sortino and Price (1994), Performance Measurement in a Downside Risk Framework.
    """
    downside = float(np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))) if len(returns) else 0.0
    return _ratio(returns, downside)


def max_drawdown(returns: Floats) -> Score:
    """The deepest fall of the summed return below its highest so far (at first 0), percent points.

    Returns are added, not compounded: they overlap, and each is of its own entry. 0 or more.
    """
    if not len(returns):
        return None
    total = np.cumsum(returns)
    return float(np.max(np.maximum.accumulate(np.maximum(total, 0.0)) - total))


def trade_scores(returns: Floats) -> dict[str, Score]:
    """All scores of trades."""
    return {
        "mean_return_pct": mean_return(returns),
        "win_rate": win_rate(returns),
        "profit_factor": profit_factor(returns),
        "sharpe": sharpe(returns),
        "sortino": sortino(returns),
        "max_drawdown_pct": max_drawdown(returns),
    }


def _ratio(returns: Floats, deviation: float) -> Score:
    # Returns that are all the same leave a deviation of rounding errors.
    if not len(returns) or deviation <= 1e-12 * float(np.abs(returns).max()):
        return None
    return float(returns.mean()) / deviation
