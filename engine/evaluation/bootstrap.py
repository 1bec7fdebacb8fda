"""How sure a figure is: intervals by a block bootstrap, and many looks paid for.

Closes that follow each other are alike: trades overlap and markets have moods. So whole blocks are
drawn: the stationary bootstrap of Politis and Romano (1994), its mean block as long as Politis and
White (2004) find it should be, both from the package arch. Same data and seed, same interval.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]

LEVEL = 0.95
RESAMPLES = 1_000
SEED = 42
FEWEST = 20
"""Fewer closes than this have no interval: there are no blocks to speak of."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and how sure it is.

    Parameters
    ----------
    value
        The figure on the data itself; None when they don't define it.
    low, high
        The interval that holds 95 % of the resampled figures; None when fewer than 95 % of the
        resamples define one, as when hardly anything was taken.
    error
        Their standard deviation, which is the figure's standard error.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    error: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def p(self) -> float | None:
        """Two-sided p-value of "it is zero", by a normal law of the bootstrap's standard error.

        Counting resamples beyond zero could not go below one in their number, and many looks need
        smaller ones.
        """
        if self.value is None or not self.error:
            return None
        return math.erfc(abs(self.value) / self.error / math.sqrt(2.0))

    def figures(self) -> dict[str, float | None]:
        """Value and interval, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def block_length(*series: Floats) -> float:
    """The mean length of a block that suits all of these series, in closes, from 1.

    At most a fifth of the series: with fewer blocks there is nothing to draw.
    """
    longest = 1.0
    for values in series:
        if len(values) < FEWEST or float(np.ptp(values)) == 0.0:
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = float(optimal_block_length(values)["stationary"].iloc[0])
        if math.isfinite(found):
            longest = max(longest, min(found, len(values) / 5))
    return longest


def resamples(closes: int, block: float, count: int, seed: int = SEED) -> Iterator[Rows]:
    """`count` times the row numbers of a resampled series of `closes` rows."""
    drawn = StationaryBootstrap(
        max(1, round(block)), np.arange(closes), seed=np.random.default_rng(seed)
    )
    for data, _ in drawn.bootstrap(count):
        yield data[0]


def estimates(
    statistic: Callable[[Rows], Mapping[str, float | None]],
    closes: int,
    block: float,
    count: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Estimate]:
    """Each figure that `statistic` makes of some rows, with its interval.

    Parameters
    ----------
    statistic
        Gets row numbers, in order and some of them more than once; the same names each time.
    closes
        How many rows there are.
    block
        From `block_length`.
    """
    values = statistic(np.arange(closes))
    if closes < FEWEST:
        return {name: Estimate(value) for name, value in values.items()}
    drawn = np.full((count, len(values)), math.nan)
    for row, rows in enumerate(resamples(closes, block, count, seed)):
        found = statistic(rows)
        drawn[row] = [math.nan if found[name] is None else found[name] for name in values]
    return {
        name: estimate(value, drawn[:, column])
        for column, (name, value) in enumerate(values.items())
    }


def estimate(value: float | None, drawn: Floats) -> Estimate:
    """A figure with what the resamples, shape (resamples,), made of it; NaN: not defined there."""
    defined = np.isfinite(drawn)
    if value is None or not math.isfinite(value):
        return Estimate(None)
    if len(drawn) < 2 or defined.mean() < LEVEL:
        return Estimate(value)
    drawn = drawn[defined]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), float(drawn.std(ddof=1)))


def mean(values: Floats, count: int = RESAMPLES, seed: int = SEED) -> Estimate:
    """The mean of a series, such as the difference of two log losses, a close."""

    def statistic(rows: Rows) -> dict[str, float | None]:
        return {"mean": float(values[rows].mean()) if len(rows) else None}

    return estimates(statistic, len(values), block_length(values), count, seed)["mean"]


def mean_difference(
    taken: Bools, returns: Floats, count: int = RESAMPLES, seed: int = SEED
) -> Estimate:
    """Mean return of those taken minus that of all offered, percent points a trade.

    Parameters
    ----------
    taken, returns
        Of all offered, in the order of their closes, shape (closes,).
    """

    def statistic(rows: Rows) -> dict[str, float | None]:
        drawn, kept = returns[rows], taken[rows]
        return {"difference": float(drawn[kept].mean() - drawn.mean()) if kept.any() else None}

    block = block_length(returns, influence(taken, returns))
    return estimates(statistic, len(returns), block, count, seed)["difference"]


def influence(taken: Bools, returns: Floats) -> Floats:
    """What each close adds to `mean_difference`, to first order: the series that has its error."""
    if not taken.any():
        return np.zeros(len(returns))
    share = taken.mean()
    return np.asarray(
        taken / share * (returns - returns[taken].mean()) - (returns - returns.mean())
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values for many looks at once: the chance of even one false claim stays what it says.

    Holm (1979), A simple sequentially rejective multiple test procedure; it holds however the looks
    depend on each other, and slices of one tape do. None stays None and isn't counted.
    """
    looked = [p for p in p_values if p is not None]
    if not looked:
        return [None] * len(p_values)
    adjusted = iter(multipletests(looked, method="holm")[1].tolist())
    return [None if p is None else next(adjusted) for p in p_values]
