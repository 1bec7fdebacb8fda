"""How each tree of a forest came to its vote on a row: the splits passed, and what each changed.

Every node keeps the class weights of all that passed it, so the probability moves at each split
from the node's base rate to the child's. The last step, inside the leaf, is the naive Bayes model
over the features that the leaf tracks. Summed along the path these changes lead from the tree's
base rate to its vote: Saabas's decomposition (2014), of the path really taken, no Shapley values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from learners.forest_layout import VOTE, VOTING
from learners.hoeffding import (
    BASE_LOSS,
    BAYES_LOSS,
    CUT,
    FEATURE,
    LEFT,
    LOST,
    NODES,
    NONE,
    TRACKED,
    TRACKERS,
    WON,
)
from learners.hoeffding_leaf import base_rate, mixed, naive_bayes
from learners.native import Floats, Ints


@dataclass(frozen=True, slots=True)
class Step:
    """A split on the way: `change` is what it did to the probability."""

    column: int
    threshold: float
    went_left: bool
    missing: bool
    change: float


@dataclass(frozen=True, slots=True)
class TreePath:
    """One tree's way to its vote.

    Parameters
    ----------
    weight
        Of its vote; over all trees they sum to 1.
    base_rate
        At the root.
    steps
        From the root down.
    leaf_change
        What the naive Bayes model in the leaf added.
    probability
        Its vote: the base rate, and all changes.
    """

    weight: float
    base_rate: float
    steps: tuple[Step, ...]
    leaf_change: float
    probability: float


@dataclass(frozen=True, slots=True)
class ColumnOnPaths:
    """What a column did over all trees, weighted like their votes."""

    column: int
    times: int
    change: float


def paths(state: Mapping[str, object], row: NDArray[np.float64]) -> list[TreePath]:
    """The way of each tree that votes on `row`, from `AdaptiveRandomForest.state`.

    A forest that learned nothing yet has none.
    """
    saved = cast(Mapping[str, NDArray[np.float64]], state)
    counts = cast(Ints, state["counts"])
    members = cast(Ints, state["members"])
    nodes = np.cumsum([0, *counts[:, NODES]])
    trackers = np.cumsum([0, *counts[:, TRACKERS]])
    columns = cast(Ints, state["nodes"])[:, FEATURE]
    needed = int(max(columns.max(initial=0), cast(Ints, state["tracked"]).max(initial=0))) + 1
    padded = np.full(max(needed, len(row)), np.nan)
    padded[: len(row)] = row
    votes = saved["records"][:, VOTE]
    found = []
    for slot, vote in zip(members[:, VOTING], votes / max(votes.sum(), 1e-300), strict=True):
        if counts[slot, NODES]:
            own, tracked = slice(*nodes[slot : slot + 2]), slice(*trackers[slot : slot + 2])
            found.append(
                _path(
                    cast(Ints, state["nodes"])[own],
                    saved["node_numbers"][own],
                    cast(Ints, state["tracked"])[tracked].astype(np.int64),
                    saved["trackers"][tracked],
                    padded,
                    float(vote),
                )
            )
    return found


def by_column(found: Sequence[TreePath]) -> list[ColumnOnPaths]:
    """Columns by how often they are on the paths, with the mean change of the trees' votes."""
    times: dict[int, int] = {}
    changes: dict[int, float] = {}
    for path in found:
        for step in path.steps:
            times[step.column] = times.get(step.column, 0) + 1
            changes[step.column] = changes.get(step.column, 0.0) + path.weight * step.change
    ranked = sorted(times, key=lambda column: (-times[column], column))
    return [ColumnOnPaths(column, times[column], changes[column]) for column in ranked]


def _path(
    nodes: Ints, numbers: Floats, tracked: Ints, trackers: Floats, row: Floats, weight: float
) -> TreePath:
    at = 0
    start = before = _base_rate(numbers[at])
    steps = []
    while (column := int(nodes[at, FEATURE])) != NONE:
        x, cut, left = row[column], float(numbers[at, CUT]), int(nodes[at, LEFT])
        missing = bool(np.isnan(x))
        if missing:  # goes where more weight went
            sides = numbers[left : left + 2, [LOST, WON]].sum(axis=1)
            went_left = bool(sides[0] >= sides[1])
        else:
            went_left = bool(x <= cut)
        at = left if went_left else left + 1
        after = _base_rate(numbers[at])
        steps.append(Step(column, cut, went_left, missing, after - before))
        before = after
    leaf = numbers[at]
    t = int(nodes[at, TRACKED])
    vote = before
    if t != NONE:
        bayes = naive_bayes(
            tracked[t], np.ascontiguousarray(trackers[t]), row, float(leaf[LOST]), float(leaf[WON])
        )
        vote = mixed(before, bayes, float(leaf[BASE_LOSS]), float(leaf[BAYES_LOSS]))
    return TreePath(weight, start, tuple(steps), vote - before, vote)


def _base_rate(node: Floats) -> float:
    return float(base_rate(float(node[LOST]), float(node[WON])))
