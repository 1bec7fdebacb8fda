"""A Hoeffding tree of bounded size in flat arrays: finding, learning at and splitting its leaves.

Domingos and Hulten, *Mining High-Speed Data Streams* (KDD 2000), with the random feature subset per
leaf of Gomes et al., *Adaptive Random Forests for Evolving Data Stream Classification* (Machine
Learning, 2017).

Two bounds hold for every tree. When all trackers are taken, a new leaf starts inactive; as in VFDT
the least promising leaf (the one with the least weight outside its majority class: what it could
still gain by splitting) is deactivated in favour of an inactive one once that has become twice as
promising. When all nodes are taken the tree no longer splits, while its leaves go on learning,
until drift replaces the tree.
"""

import math
from typing import NamedTuple

from learners.hoeffding_leaf import (
    FRESH,
    TRUST,
    base_rate,
    log_loss,
    naive_bayes_vote,
    observe,
    refresh,
)
from learners.hoeffding_split import (
    GAIN,
    LANES,
    LEFT_LOST,
    LEFT_WON,
    PROPOSAL,
    RIGHT_LOST,
    RIGHT_WON,
    SLACK,
    THRESHOLD,
    entropy,
    hoeffding_bound,
    propose,
    rough_gain,
)
from learners.native import Floats, Ints, compiled, inlined
from learners.splitmix import uniform

# Words of a node; the right child follows the left one.
FEATURE, LEFT, TRACKED = range(3)
NODE_WORDS = 3
NONE = -1
# Numbers of a node. Class weights grow along the whole path, the rest only at leaves.
CUT, LOST, WON, TRIED_AT, BASE_LOSS, BAYES_LOSS = range(6)
RETURN_WEIGHT, RETURN_MEAN, STOP_WEIGHT, STOP_MEAN = range(6, 10)
NODE_NUMBERS = 10
# Counts of a tree.
NODES, TRACKERS = range(2)
TREE_COUNTS = 2
# Settings of growth, followed by room for looking for splits: kernels allocate nothing.
GRACE, DELTA, TAU = range(3)
SETTINGS = 3
ROUGH = SETTINGS + 2 * PROPOSAL
SETTINGS_AND_ROOM = ROUGH + LANES

INHERITED_WEIGHT = 30.0  # of a parent's mean return and stop rate in a new leaf
_REVIVAL = 2.0


class Tree(NamedTuple):
    """Views of one tree's arrays."""

    counts: Ints  # [TREE_COUNTS]
    nodes: Ints  # [nodes, NODE_WORDS]
    numbers: Floats  # [nodes, NODE_NUMBERS]
    tracked: Ints  # [trackers, 1 + features]: how many, which
    trackers: Floats  # [trackers, 1 + features, FIELDS]: the leaf's own, of each feature


def per_leaf(features: int, most: int) -> int:
    """How many of `features` a leaf tracks: their square root and one more (Gomes et al. 2017)."""
    return min(int(math.sqrt(features)) + 1, features, most)


_per_leaf = compiled(per_leaf)


@compiled
def _track(tree: Tree, t: int, features: int, random: Ints) -> None:
    """Have the trackers at `t` follow random further features, as many as a leaf should."""
    tracked = tree.tracked[t]
    wanted = _per_leaf(features, tracked.size - 1)
    while tracked[0] < wanted:
        count = tracked[0]
        feature = int(uniform(random) * features)
        fresh = True
        for j in range(count):
            if tracked[1 + j] == feature:
                fresh = False
        if fresh:
            tracked[1 + count] = feature
            tree.trackers[t, 1 + count] = 0.0
            tracked[0] = count + 1


@compiled
def _activate(tree: Tree, i: int, t: int, features: int, random: Ints) -> None:
    """Give leaf `i` the trackers at `t`, emptied."""
    tree.nodes[i, TRACKED] = t
    tree.tracked[t, 0] = 0
    tree.trackers[t, 0, FRESH] = 0.0
    tree.numbers[i, BASE_LOSS] = 0.0
    tree.numbers[i, BAYES_LOSS] = 0.0
    _track(tree, t, features, random)


@compiled
def plant(tree: Tree, features: int, random: Ints) -> None:
    """Make `tree` a single empty leaf."""
    tree.counts[NODES] = 1
    tree.counts[TRACKERS] = 1
    tree.nodes[0, FEATURE] = NONE
    tree.nodes[0, LEFT] = NONE
    tree.numbers[0] = 0.0
    _activate(tree, 0, 0, features, random)


@inlined
def step(nodes: Ints, numbers: Floats, i: int, row: Floats) -> int:
    """Which child of inner node `i` takes `row`; a missing value goes where more weight went.

    Of a leaf it gives no node, but may be asked.
    """
    left = nodes[i, LEFT]
    feature = nodes[i, FEATURE]
    x = row[max(feature, 0)]
    if x != x and feature != NONE:
        left_weight = numbers[left, LOST] + numbers[left, WON]
        right_weight = numbers[left + 1, LOST] + numbers[left + 1, WON]
        return int(left + 1 if left_weight < right_weight else left)
    return int(left + (x > numbers[i, CUT]))


@compiled
def find(tree: Tree, row: Floats) -> int:
    """Leaf that `row` falls into."""
    i = 0
    while tree.nodes[i, FEATURE] != NONE:
        i = step(tree.nodes, tree.numbers, i, row)
    return i


@inlined
def walk(tree: Tree, row: Floats, won: int, weight: float) -> int:
    """Like `find`, adding the event to the class weights of the inner nodes passed."""
    i = 0
    while tree.nodes[i, FEATURE] != NONE:
        tree.numbers[i, LOST + won] += weight
        i = step(tree.nodes, tree.numbers, i, row)
    return i


@inlined
def votes(tree: Tree, i: int, row: Floats) -> tuple[float, float, float]:
    """Probability of a win by leaf `i`'s base rate, by its naive Bayes if active, by their mix."""
    numbers = tree.numbers[i]
    base = base_rate(numbers[LOST], numbers[WON])
    t = tree.nodes[i, TRACKED]
    if t == NONE:
        return base, base, base
    tracked = tree.tracked[t]
    trackers = tree.trackers[t]
    if trackers[0, FRESH] == 0.0:
        refresh(
            tracked[0],
            trackers,
            numbers[LOST],
            numbers[WON],
            numbers[BASE_LOSS],
            numbers[BAYES_LOSS],
        )
    bayes = naive_bayes_vote(tracked, trackers, row)
    return base, bayes, base + trackers[0, TRUST] * (bayes - base)


@compiled
def _promise(tree: Tree, i: int) -> float:
    """Weight that leaf `i` gets wrong: what a split could win."""
    return float(min(tree.numbers[i, LOST], tree.numbers[i, WON]))


@compiled
def _least_promising(tree: Tree) -> int:
    """Active leaf with the least to win."""
    least = NONE
    for i in range(tree.counts[NODES]):
        active = tree.nodes[i, FEATURE] == NONE and tree.nodes[i, TRACKED] != NONE
        if active and (least == NONE or _promise(tree, i) < _promise(tree, least)):
            least = i
    return least


@compiled
def _leaf(tree: Tree, i: int, parent: int, lost: float, won: float) -> None:
    """Make node `i` an inactive leaf that starts from what its parent knew."""
    numbers = tree.numbers
    tree.nodes[i, FEATURE] = NONE
    tree.nodes[i, LEFT] = NONE
    tree.nodes[i, TRACKED] = NONE
    numbers[i] = 0.0
    numbers[i, LOST] = lost
    numbers[i, WON] = won
    numbers[i, TRIED_AT] = lost + won
    numbers[i, RETURN_WEIGHT] = min(numbers[parent, RETURN_WEIGHT], INHERITED_WEIGHT)
    numbers[i, RETURN_MEAN] = numbers[parent, RETURN_MEAN]
    numbers[i, STOP_WEIGHT] = min(numbers[parent, STOP_WEIGHT], INHERITED_WEIGHT)
    numbers[i, STOP_MEAN] = numbers[parent, STOP_MEAN]


@compiled
def _split(tree: Tree, i: int, feature: int, best: Floats, features: int, random: Ints) -> None:
    """Turn leaf `i` into an inner node with two leaves, the more promising one active."""
    t = tree.nodes[i, TRACKED]
    left = tree.counts[NODES]
    tree.counts[NODES] = left + 2
    tree.nodes[i, FEATURE] = feature
    tree.nodes[i, LEFT] = left
    tree.nodes[i, TRACKED] = NONE
    tree.numbers[i, CUT] = best[THRESHOLD]
    _leaf(tree, left, i, best[LEFT_LOST], best[LEFT_WON])
    _leaf(tree, left + 1, i, best[RIGHT_LOST], best[RIGHT_WON])
    first = left if _promise(tree, left) >= _promise(tree, left + 1) else left + 1
    _activate(tree, first, t, features, random)
    other = 2 * left + 1 - first
    if tree.counts[TRACKERS] < tree.tracked.shape[0]:
        t = tree.counts[TRACKERS]
        tree.counts[TRACKERS] = t + 1
        _activate(tree, other, t, features, random)


@compiled
def _rough_best(tree: Tree, t: int, rough: Floats) -> tuple[float, float]:
    """Highest and second highest gain of the features tracked at `t`, less the entropy before.

    Each is off by `SLACK` at most; NaN if that can't be said.
    """
    best = -math.inf
    second = -math.inf
    for j in range(tree.tracked[t, 0]):
        gain = rough_gain(tree.trackers[t, 1 + j], rough)
        if gain != gain:
            return gain, gain
        second = max(second, min(gain, best))
        best = max(best, gain)
    return best, second


@compiled
def _try_split(tree: Tree, i: int, settings: Floats, features: int, random: Ints) -> None:
    """Split leaf `i` if one feature is surely the best, or the best are surely alike."""
    lost = tree.numbers[i, LOST]
    won = tree.numbers[i, WON]
    if lost == 0.0 or won == 0.0 or tree.counts[NODES] + 2 > tree.nodes.shape[0]:
        return
    t = tree.nodes[i, TRACKED]
    bound = hoeffding_bound(settings[DELTA], lost + won)
    # Exact gains take ten times as long: they are worked out only where they can matter.
    rough = settings[ROUGH:]
    floor, second = _rough_best(tree, t, rough)
    lead = floor - second
    certain = bound < settings[TAU] or lead - 2.0 * SLACK > bound
    if not certain and lead + 2.0 * SLACK <= bound:
        return
    floor = floor - 2.0 * SLACK if certain else -math.inf
    before = entropy(lost, won)
    best = settings[SETTINGS : SETTINGS + PROPOSAL]
    proposal = settings[SETTINGS + PROPOSAL : ROUGH]
    best[GAIN] = -math.inf
    second = -math.inf
    feature = NONE
    for j in range(tree.tracked[t, 0]):
        tracker = tree.trackers[t, 1 + j]
        if rough_gain(tracker, rough) < floor:
            continue
        propose(tracker, before, rough, floor, proposal)
        if proposal[GAIN] > best[GAIN]:
            second = best[GAIN]
            for k in range(PROPOSAL):  # a slice assignment would add 2 s of compilation
                best[k] = proposal[k]
            feature = tree.tracked[t, 1 + j]
        else:
            second = max(second, proposal[GAIN])
    if feature == NONE:
        return
    if best[GAIN] - second > bound or bound < settings[TAU]:
        _split(tree, i, feature, best, features, random)


@compiled
def _revive(tree: Tree, i: int, features: int, random: Ints) -> None:
    """Activate leaf `i` in the place of the least promising one, if that is far less promising."""
    least = _least_promising(tree)
    if _promise(tree, i) > _REVIVAL * _promise(tree, least):
        t = tree.nodes[least, TRACKED]
        tree.nodes[least, TRACKED] = NONE
        _activate(tree, i, t, features, random)


@inlined
def learn(
    tree: Tree,
    i: int,
    row: Floats,
    base: float,
    bayes: float,
    won: int,
    weight: float,
    settings: Floats,
    features: int,
    random: Ints,
) -> None:
    """Learn one event at leaf `i`, whose `votes` on it were `base` and `bayes`; split when it is
    time.
    """
    numbers = tree.numbers[i]
    numbers[BASE_LOSS] += log_loss(base, won)
    numbers[BAYES_LOSS] += log_loss(bayes, won)
    numbers[LOST + won] += weight
    t = tree.nodes[i, TRACKED]
    if t != NONE:
        if tree.tracked[t, 0] < _per_leaf(features, tree.tracked.shape[1] - 1):
            _track(tree, t, features, random)
        observe(tree.tracked[t], tree.trackers[t], row, won, weight)
    total = numbers[LOST] + numbers[WON]
    if total - numbers[TRIED_AT] >= settings[GRACE]:
        numbers[TRIED_AT] = total
        if t == NONE:
            _revive(tree, i, features, random)
        else:
            _try_split(tree, i, settings, features, random)


@inlined
def learn_outcome(tree: Tree, i: int, weight: float, return_pct: float, stopped: float) -> None:
    """Add what is known of the trade's return and stop to leaf `i`; NaN is not known."""
    numbers = tree.numbers[i]
    if return_pct == return_pct:
        numbers[RETURN_WEIGHT] += weight
        numbers[RETURN_MEAN] += (
            weight * (return_pct - numbers[RETURN_MEAN]) / numbers[RETURN_WEIGHT]
        )
    if stopped == stopped:
        numbers[STOP_WEIGHT] += weight
        numbers[STOP_MEAN] += weight * (stopped - numbers[STOP_MEAN]) / numbers[STOP_WEIGHT]
