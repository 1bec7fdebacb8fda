"""The adaptive random forest as a River classifier, and its fast interface over rows.

What it computes is told in `forest_kernels` (the ensemble), `hoeffding` (a tree), `hoeffding_leaf`
(what a leaf predicts), `hoeffding_split`, `adwin` and `logit_pool`; how it lies in memory in
`forest_layout`.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from river import base

from learners.adwin import used_size
from learners.forest_kernels import learn_event, predict
from learners.forest_layout import (
    DRIFT_DELTA,
    DRIFTS,
    FEATURES,
    HEAD_NUMBERS,
    RANDOM,
    VOTING,
    WARNING_DELTA,
    WARNINGS,
    WEIGHTS,
    Forest,
    allocate,
    view,
)
from learners.hoeffding import DELTA, GRACE, NODES, TAU, TRACKERS, per_leaf
from learners.hoeffding_leaf import TRACKER
from learners.splitmix import poisson_table

UNKNOWN_VOTES = (math.nan, math.nan)
_SMALL = ("head", "numbers", "pool", "members", "records", "counts")


class AdaptiveRandomForest(base.Classifier):
    """Adaptive random forest for two classes, of bounded size, in native code.

    Rows (`predict_row`, `learn_row`) and dicts (`predict_proba_one`, `learn_one`) reach the same
    trees: a dict's names get row positions as the stream shows them. NaN and None are missing
    values. A feature may first appear at any time: leaves that have room, new leaves and new trees
    take it up. Features beyond `max_columns` are ignored.

    The same trees also keep each leaf's mean return and stop rate, for whoever learns with them.

    Parameters
    ----------
    n_models
        Number of trees.
    grace_period
        Weight (an event weighs `rate` on average) a leaf takes in between two attempts to split.
    delta
        Chance, per attempt, that the Hoeffding bound does not hold.
    tau
        Bound below which the best features count as alike, and the leaf is split at the best one.
    rate
        Mean of the Poisson weight with which a tree learns an event.
    warning_delta, drift_delta
        Confidence of the ADWIN detectors that start a background tree and that swap it in.
    max_nodes
        Bound on a tree's nodes; at it the tree no longer splits.
    max_active_leaves
        Bound on a tree's leaves that still gather statistics for splits; the least promising are
        deactivated.
    max_columns
        Bound on the number of features; a leaf tracks no more than its square root and one.
    seed
        Of the generator behind weights and feature subsets.

    References
    ----------
    Gomes, H. M. et al. (2017). Adaptive random forests for evolving data stream classification.
    Machine Learning 106.

    Examples
    --------
    >>> from river.datasets import Phishing
    >>> forest = AdaptiveRandomForest(n_models=10, seed=1)
    >>> hits = 0
    >>> for x, y in Phishing():
    ...     hits += forest.predict_one(x) == y
    ...     forest.learn_one(x, y)
    >>> hits > 1120
    True
    """

    def __init__(
        self,
        n_models: int = 30,
        grace_period: int = 50,
        delta: float = 0.05,
        tau: float = 0.05,
        rate: float = 6.0,
        warning_delta: float = 0.01,
        drift_delta: float = 0.001,
        max_nodes: int = 255,
        max_active_leaves: int = 64,
        max_columns: int = 512,
        seed: int = 0,
    ) -> None:
        self.n_models = n_models
        self.grace_period = grace_period
        self.delta = delta
        self.tau = tau
        self.rate = rate
        self.warning_delta = warning_delta
        self.drift_delta = drift_delta
        self.max_nodes = max_nodes
        self.max_active_leaves = max_active_leaves
        self.max_columns = max_columns
        self.seed = seed
        self._words, self._numbers = allocate(n_models, max_nodes, max_active_leaves, max_columns)
        self._words[RANDOM] = seed
        self._numbers[[GRACE, DELTA, TAU]] = grace_period, delta, tau
        self._numbers[[WARNING_DELTA, DRIFT_DELTA]] = warning_delta, drift_delta
        self._numbers[WEIGHTS:HEAD_NUMBERS] = poisson_table(rate)
        self._row = np.full(max_columns, math.nan)
        self._row_buffer = self._row.data  # numpy takes a while to hand out a new one
        self._filled = 0
        self._features = 0
        self._name([])

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"n_models": 3}

    # Rows

    def predict_row(self, row: NDArray[np.float64]) -> tuple[float, float, float]:
        """Predict a win's probability, the expected return (percent) and the stop's probability.

        The latter two are NaN until a return, or a stop, was learned.
        """
        self._fill(row)
        p, expected, stop, _, _ = predict(self._words, self._numbers, self._row)
        return p, expected, stop

    def predict_with_votes(
        self, row: NDArray[np.float64]
    ) -> tuple[tuple[float, float, float], tuple[float, float]]:
        """Predict as `predict_row` does, with the votes to hand back when learning the outcome.

        They are the trees' mean probability and mean log odds. Where labels are late and trades
        overlap this matters: at the close the trees already know how concurrent trades ended, and
        what calibrates the forest would take that for skill.
        """
        self._fill(row)
        p, expected, stop, mean, mean_log_odds = predict(self._words, self._numbers, self._row)
        return (p, expected, stop), (mean, mean_log_odds)

    def predict_proba_row(self, row: NDArray[np.float64]) -> float:
        """Predict the probability of a win."""
        return self.predict_row(row)[0]

    def learn_row(
        self,
        row: NDArray[np.float64],
        won: bool,
        return_pct: float = math.nan,
        stopped: float = math.nan,
        votes: tuple[float, float] = UNKNOWN_VOTES,
    ) -> None:
        """Learn how one trade ended; a return or a stop (0 or 1) that is not known is NaN.

        `votes` are those `predict_with_votes` gave at the signal; without them the trees are asked
        again, now.
        """
        self._fill(row)
        if self._filled > self._features:
            self._words[FEATURES] = self._features = self._filled
        learn_event(
            self._words,
            self._numbers,
            self._row,
            1 if won else 0,
            float(return_pct),
            float(stopped),
            *votes,
        )

    def _fill(self, row: NDArray[np.float64]) -> None:
        """Copy `row` to where kernels read it: a foreign dtype or layout would recompile them."""
        n = min(len(row), self.max_columns)
        self._row[:n] = row[:n]
        if n < self._filled:
            self._row[n : self._filled] = math.nan
        self._filled = n

    # Dicts

    def learn_one(self, x: Mapping[base.typing.FeatureName, Any], y: base.typing.ClfTarget) -> None:
        """Learn features `x` with label `y`, which is true or false (1 or 0)."""
        if y not in (0, 1):
            raise ValueError(f"the forest tells true from false, got the label {y!r}")
        self._learn_dict(x, 1 if y else 0, math.nan)

    def _learn_dict(
        self, x: Mapping[base.typing.FeatureName, Any], won: int, return_pct: float
    ) -> None:
        """Learn a dict's outcome, giving positions to its new names."""
        if not self._encode(x):
            new = sorted(set(x).difference(self._names), key=str)
            self._name([*self._names, *new][: self.max_columns])
            self._encode(x)
        if self._filled > self._features:
            self._words[FEATURES] = self._features = self._filled
        learn_event(
            self._words, self._numbers, self._row, won, return_pct, math.nan, *UNKNOWN_VOTES
        )

    def predict_proba_one(
        self, x: Mapping[base.typing.FeatureName, Any], **kwargs: Any
    ) -> dict[base.typing.ClfTarget, float]:
        """Predict the probabilities of false and true; names never learned are ignored."""
        self._encode(x)
        p, _, _, _, _ = predict(self._words, self._numbers, self._row)
        return {False: 1.0 - p, True: p}

    def _expect(self, x: Mapping[base.typing.FeatureName, Any]) -> float:
        """Predict the return that a dict's features lead to, NaN before any was learned."""
        self._encode(x)
        expected: float = predict(self._words, self._numbers, self._row)[1]
        return expected

    def _name(self, names: list[base.typing.FeatureName]) -> None:
        """Give each name the row position it has in `names`."""
        self._names = names
        self._positions = {name: i for i, name in enumerate(names)}
        self._pack: Callable[..., None] = struct.Struct(f"{len(names)}d").pack_into
        self._values: Callable[[Mapping[base.typing.FeatureName, Any]], tuple[float, ...]]
        if len(names) > 1:
            self._values = itemgetter(*names)
        else:  # of one name an itemgetter gives the bare value
            self._values = lambda x: tuple(x[name] for name in names)

    def _encode(self, x: Mapping[base.typing.FeatureName, Any]) -> bool:
        """Write `x` to the row; false if it has a name that is new and that there is room for."""
        n = len(self._names)
        if len(x) == n and self._filled <= n:
            try:
                self._pack(self._row_buffer, 0, *self._values(x))
            except (KeyError, TypeError, struct.error):
                pass
            else:
                self._filled = n
                return True
        self._row[: max(n, self._filled)] = math.nan
        self._filled = n
        known = 0
        for name, value in x.items():
            at = self._positions.get(name)
            if at is not None:
                known += 1
                self._row[at] = _number(name, value)
        return known == len(x) or n == self.max_columns

    # State

    def state(self) -> dict[str, object]:
        """Copy all state as plain arrays: only the parts of the pools that are in use."""
        forest = self._view()
        slots = range(2 * self.n_models)
        nodes = forest.counts[:, NODES]
        trackers = forest.counts[:, TRACKERS]
        tracked = per_leaf(int(self._words[FEATURES]), forest.tracked.shape[2] - 1)
        return {
            "names": list(self._names),
            **{name: getattr(forest, name).copy() for name in _SMALL},
            "windows": forest.windows[..., : used_size(forest.windows)].copy(),
            "nodes": np.concatenate([forest.nodes[s, : nodes[s]] for s in slots]).astype(np.int32),
            "node_numbers": np.concatenate([forest.node_numbers[s, : nodes[s]] for s in slots]),
            "tracked": np.concatenate(
                [forest.tracked[s, : trackers[s], : 1 + tracked] for s in slots]
            ).astype(np.int32),
            "trackers": np.concatenate(
                [forest.trackers[s, : trackers[s], 1 : 1 + tracked, :TRACKER] for s in slots]
            ),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over what `state` gave, of a forest with the same bounds.

        Raises
        ------
        ValueError
            The state is of a forest with other bounds.
        """
        saved = cast(Mapping[str, NDArray[Any]], state)
        if not np.array_equal(saved["head"][:FEATURES], self._words[:FEATURES]):
            raise ValueError(
                f"the saved forest's bounds are {saved['head'][:FEATURES].tolist()}, "
                f"this one's {self._words[:FEATURES].tolist()}: build it with the same ones"
            )
        bounds = (self.n_models, self.max_nodes, self.max_active_leaves, self.max_columns)
        self._words, self._numbers = allocate(*bounds)
        forest = self._view()
        for name in _SMALL:
            getattr(forest, name)[:] = saved[name]
        forest.windows[..., : saved["windows"].shape[2]] = saved["windows"]
        tracked = saved["trackers"].shape[1]
        i = t = 0
        for s, (nodes, trackers) in enumerate(forest.counts.tolist()):
            forest.nodes[s, :nodes] = saved["nodes"][i : i + nodes]
            forest.node_numbers[s, :nodes] = saved["node_numbers"][i : i + nodes]
            forest.tracked[s, :trackers, : 1 + tracked] = saved["tracked"][t : t + trackers]
            forest.trackers[s, :trackers, 1 : 1 + tracked, :TRACKER] = saved["trackers"][
                t : t + trackers
            ]
            i += nodes
            t += trackers
        self._row[:] = math.nan
        self._filled = 0
        self._features = int(self._words[FEATURES])
        self._name(list(cast(list[base.typing.FeatureName], state["names"])))

    def __getstate__(self) -> dict[str, object]:
        return {"params": self._get_params(), "state": self.state()}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        AdaptiveRandomForest.__init__(self, **saved["params"])
        self.restore(saved["state"])

    # Looking inside

    @property
    def n_nodes(self) -> int:
        """Nodes of the trees that vote."""
        forest = self._view()
        return int(forest.counts[forest.members[:, VOTING], NODES].sum())

    @property
    def n_warnings(self) -> int:
        """Background trees started so far."""
        return int(self._view().members[:, WARNINGS].sum())

    @property
    def n_drifts(self) -> int:
        """Trees replaced so far."""
        return int(self._view().members[:, DRIFTS].sum())

    def _view(self) -> Forest:
        """Views of the arrays."""
        return view(self._words, self._numbers)


class AdaptiveRandomForestReturns(base.Regressor):
    """The mean returns that a forest keeps in its leaves, as a River regressor.

    It shares the trees of `forest`, which split on whether the return was above zero: what one
    learns the other knows.

    Parameters
    ----------
    forest
        The forest to look at; one of its own with default settings if None.

    Examples
    --------
    >>> returns = AdaptiveRandomForestReturns(AdaptiveRandomForest(n_models=5, seed=1))
    >>> for k in range(500):
    ...     returns.learn_one({"side": k % 2}, 2.0 if k % 2 else -1.0)
    >>> [round(returns.predict_one({"side": side})) for side in (0, 1)]
    [-1, 2]
    """

    def __init__(self, forest: AdaptiveRandomForest | None = None) -> None:
        self.forest = forest
        self._forest = forest if forest is not None else AdaptiveRandomForest()

    def learn_one(self, x: Mapping[base.typing.FeatureName, Any], y: base.typing.RegTarget) -> None:
        """Learn features `x` with the return `y`."""
        self._forest._learn_dict(x, 1 if y > 0 else 0, float(y))

    def predict_one(self, x: Mapping[base.typing.FeatureName, Any]) -> base.typing.RegTarget:
        """Predict the return, 0 before any was learned; names never learned are ignored."""
        expected = self._forest._expect(x)
        return 0.0 if math.isnan(expected) else expected


def _number(name: base.typing.FeatureName, value: object) -> float:
    """Value of a feature: NaN for None; text has to be encoded before."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        raise TypeError(f"feature {name!r} is the text {value!r}: encode it, e.g. one-hot")
    return float(cast(float, value))


def warm_up() -> None:
    """Compile the kernels, or load them from the cache, so that no event has to wait for it."""
    forest = AdaptiveRandomForest(n_models=1, max_nodes=3, max_active_leaves=2, max_columns=1)
    row = np.zeros(1)
    forest.learn_row(row, True)
    forest.predict_row(row)
