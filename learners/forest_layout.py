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
from learners.hoeffding_leaf import FIELDS
from learners.native import Floats, Ints, shaped

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


# Of the row last asked about: whether nothing was learned since, how the trees voted. The row
# follows.
ASKED, MEAN_VOTE, MEAN_LOG_ODDS, ASKED_ROW = range(4)
# What a tree said of it: its leaf's base rate, naive Bayes and mix of them.
BASE, BAYES, MIX = range(3)
BALLOT = 3


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
    # What is no state: room, and what is known of the row last asked about.
    going: Ints  # [trees]
    depths: Ints  # [trees]: of the leaf reached
    paths: Ints  # [trees, most on a path]: nodes passed, from the root to the leaf
    ballots: Floats  # [trees, BALLOT]
    asked: Floats  # [ASKED_ROW + inputs]


def allocate(trees: int, nodes: int, trackers: int, inputs: int) -> tuple[Ints, Floats]:
    """Make the two arrays, all zeros but for the bounds.

    The zeros are written: pages that a system hands out at their first touch would look like growth
    for as long as trees grow, and be missing when they are needed.
    """
    tracked = min(int(math.sqrt(inputs)) + 1, inputs)
    slots = 2 * trees
    words = HEAD_WORDS + trees * MEMBER_WORDS
    words += slots * (TREE_COUNTS + nodes * NODE_WORDS + trackers * (1 + tracked))
    words += trees * (2 + (nodes + 1) // 2)
    numbers = HEAD_NUMBERS + logit_pool.SIZE + trees * (MEMBER_NUMBERS + 2 * adwin.SIZE)
    numbers += slots * (nodes * NODE_NUMBERS + trackers * (1 + tracked) * FIELDS)
    numbers += trees * BALLOT + ASKED_ROW + inputs
    head = np.full(words, 0, np.int64)
    head[:FEATURES] = trees, nodes, trackers, tracked
    return head, np.full(numbers, 0.0)


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
    e = d + slots * trackers * (1 + tracked)
    f = e + trees
    g = f + trees
    p = HEAD_NUMBERS
    q = p + logit_pool.SIZE
    r = q + trees * MEMBER_NUMBERS
    s = r + trees * 2 * adwin.SIZE
    t = s + slots * nodes * NODE_NUMBERS
    u = t + slots * trackers * (1 + tracked) * FIELDS
    v = u + trees * BALLOT
    return Forest(
        words[:a],
        numbers[:p],
        numbers[p:q],
        shaped(words[a:b], (trees, MEMBER_WORDS)),
        shaped(numbers[q:r], (trees, MEMBER_NUMBERS)),
        shaped(numbers[r:s], (trees, 2, adwin.SIZE)),
        shaped(words[b:c], (slots, TREE_COUNTS)),
        shaped(words[c:d], (slots, nodes, NODE_WORDS)),
        shaped(numbers[s:t], (slots, nodes, NODE_NUMBERS)),
        shaped(words[d:e], (slots, trackers, 1 + tracked)),
        shaped(numbers[t:u], (slots, trackers, 1 + tracked, FIELDS)),
        words[e:f],
        words[f:g],
        shaped(words[g:], (trees, (nodes + 1) // 2)),
        shaped(numbers[u:v], (trees, BALLOT)),
        numbers[v:],
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
