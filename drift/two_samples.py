"""Two samples of dependent values, compared column by column, compiled.

What two samples' distribution functions differ by is, for each level x, the difference of two means
of the indicator ``value <= x``. Dependence inflates the variance of such a mean by the indicator's
integrated autocorrelation time, so a sample is worth fewer independent values by that factor. Here
it is the largest over the quartiles and both samples, by lugsail overlapping batch means (Meketon
and Schmeiser 1984; Vats and Flegal 2022, *Biometrika* 109:3). Unlike sums over lags they needn't be
told where the autocorrelation ends, which isn't at the first small lag where several symbols take
turns.
"""

import math

import numpy as np
from numba import types
from numpy.typing import NDArray

from drift.native import BUFFER, INTEGER, NOTHING, READ_ONLY, Floats, compiled, entry

Ints = NDArray[np.int64]

SHORTEST_BATCH = 7
"""Batches are this long, 4 times, 16 times, ... as long, up to a quarter of the sample."""

N, M, STATISTIC, TIME, MOVES = range(5)
FIELDS = 5


@compiled
def _batch_variance(sums: Ints, n: int, length: int) -> float:
    """`length` times the variance of the means of all overlapping batches of that length.

    `sums` are those of the first 0, 1, ..., n indicators. Whole numbers add up the same in any
    order, so this is compiled to do several at a time; but not if an index could be negative, as
    ``i + length`` could for all that the compiler knows.
    """
    ends = sums[length : n + 1]
    total = 0
    squares = 0
    for i in range(n - length + 1):
        batch = ends[i] - sums[i]
        total += batch
        squares += batch * batch
    batches = n - length + 1.0
    expected = length * (sums[n] / n)
    apart = squares - 2.0 * expected * total + batches * expected * expected
    variance: float = apart * n / (length * batches * (n - length))
    return variance


@compiled
def _autocorrelation_time(values: Floats, ordered: Floats, at: int, n: int, sums: Ints) -> float:
    """How many dependent values are worth one independent: the largest over three levels.

    `values` holds the sample in time order, in its first `n`; `ordered` sorted, from `at` on.
    """
    longest = 1.0
    highest = ordered[at + n - 1]
    sums[0] = 0
    before = math.nan
    for quarter in range(1, 4):
        level = ordered[at + quarter * (n - 1) // 4]
        if level == before:
            continue
        before = level
        # At the highest value "at most" would be all.
        strict = level == highest
        for i in range(n):
            below = values[i] < level if strict else values[i] <= level
            sums[i + 1] = sums[i] + (1 if below else 0)
        if sums[n] == 0:
            continue
        variance = sums[n] / n * (1.0 - sums[n] / n)
        length = SHORTEST_BATCH
        while 4 * length <= n:
            whole = _batch_variance(sums, n, length)
            half = _batch_variance(sums, n, length // 2)
            longest = max(longest, (2.0 * whole - half) / variance)
            length *= 4
    return longest


@compiled
def _largest_gap(ordered: Floats, a: int, n: int, others: Floats, b: int, m: int) -> float:
    """The Kolmogorov-Smirnov statistic of two sorted samples."""
    i = 0
    j = 0
    gap = 0.0
    while i < n and j < m:
        level = min(ordered[a + i], others[b + j])
        while i < n and ordered[a + i] == level:
            i += 1
        while j < m and others[b + j] == level:
            j += 1
        gap = max(gap, abs(i / n - j / m))
    return gap


@entry(
    NOTHING,
    READ_ONLY,
    READ_ONLY,
    READ_ONLY,
    INTEGER,
    INTEGER,
    INTEGER,
    BUFFER,
    types.int64[::1],
    BUFFER,
)
def compare(
    columns: Floats,
    before: Floats,
    after: Floats,
    n_columns: int,
    reference: int,
    window: int,
    values: Floats,
    sums: Ints,
    out: Floats,
) -> None:
    """Hold each column's newest `window` values against the `reference` before.

    Parameters
    ----------
    columns
        One column after the other, in time order; NaN is missing.
    before, after
        The same two windows, sorted, NaN last.
    values, sums
        Scratch, one number longer than the longer window.
    out
        Per column: values before, values after, statistic, autocorrelation time, and whether it
        ever moves.
    """
    for c in range(n_columns):
        start = c * (reference + window)
        time = 1.0
        n = 0
        for i in range(start, start + reference):
            if columns[i] == columns[i]:
                values[n] = columns[i]
                n += 1
        if n > 0:
            time = _autocorrelation_time(values, before, c * reference, n, sums)
        m = 0
        for i in range(start + reference, start + reference + window):
            if columns[i] == columns[i]:
                values[m] = columns[i]
                m += 1
        if m > 0:
            time = max(time, _autocorrelation_time(values, after, c * window, m, sums))
        at = c * FIELDS
        out[at + N] = n
        out[at + M] = m
        out[at + TIME] = time
        out[at + STATISTIC] = 0.0
        out[at + MOVES] = 0.0
        if n > 0 and m > 0:
            low = min(before[c * reference], after[c * window])
            high = max(before[c * reference + n - 1], after[c * window + m - 1])
            out[at + MOVES] = 1.0 if low < high else 0.0
            out[at + STATISTIC] = _largest_gap(before, c * reference, n, after, c * window, m)
