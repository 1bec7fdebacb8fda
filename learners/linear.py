"""Logistic regression on standardised features, learned one close at a time, compiled.

It is River's ``StandardScaler() | LogisticRegression()`` on rows: the scaler takes in a row before
it scales it, and a value that is missing (NaN) neither counts nor contributes. Running means and
variances are Welford's; the weights follow stochastic gradient descent on the log loss.
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

# The buffer: numbers of the model, then for each column what is known of it.
_CLOSES, _INTERCEPT, _COLUMNS, _RATE, _INTERCEPT_RATE, _L2 = range(6)
_HEAD = 6
_COUNT, _MEAN, _VARIANCE, _WEIGHT, _SCALED = range(5)
_KEPT, _PER_COLUMN = 4, 5  # `_SCALED` is only for the row in hand


@compiled
def _sigmoid(z: float) -> float:
    """River's: certain beyond 30."""
    if z < -30.0:
        return 0.0
    if z > 30.0:
        return 1.0
    return 1.0 / (1.0 + math.exp(-z))


@compiled
def _slope(z: float) -> float:
    """Derivative of the log loss in `z`, the log odds of what happened; River's cuts at 18."""
    if z > 18.0:
        return -math.exp(-z)
    if z < -18.0:
        return -1.0
    return -1.0 / (math.exp(z) + 1.0)


@entry(NUMBER, BUFFER, READ_ONLY)
def _predict(model: Floats, row: Floats) -> float:
    """The win probability of `row`."""
    table = model[_HEAD:].reshape((-1, _PER_COLUMN))
    z = 0.0
    for i in range(min(row.size, int(model[_COLUMNS]))):
        x = row[i]
        variance = table[i, _VARIANCE]
        if x == x and variance > 0.0:
            z += table[i, _WEIGHT] * ((x - table[i, _MEAN]) / math.sqrt(variance))
    return _sigmoid(z + model[_INTERCEPT])


@entry(NOTHING, BUFFER, READ_ONLY, INTEGER)
def _learn(model: Floats, row: Floats, won: int) -> None:
    """Take in one close."""
    table = model[_HEAD:].reshape((-1, _PER_COLUMN))
    columns = min(row.size, table.shape[0])
    model[_COLUMNS] = max(model[_COLUMNS], columns)
    model[_CLOSES] += 1.0
    z = 0.0
    for i in range(columns):
        x = row[i]
        if x == x:
            count = table[i, _COUNT] + 1.0
            before = table[i, _MEAN]
            mean = before + (x - before) / count
            variance = table[i, _VARIANCE]
            variance += ((x - before) * (x - mean) - variance) / count
            scaled = (x - mean) / math.sqrt(variance) if variance > 0.0 else 0.0
            table[i, _COUNT] = count
            table[i, _MEAN] = mean
            table[i, _VARIANCE] = variance
            table[i, _SCALED] = scaled
            z += table[i, _WEIGHT] * scaled
    sign = 1.0 if won else -1.0
    slope = sign * _slope(sign * (z + model[_INTERCEPT]))
    model[_INTERCEPT] -= model[_INTERCEPT_RATE] * slope
    for i in range(columns):
        if row[i] == row[i]:
            weight = table[i, _WEIGHT]
            table[i, _WEIGHT] -= model[_RATE] * (slope * table[i, _SCALED] + model[_L2] * weight)


class Logistic(Classifier):
    """Logistic regression on standardised features, in native code and bounded memory.

    Rows (`predict_proba_row`, `learn_row`) are one-dimensional contiguous float64 arrays, read-only
    or not, and may get longer; dicts reach the same weights by columns of their own. Tests hold it
    to River's but for the last bits: sums run in the order of the columns.

    Parameters
    ----------
    l2
        Strength of the penalty on the weights of the features that are present.
    intercept_lr
        Learning rate of the intercept.
    lr
        Learning rate of the weights.
    max_columns
        Columns past this many are ignored.
    """

    def __init__(
        self,
        l2: float = 0.0,
        intercept_lr: float = 0.01,
        lr: float = 0.01,
        max_columns: int = 512,
    ) -> None:
        self.l2 = l2
        self.intercept_lr = intercept_lr
        self.lr = lr
        self.max_columns = max_columns
        self._model = np.zeros(_HEAD + max_columns * _PER_COLUMN)
        self._model[[_RATE, _INTERCEPT_RATE, _L2]] = lr, intercept_lr, l2
        self._named = NamedRows(max_columns)
        ready(_predict, _learn)

    @property
    def closes(self) -> int:
        """Closes learned so far."""
        return int(self._model[_CLOSES])

    def predict_proba_row(self, row: NDArray[np.float64]) -> float:
        """The win probability."""
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

    def terms(self, row: NDArray[np.float64]) -> tuple[list[float], float]:
        """What each column of `row` adds to the log odds, weight times scaled value; the intercept.

        Summed in that order they are the log odds of `predict_proba_row`.
        """
        known = min(len(row), int(self._model[_COLUMNS]))
        x, table = row[:known], self._table()[:known]
        there = ~np.isnan(x) & (table[:, _VARIANCE] > 0.0)
        spread = np.sqrt(np.where(there, table[:, _VARIANCE], 1.0))
        terms = np.where(there, table[:, _WEIGHT] * ((x - table[:, _MEAN]) / spread), 0.0)
        return terms.tolist(), float(self._model[_INTERCEPT])

    def state(self) -> dict[str, object]:
        """All that `restore` needs; `table` has shape (columns, 4).

        Its last axis is count, mean, variance and weight.
        """
        columns = int(self._model[_COLUMNS])
        return {
            "closes": self.closes,
            "intercept": float(self._model[_INTERCEPT]),
            "table": self._table()[:columns, :_KEPT].copy(),
            "names": self._named.names,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one, of the same parameters, whose `state` this is."""
        saved = cast(NDArray[np.float64], state["table"])
        self._model[_CLOSES] = cast(int, state["closes"])
        self._model[_INTERCEPT] = cast(float, state["intercept"])
        self._model[_COLUMNS] = len(saved)
        table = self._table()
        table[:] = 0.0
        table[: len(saved), :_KEPT] = saved
        self._named.names = list(cast(list[Hashable], state["names"]))

    def _table(self) -> NDArray[np.float64]:
        return self._model[_HEAD:].reshape(-1, _PER_COLUMN)
