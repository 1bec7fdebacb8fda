"""How a forest lies in two flat arrays, of words and of numbers, and the views taken of them.

Two arrays instead of twenty because each array that Python hands to a kernel costs a fraction of a
microsecond per call. Every tree owns two slots: one holds the tree that votes, the other its
background tree, and a drift swaps them.
"""

import math
from typing import NamedTuple

import numpy as np

from learners import adwin, logit_pool, splitmix
from learners.hoeffding import NODE_NUMBERS, NODE_WORDS, SETTINGS_AND_ROOM, TREE_COUNTS, Tree
from learners.hoeffding_leaf import TRACKER
from learners.native import Floats, Ints

# Head of the words: the bounds, then what changes.
N_TREES, N_NODES, N_TRACKERS, N_TRACKED, FEATURES, RANDOM = range(6)
HEAD_WORDS = 6
# Head of the numbers, after the settings of growth.
WARNING_DELTA, DRIFT_DELTA, RETURN_SEEN, RETURN, STOP_SEEN, STOP, WEIGHTS = range(
    SETTINGS_AND_ROOM, SETTINGS_AND_ROOM + 7
)
HEAD_NUMBERS = WEIGHTS + splitmix.MOST  # the Poisson weights' table
# Words of a member: which of its two slots votes, whether the other one grows in the background,
# counts.
VOTING, GROWING, WARNINGS, DRIFTS = range(4)
MEMBER_WORDS = 4
# Numbers of a member: its vote's weight, decayed log loss and the weight of that.
VOTE, LOSS, LOSS_WEIGHT = range(3)
MEMBER_NUMBERS = 3


class Forest(NamedTuple):
    """Views of a whole forest."""

    head: Ints  # [HEAD_WORDS]
    numbers: Floats  # [HEAD_NUMBERS]
    pool: Floats  # [logit_pool.SIZE]
    members: Ints  # [trees, MEMBER_WORDS]
    records: Floats  # [trees, MEMBER_NUMBERS]
    windows: Floats  # [trees, 2, adwin.SIZE]: for warnings, for drifts
    counts: Ints  # [slots, TREE_COUNTS], and so on: see `Tree`
    nodes: Ints
    node_numbers: Floats
    tracked: Ints
    trackers: Floats


def allocate(trees: int, nodes: int, trackers: int, inputs: int) -> tuple[Ints, Floats]:
    """Make the two arrays, all zeros but for the bounds; untouched pages cost no memory."""
    tracked = min(int(math.sqrt(inputs)) + 1, inputs)
    slots = 2 * trees
    words = HEAD_WORDS + trees * MEMBER_WORDS
    words += slots * (TREE_COUNTS + nodes * NODE_WORDS + trackers * (1 + tracked))
    numbers = HEAD_NUMBERS + logit_pool.SIZE + trees * (MEMBER_NUMBERS + 2 * adwin.SIZE)
    numbers += slots * (nodes * NODE_NUMBERS + trackers * tracked * TRACKER)
    head = np.zeros(words, np.int64)
    head[:FEATURES] = trees, nodes, trackers, tracked
    return head, np.zeros(numbers)


def view(words: Ints, numbers: Floats) -> Forest:
    """Take the views; nothing is copied."""
    trees = words[N_TREES]
    nodes = words[N_NODES]
    trackers = words[N_TRACKERS]
    tracked = words[N_TRACKED]
    slots = 2 * trees
    a = HEAD_WORDS
    b = a + trees * MEMBER_WORDS
    c = b + slots * TREE_COUNTS
    d = c + slots * nodes * NODE_WORDS
    p = HEAD_NUMBERS
    q = p + logit_pool.SIZE
    r = q + trees * MEMBER_NUMBERS
    s = r + trees * 2 * adwin.SIZE
    t = s + slots * nodes * NODE_NUMBERS
    return Forest(
        words[:a],
        numbers[:p],
        numbers[p:q],
        words[a:b].reshape((trees, MEMBER_WORDS)),
        numbers[q:r].reshape((trees, MEMBER_NUMBERS)),
        numbers[r:s].reshape((trees, 2, adwin.SIZE)),
        words[b:c].reshape((slots, TREE_COUNTS)),
        words[c:d].reshape((slots, nodes, NODE_WORDS)),
        numbers[s:t].reshape((slots, nodes, NODE_NUMBERS)),
        words[d:].reshape((slots, trackers, 1 + tracked)),
        numbers[t:].reshape((slots, trackers, tracked, TRACKER)),
    )


def tree_at(forest: Forest, slot: int) -> Tree:
    """View of the tree in `slot`."""
    return Tree(
        forest.counts[slot],
        forest.nodes[slot],
        forest.node_numbers[slot],
        forest.tracked[slot],
        forest.trackers[slot],
    )
