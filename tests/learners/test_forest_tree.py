"""One tree: held to River's in River's semantics, and to its own bounds."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.tree import HoeffdingTreeClassifier
from river.tree.nodes.branch import NumericBinaryBranch
from river.tree.split_criterion import InfoGainSplitCriterion
from river.tree.splitter import GaussianSplitter

from learners import forest_layout as layout
from learners import hoeffding as ht
from learners.hoeffding_leaf import FIELDS, TRACKER, naive_bayes, observe
from learners.hoeffding_split import (
    GAIN,
    LANES,
    PROPOSAL,
    SLACK,
    THRESHOLD,
    entropy,
    propose,
    rough_gain,
)
from learners.splitmix import MOST, poisson, poisson_table, uniform

Rows = np.ndarray


def a_tree(nodes: int, trackers: int, features: int) -> ht.Tree:
    words, numbers = layout.allocate(1, nodes, trackers, 400)
    tree = layout.tree_at(layout.view(words, numbers), 0)
    ht.plant(tree, features, np.ones(1, np.int64))
    return tree


def grow(
    tree: ht.Tree,
    rows: Rows,
    labels: Rows,
    weights: Rows,
    *,
    grace: int = 50,
    delta: float = 0.01,
    tau: float = 0.05,
) -> None:
    settings_ = np.zeros(ht.SETTINGS_AND_ROOM)
    settings_[[ht.GRACE, ht.DELTA, ht.TAU]] = grace, delta, tau
    for row, won, weight in zip(rows, labels, weights, strict=True):
        # The same draws each time: leaves track their features in one order. Ties go to the first.
        random = np.ones(1, np.int64)
        i = ht.walk(tree, row, int(won), float(weight))
        base, bayes, _ = ht.votes(tree, i, row)
        ht.learn(
            tree, i, row, base, bayes, int(won), float(weight), settings_, rows.shape[1], random
        )


def splits(tree: ht.Tree, i: int = 0) -> list[tuple[int, float]]:
    """Feature and cut of every inner node, in preorder."""
    if tree.nodes[i, ht.FEATURE] == ht.NONE:
        return []
    left = int(tree.nodes[i, ht.LEFT])
    here = (int(tree.nodes[i, ht.FEATURE]), float(tree.numbers[i, ht.CUT]))
    return [here, *splits(tree, left), *splits(tree, left + 1)]


def rivers_splits(node: object) -> list[tuple[int, float]]:
    if not isinstance(node, NumericBinaryBranch):
        return []
    left, right = node.children
    return [(node.feature, node.threshold), *rivers_splits(left), *rivers_splits(right)]


def steps(rng: np.random.Generator, n: int) -> tuple[Rows, Rows]:
    """Two features with steps and noise."""
    rows = rng.normal(size=(n, 2))
    wins = (rows[:, 0] > 0.3) ^ (rows[:, 1] > -0.2) ^ (rng.random(n) < 0.05)
    return rows, wins.astype(int)


@pytest.mark.parametrize("seed", range(2))
def test_a_tree_splits_where_rivers_does_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = steps(rng, 2000)
    weights = rng.poisson(6.0, len(rows)) + 1.0
    # A leaf tracks int(sqrt(2)) + 1 of its features: both.
    tree = a_tree(2001, 1001, features=2)
    river = HoeffdingTreeClassifier(grace_period=50, delta=0.01, tau=0.05, max_share_to_split=1.0)
    grow(tree, rows, labels, weights)
    for row, won, weight in zip(rows, labels, weights, strict=True):
        river.learn_one(dict(enumerate(row)), int(won), w=weight)
    assert len(splits(tree)) > 10
    assert splits(tree) == rivers_splits(river._root)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e6), n=st.integers(5, 80))
def test_a_split_proposal_equals_rivers_to_the_last_bit(seed: int, scale: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    splitter = GaussianSplitter()
    trackers = np.zeros((2, FIELDS))
    tracked = np.array([1, 0])
    totals = [0.0, 0.0]
    for won in rng.integers(0, 2, n).tolist():
        x, weight = rng.normal(won, 1.0) * scale, float(rng.poisson(6.0) + 1)
        splitter.update(x, won, weight)
        observe(tracked, trackers, np.array([x]), won, weight)
        totals[won] += weight
    theirs = splitter.best_evaluated_split_suggestion(
        InfoGainSplitCriterion(0.01), {0: totals[0], 1: totals[1]}, 0, True
    )
    ours = np.zeros(PROPOSAL)
    rough = np.zeros(LANES)
    roughly = rough_gain(trackers[1], rough)
    propose(trackers[1], entropy(*totals), rough, -math.inf, ours)
    assert ours[GAIN] == pytest.approx(theirs.merit, rel=1e-12, abs=1e-15)
    if theirs.merit > -math.inf:
        assert ours[THRESHOLD] == theirs.split_info
        assert not abs(entropy(*totals) + roughly - ours[GAIN]) > SLACK  # or NaN: it can't tell
        few = np.zeros(PROPOSAL)
        propose(trackers[1], entropy(*totals), rough, roughly - 2.0 * SLACK, few)
        assert np.array_equal(few, ours)
    else:
        assert roughly == -math.inf or math.isnan(roughly)


def test_naive_bayes_is_bayes_rule_on_plenty_of_data() -> None:
    rng = np.random.default_rng(0)
    tracked = np.array([2, 0, 1])
    trackers = np.zeros((3, FIELDS))
    counts = [0.0, 0.0]
    for _ in range(20_000):
        won = int(rng.random() < 0.3)
        counts[won] += 1
        observe(tracked, trackers, rng.normal([won, 2 * won], [1.0, 1.0 + won]), won, 1.0)
    row = np.array([0.4, 1.1])
    like = [
        share
        * math.exp(-0.5 * (row[0] - won) ** 2)
        * math.exp(-0.5 * ((row[1] - 2 * won) / (1 + won)) ** 2)
        / (1 + won)
        for won, share in ((0, 0.7), (1, 0.3))
    ]
    expected = like[1] / sum(like)
    assert naive_bayes(tracked, trackers[1:, :TRACKER], row, *counts) == pytest.approx(
        expected, abs=0.02
    )


def test_naive_bayes_survives_constant_and_missing_and_huge_values() -> None:
    tracked = np.array([3, 0, 1, 2])
    trackers = np.zeros((4, FIELDS))
    for k in range(40):
        observe(tracked, trackers, np.array([5.7, k % 2, math.nan]), k % 2, 6.0)
    for value in (5.7, 5.8, 1e300, math.inf, -math.inf, math.nan):
        p = naive_bayes(tracked, trackers[1:, :TRACKER], np.full(3, value), 120.0, 120.0)
        assert 0.0 < p < 1.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), nodes=st.sampled_from([1, 3, 9, 31]))
def test_no_tree_outgrows_its_bounds(seed: int, nodes: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = steps(rng, 1200)
    tree = a_tree(nodes, 2, features=2)
    grow(tree, rows, labels, np.full(len(rows), 6.0))
    used = int(tree.counts[ht.NODES])
    assert used <= nodes
    taken = [int(t) for t in tree.nodes[:used, ht.TRACKED] if t != ht.NONE]
    assert len(taken) == len(set(taken)) <= 2
    assert all(tree.nodes[i, ht.FEATURE] == ht.NONE for i in range(used) if tree.nodes[i, 2] >= 0)


def test_at_the_bound_the_least_promising_leaf_gives_way() -> None:
    rng = np.random.default_rng(5)
    # Left of zero everything loses: nothing to learn. Right of it a second step is to be found.
    rows = rng.uniform(-1, 1, size=(6000, 2))
    labels = ((rows[:, 0] > 0) & ((rows[:, 1] > 0) ^ (rng.random(6000) < 0.1))).astype(int)
    tree = a_tree(101, 2, features=2)
    grow(tree, rows, labels, np.full(len(rows), 6.0))
    inactive = ht.find(tree, np.array([-0.5, 0.0]))
    assert tree.nodes[inactive, ht.TRACKED] == ht.NONE
    promises = {
        i: min(tree.numbers[i, ht.LOST], tree.numbers[i, ht.WON])
        for i in range(int(tree.counts[ht.NODES]))
        if tree.nodes[i, ht.FEATURE] == ht.NONE
    }
    active = [p for i, p in promises.items() if tree.nodes[i, ht.TRACKED] != ht.NONE]
    assert len(active) == 2
    assert promises[inactive] < min(active)


def test_a_deactivated_leaf_that_becomes_promising_is_activated_again() -> None:
    rng = np.random.default_rng(6)
    rows = rng.uniform(-1, 1, size=(4000, 2))
    labels = ((rows[:, 0] > 0) & (rng.random(4000) < 0.5)).astype(int)
    tree = a_tree(3, 1, features=2)
    grow(tree, rows, labels, np.full(4000, 6.0))
    quiet = np.array([-0.5, 0.0])
    assert tree.nodes[ht.find(tree, quiet), ht.TRACKED] == ht.NONE
    coin = rng.integers(0, 2, 9000)
    grow(tree, np.tile(quiet, (9000, 1)), coin, np.full(9000, 6.0))
    assert tree.nodes[ht.find(tree, quiet), ht.TRACKED] != ht.NONE


def test_a_missing_value_goes_where_more_went() -> None:
    rng = np.random.default_rng(7)
    rows = rng.uniform(-1, 1, size=(3000, 1))
    tree = a_tree(3, 2, features=1)
    grow(tree, rows, (rows[:, 0] > 0.5).astype(int), np.full(3000, 6.0))
    left = int(tree.nodes[0, ht.LEFT])
    assert ht.find(tree, np.array([math.nan])) == left  # three quarters lie below
    assert tree.numbers[0, [ht.LOST, ht.WON]].sum() == 18_000.0


def test_a_feature_that_appears_later_joins_leaves_that_have_room() -> None:
    tree = a_tree(1, 1, features=1)
    assert tree.tracked[0, 0] == 1
    rows = np.random.default_rng(8).normal(size=(50, 9))
    grow(tree, rows, (rows[:, 0] > 0).astype(int), np.ones(50))
    assert tree.tracked[0, 0] == ht.per_leaf(9, 20) == 4
    assert len(set(tree.tracked[0, 1:5].tolist())) == 4


def test_uniform_draws_are_splitmix64s_published_ones() -> None:
    state = np.array([1234567], np.int64)
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    assert [uniform(state) for _ in published] == [(z >> 11) / 2**53 for z in published]


def test_poisson_draws_have_the_rate_and_its_variance() -> None:
    state, table = np.array([9], np.int64), poisson_table(6.0)
    draws = np.array([poisson(state, table) for _ in range(20_000)])
    assert draws.mean() == pytest.approx(6.0, abs=0.1)
    assert draws.var() == pytest.approx(6.0, abs=0.3)
    assert draws.max() <= MOST
    assert all(a <= b for a, b in pairwise(table))
