"""Gaussian naive Bayes, learned one close at a time, compiled.

It is River's ``GaussianNB()`` on rows: each class has one Gaussian a column, with the population's
variance; a value that is missing (NaN) neither counts nor votes. A small constant added to each
density bounds what one value can say, and is all that a Gaussian says that has no variance yet.
"""

import math
from collections.abc import Hashable, Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray
from river.base import Classifier
from river.base.typing import ClfTarget

from drift.native import BUFFER, INTEGER, NOTHING, NUMBER, READ_ONLY, Floats, compiled, entry, ready
from learners.named_rows import NamedRows

# The buffer: closes by class and columns so far, then for each column and class its Gaussian.
_LOST, _WON, _COLUMNS = range(3)
_HEAD = 3
_COUNT, _MEAN, _SQUARES = range(3)  # of squares: the sum of squared distances from the mean
_PER_CLASS = 3
_FLOOR = 1e-9
_ROOT_TAU = math.sqrt(2.0 * math.pi)


@compiled
def _density(x: float, count: float, mean: float, squares: float) -> float:
    """Floored density of `x`."""
    if squares <= 0.0:
        return _FLOOR
    sigma = math.sqrt(squares / count)
    z = (x - mean) / sigma
    return _FLOOR + math.exp(-0.5 * z * z) / _ROOT_TAU / sigma


@entry(NUMBER, BUFFER, READ_ONLY)
def _predict(model: Floats, row: Floats) -> float:
    """The win probability of `row`."""
    lost = model[_LOST]
    won = model[_WON]
    if lost == 0.0 or won == 0.0:
        return 0.5 if lost == won else won / (lost + won)
    table = model[_HEAD:].reshape((-1, 2, _PER_CLASS))
    log_odds = math.log(won / lost)
    for i in range(min(row.size, int(model[_COLUMNS]))):
        x = row[i]
        if x == x:
            g = table[i, 0]
            loss = _density(x, g[_COUNT], g[_MEAN], g[_SQUARES])
            g = table[i, 1]
            win = _density(x, g[_COUNT], g[_MEAN], g[_SQUARES])
            log_odds += math.log(win / loss)
    return 1.0 / (1.0 + math.exp(-log_odds))


@entry(NOTHING, BUFFER, READ_ONLY, INTEGER)
def _learn(model: Floats, row: Floats, won: int) -> None:
    """Take in one close."""
    table = model[_HEAD:].reshape((-1, 2, _PER_CLASS))
    columns = min(row.size, table.shape[0])
    model[_COLUMNS] = max(model[_COLUMNS], columns)
    model[_LOST + won] += 1.0
    for i in range(columns):
        x = row[i]
        if x == x:
            g = table[i, won]
            before = g[_MEAN]
            g[_COUNT] += 1.0
            g[_MEAN] += 1.0 / g[_COUNT] * (x - before)
            g[_SQUARES] += (x - before) * (x - g[_MEAN])


class GaussianBayes(Classifier):
    """Gaussian naive Bayes over two classes, in native code and bounded memory.

    Rows (`predict_proba_row`, `learn_row`) are one-dimensional contiguous float64 arrays, read-only
    or not, and may get longer; dicts reach the same Gaussians by columns of their own. Tests hold
    it to River's but for the last bits: sums run in the order of the columns.

    Parameters
    ----------
    max_columns
        Columns past this many are ignored.
    """

    def __init__(self, max_columns: int = 512) -> None:
        self.max_columns = max_columns
        self._model = np.zeros(_HEAD + max_columns * 2 * _PER_CLASS)
        self._named = NamedRows(max_columns)
        ready(_predict, _learn)

    @property
    def closes(self) -> tuple[int, int]:
        """Losses and wins learned so far."""
        return int(self._model[_LOST]), int(self._model[_WON])

    def predict_proba_row(self, row: NDArray[np.float64]) -> float:
        """The win probability; 1/2 before the first close."""
        return _predict(self._model, row)

    def learn_row(self, row: NDArray[np.float64], won: bool) -> None:
        """Take in one close."""
        _learn(self._model, row, won)

    def predict_proba_one(self, x: Mapping[Hashable, float], **_: object) -> dict[ClfTarget, float]:
        """The probabilities of False and True; names never learned are ignored."""
        p = _predict(self._model, self._named.row(x))
        return {False: 1.0 - p, True: p}

    def learn_one(self, x: Mapping[Hashable, float], y: ClfTarget) -> None:
        """Take in one close."""
        self._named.learn(x)
        _learn(self._model, self._named.row(x), bool(y))

    def state(self) -> dict[str, object]:
        """All that `restore` needs; `table` has shape (columns, 2, 3).

        Its last axis is count, mean and the sum of squared distances from the mean.
        """
        columns = int(self._model[_COLUMNS])
        return {
            "closes": list(self.closes),
            "table": self._table()[:columns].copy(),
            "names": self._named.names,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one, of the same parameters, whose `state` this is."""
        saved = cast(NDArray[np.float64], state["table"])
        self._model[[_LOST, _WON]] = cast(list[int], state["closes"])
        self._model[_COLUMNS] = len(saved)
        table = self._table()
        table[:] = 0.0
        table[: len(saved)] = saved
        self._named.names = list(cast(list[Hashable], state["names"]))

    def _table(self) -> NDArray[np.float64]:
        return self._model[_HEAD:].reshape(-1, 2, _PER_CLASS)
