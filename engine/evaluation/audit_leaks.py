"""What a signal can't have known: features too good to be true, or that are the outcome itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from engine.evaluation.audit_columns import MINUTE, TEXT, Columns, Feature, Floats
from engine.report import auc

ENOUGH = 50
"""Closes below which nothing is said of a feature."""
IMPOSSIBLE_AUC = 0.85
"""One feature alone isn't that good; the lower end of its interval counts."""
NOTABLE_AUC = 0.65
FAR_ABOVE = 5.0
"""Times the median feature's distance from 0.5."""
SAME = 0.98
"""Rank correlation with an outcome from which on a feature is that outcome."""
MOSTLY = 0.5
"""Share of trades in which a feature equals the exit price."""

_BINS = 32
_FOLDS = 20
_PRIOR = 10.0
_Z = float(norm.ppf(0.975))

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Alone:
    """How well one feature tells wins from losses by itself.

    Parameters
    ----------
    auc
        Area under the ROC curve of the win rate among signals with about the same value, taken from
        other stretches of the tape; so it needs no direction, and missing is a value too.
    low, high
        Its 95 % interval (Hanley and McNeil 1982).
    """

    auc: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Likeness:
    """A feature that follows an outcome: the rank correlation, or the share of equal values."""

    feature: str
    outcome: str
    how: str
    value: float


def alone(columns: Columns) -> dict[str, Alone]:
    """Each feature's score; none without `ENOUGH` closes, or when all or none were won."""
    rows = np.flatnonzero(columns.joined)
    won = columns.won[rows]
    if len(rows) < ENOUGH or won.all() or not won.any():
        return {}
    # Whole stretches, not every other signal: trades side by side share their outcome.
    fold = np.arange(len(rows)) * _FOLDS // len(rows) % 2 == 1
    found = {}
    for name, feature in columns.features.items():
        score = _score(_bins(feature)[rows], won, fold)
        if score is not None:
            found[name] = score
    return found


def too_good(scores: dict[str, Alone]) -> tuple[list[str], list[str]]:
    """Features impossibly good alone, and those merely far above all others."""
    impossible = [name for name, score in scores.items() if score.low > IMPOSSIBLE_AUC]
    typical = float(np.median([abs(s.auc - 0.5) for s in scores.values()])) if scores else 0.0
    notable = [
        name
        for name, score in scores.items()
        if name not in impossible
        and len(scores) > 2
        and score.low > NOTABLE_AUC
        and score.auc - 0.5 > FAR_ABOVE * typical
    ]
    return impossible, notable


def likenesses(columns: Columns) -> Iterator[Likeness]:
    """Features that are an outcome, or follow one as only the outcome itself does."""
    outcomes = {
        name: values for name, values in columns.outcome.items() if name != "exit_price"
    } | {"minutes to the close": _delay(columns)}
    prices = columns.outcome["exit_price"]
    for name, feature in columns.features.items():
        values = np.where(feature.kinds == TEXT, np.nan, feature.values)
        for outcome, other in outcomes.items():
            rho = _rank_correlation(values, other)
            if abs(rho) >= SAME:
                yield Likeness(name, outcome, "rank correlation", rho)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Any price follows any other; what is left over the entry price doesn't.
            rho = _rank_correlation(values / columns.price - 1, prices / columns.price - 1)
            comparable = np.isfinite(values) & np.isfinite(prices) & (prices != columns.price)
        equal = values[comparable] == prices[comparable]
        if abs(rho) >= SAME:
            yield Likeness(name, "exit_price", "rank correlation", rho)
        elif len(equal) >= ENOUGH and equal.mean() > MOSTLY:
            yield Likeness(name, "exit_price", "equal in", float(equal.mean()))


def _delay(columns: Columns) -> Floats:
    delay = (columns.closed - columns.opened) / MINUTE
    return cast(Floats, np.where(columns.joined, delay, np.nan))


def _rank_correlation(left: Floats, right: Floats) -> float:
    """Spearman's; 0 with too few pairs, or too few values on either side to speak of one."""
    both = np.isfinite(left) & np.isfinite(right)
    if both.sum() < ENOUGH:
        return 0.0
    a, b = rankdata(left[both]), rankdata(right[both])
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _bins(feature: Feature) -> NDArray[np.int64]:
    """Each signal's group: its text, or about the same number; missing is group 0."""
    text = feature.kinds == TEXT
    number = feature.present & ~text
    groups = np.zeros(len(feature.kinds), np.int64)
    values = feature.values[number]
    if len(values):
        edges = np.unique(np.quantile(values, np.arange(1, _BINS) / _BINS))
        groups[number] = 1 + np.searchsorted(edges, values, "right")
    groups[text] = 2 + _BINS + feature.values[text].astype(np.int64)
    return groups


def _score(groups: NDArray[np.int64], won: Bools, fold: Bools) -> Alone | None:
    areas, weights = [], []
    for taught, judged in ((fold, ~fold), (~fold, fold)):
        base = won[taught].mean()
        size = int(groups.max()) + 1
        count = np.bincount(groups[taught], minlength=size)
        wins = np.bincount(groups[taught], won[taught], minlength=size)
        rate = (wins + _PRIOR * base) / (count + _PRIOR)
        area = auc(rate[groups[judged]], won[judged])
        if area is not None:
            areas.append(area)
            weights.append(float(judged.sum()))
    if not areas:
        return None
    area = float(np.average(areas, weights=weights))
    error = _Z * _standard_error(area, int(won.sum()), int((~won).sum()))
    return Alone(area, max(area - error, 0.0), min(area + error, 1.0))


def _standard_error(area: float, wins: int, losses: int) -> float:
    """Hanley and McNeil (1982), equation 1."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (wins - 1) * (q1 - area**2) + (losses - 1) * (q2 - area**2)
    return float(np.sqrt(max(spread, 0.0) / (wins * losses)))
