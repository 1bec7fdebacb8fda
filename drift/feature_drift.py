r"""Feature drift: which features moved between the signals of late and those just before them.

Every `every` signals the newest `window` are held against `reference` signals before them, with
`every` signals left out in between. So any sudden change lies between the two at one check, which
sees it whole. The reference slides along: what is told has moved *lately*, and a lasting change is
told of while it passes through, not for ever after.

- Numbers: the two-sample Kolmogorov-Smirnov statistic, p-value by its limit distribution with
  Stephens' (1970) correction. Values that are missing are left out.
- Categories: the population stability index of their shares. Where nothing moved, it is about
  chi-square once scaled (Yurdakul and Naranjo 2020, *J. Risk Model Validation* 14:4). Below
  `LEAST_PSI`, where practice sees no change, it isn't told.

Signals resemble those before them, and tests for independent ones would alarm always. So samples
count as the number of independent values that they are worth (see `drift.two_samples`). A feature
that wanders so slowly that a window is worth fewer than `LEAST` isn't judged: it moves always.

Over all features the false discovery rate is held at `level` (Benjamini and Hochberg 1995).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, kolmogorov

from drift.native import ready
from drift.two_samples import FIELDS, TIME, compare

LEAST = 20.0
"""Independent values that a window must be worth."""
LEAST_PSI = 0.1
LEAST_SHARE = 5.0
"""Independent signals that a category must be worth; rarer ones are one category together."""

_CATEGORY = re.compile(r"((?:\\.|[^\\=])+)=")


@dataclass(frozen=True, slots=True)
class Moved:
    """A feature whose distribution has moved."""

    name: str
    """A number's column; a category's columns without ``=value``."""
    test: Literal["ks", "psi"]
    statistic: float
    """The largest gap between the two distribution functions; the population stability index."""
    p_value: float
    """Adjusted for the number of features."""


@dataclass(frozen=True, slots=True)
class Health:
    """Features of the bots' own that say nothing, by name."""

    missing: tuple[str, ...]
    """Without a value in the newest window."""
    constant: tuple[str, ...]
    """One value throughout all that is remembered."""
    stale: tuple[str, ...]
    """One value throughout the newest window, others before it."""


class FeatureDrift:
    """Watches the rows of signals for features that move.

    Parameters
    ----------
    reference, window
        Signals in the older and in the newer window.
    every
        Signals between checks, and between the windows.
    level
        The false discovery rate: as long as nothing moves, the chance that a check tells anything.
    top
        Of what has moved, at most this many are told, the surest first.
    """

    def __init__(
        self,
        reference: int = 1000,
        window: int = 500,
        every: int = 500,
        level: float = 0.01,
        top: int = 5,
    ) -> None:
        self.reference = reference
        self.window = window
        self.every = every
        self.level = level
        self.top = top
        self._seen = 0
        self._columns = 0
        self._rows = np.full((reference + every + window, 64), np.nan)  # a ring, by `_seen`
        ready(compare)

    def update(self, row: NDArray[np.float64], names: Sequence[str]) -> list[Moved]:
        """Take in the row of one signal; returns what moved when a check is due and finds it.

        Parameters
        ----------
        row
            The encoder's, of shape (columns so far,); NaN is missing.
        names
            Its columns' names, as the encoder writes them. Read only by checks.
        """
        rows = self._rows
        columns = len(row)
        if columns > self._columns:
            if columns > rows.shape[1]:
                rows = np.full((len(rows), 2 * columns), np.nan)
                rows[:, : self._columns] = self._rows[:, : self._columns]
                self._rows = rows
            self._columns = columns
        slot = rows[self._seen % len(rows)]
        slot[:columns] = row
        if columns < self._columns:
            slot[columns:] = np.nan
        self._seen += 1
        if self._seen % self.every or self._seen < len(rows):
            return []
        return self._check(names)

    def health(self, names: Sequence[str]) -> Health:
        """Which features say nothing; none before a whole window has been seen.

        `names` are the columns' names, at least as many as the longest row had.
        """
        if self._seen < self.window:
            return Health((), (), ())
        rows = self._in_order()
        newest = rows[-self.window :]
        missing, constant, stale = [], [], []
        for name, group in _features(names[: self._columns]).items():
            if name.startswith("@"):
                continue
            if np.isnan(newest[:, group]).all():
                missing.append(name)
            elif _still(rows[:, group]):
                constant.append(name)
            elif _still(newest[:, group]):
                stale.append(name)
        return Health(tuple(missing), tuple(constant), tuple(stale))

    def state(self) -> dict[str, object]:
        """All that `restore` needs; `rows` has shape (signals, columns), the oldest first."""
        return {"seen": self._seen, "rows": self._in_order()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one whose `state` this is."""
        rows = cast(NDArray[np.float64], state["rows"])
        self._seen = cast(int, state["seen"])
        self._columns = rows.shape[1]
        self._rows = np.full((len(self._rows), max(64, self._columns)), np.nan)
        places = np.arange(self._seen - len(rows), self._seen) % len(self._rows)
        self._rows[places, : self._columns] = rows

    def _in_order(self) -> NDArray[np.float64]:
        """The rows that are kept, the oldest first; those that never were are all missing."""
        rows = self._rows[:, : self._columns]
        at = self._seen % len(rows)
        return np.concatenate((rows[at:], rows[:at]))

    def _check(self, names: Sequence[str]) -> list[Moved]:
        # Our own numbers aren't judged: the time of day and how the closes went. Our own
        # categories are.
        judged = [c for c in range(self._columns) if names[c][:1] != "@" or "=" in names[c]]
        if not judged:
            return []
        names = [names[c] for c in judged]
        older = np.arange(self._seen, self._seen + self.reference)
        newer = np.arange(self._seen - self.window, self._seen)
        rows = self._rows[np.concatenate((older, newer)) % len(self._rows)]
        columns = rows.T[judged]
        before = np.sort(columns[:, : self.reference])
        after = np.sort(columns[:, self.reference :])
        found = np.empty((len(judged), FIELDS))
        longest = max(self.reference, self.window) + 1
        compare(
            columns.ravel(),
            before.ravel(),
            after.ravel(),
            len(judged),
            self.reference,
            self.window,
            np.empty(longest),
            np.empty(longest, np.int64),
            found.ravel(),
        )
        tested = []
        for name, group in _features(names).items():
            if name == names[group[0]]:
                result = _gap(name, found[group[0]])
            else:
                result = self._stability(name, columns[group], float(found[group, TIME].max()))
            if result is not None:
                tested.append(result)
        if not tested:
            return []
        adjusted = _false_discovery_adjusted([moved.p_value for moved in tested])
        moved = [
            Moved(one.name, one.test, one.statistic, p)
            for one, p in zip(tested, adjusted, strict=True)
            if p <= self.level and (one.test == "ks" or one.statistic >= LEAST_PSI)
        ]
        return sorted(moved, key=lambda one: (one.p_value, -one.statistic))[: self.top]

    def _stability(self, name: str, columns: NDArray[np.float64], time: float) -> Moved | None:
        """The population stability index of a category; None when too little is known."""
        missing = np.isnan(columns)
        known: NDArray[np.bool_] = ~np.all(missing, axis=0)
        n, m = int(known[: self.reference].sum()), int(known[self.reference :].sum())
        if min(n, m) < LEAST * time:
            return None
        there = np.where(missing, 0.0, columns)
        counts = np.stack(
            (
                there[:, : self.reference].sum(axis=1),
                there[:, self.reference :].sum(axis=1),
            )
        )
        # A value left without a column is all zeros: it belongs to the rest.
        expected = counts.sum(axis=0) * (min(n, m) / (n + m) / time)
        common = counts[:, expected >= LEAST_SHARE]
        rest = np.array([n, m]) - common.sum(axis=1)
        if rest.sum() > 0:
            common = np.column_stack((common, rest))
        kinds = common.shape[1]
        if kinds < 2:
            return None
        # Half a signal more of each, so that no share is 0.
        shares = (common + 0.5) / (np.array([[n], [m]]) + 0.5 * kinds)
        psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
        return Moved(name, "psi", psi, float(chdtrc(kinds - 1, psi / (time / n + time / m))))


def _gap(name: str, found: NDArray[np.float64]) -> Moved | None:
    """The Kolmogorov-Smirnov test of a number; None when too little is known."""
    n, m, statistic, time, moves = cast(list[float], found.tolist())
    if not moves or min(n, m) < LEAST * time:
        return None
    root = (n * m / (n + m) / time) ** 0.5
    return Moved(name, "ks", statistic, float(kolmogorov((root + 0.12 + 0.11 / root) * statistic)))


def _still(columns: NDArray[np.float64]) -> bool:
    """Whether no column holds two values."""
    low = np.where(np.isnan(columns), np.inf, columns).min(axis=0)
    high = np.where(np.isnan(columns), -np.inf, columns).max(axis=0)
    return bool((low >= high).all())


def _features(names: Sequence[str]) -> dict[str, list[int]]:
    """The columns of each feature: one of a number, as many as it has values of a category."""
    features: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        category = _CATEGORY.match(name)
        features.setdefault(category[1] if category else name, []).append(column)
    return features


def _false_discovery_adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values, as of `scipy.stats.false_discovery_control`.

    That one isn't used: to import it takes as long as all else at a worker's start.
    """
    p = np.array(p_values)
    falling = np.argsort(-p, kind="stable")
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[falling] = np.minimum.accumulate(np.minimum(p[falling] * len(p) / ranks, 1.0))
    return adjusted.tolist()
