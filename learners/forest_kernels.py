"""The forest's two entries: predict a row, learn a row.

Gomes et al., *Adaptive Random Forests for Evolving Data Stream Classification* (Machine Learning,
2017): every tree learns an event with a Poisson weight; an ADWIN on its errors warns and starts a
background tree, a stricter one calls drift and puts that in the tree's place. Only rising errors
alarm. Votes weigh by recent log loss.
"""

import math

import numpy as np

from learners import logit_pool
from learners.adwin import adwin_update
from learners.forest_layout import (
    ASKED,
    ASKED_ROW,
    BASE,
    BAYES,
    DRIFT_DELTA,
    DRIFTS,
    FEATURES,
    GROWING,
    HEAD_NUMBERS,
    LOSS,
    LOSS_WEIGHT,
    MEAN_LOG_ODDS,
    MEAN_VOTE,
    MIX,
    N_TREES,
    RANDOM,
    RETURN,
    RETURN_SEEN,
    STOP,
    STOP_SEEN,
    VOTE,
    VOTING,
    WARNING_DELTA,
    WARNINGS,
    WEIGHTS,
    Forest,
    tree_at,
    view,
)
from learners.hoeffding import (
    FEATURE,
    INHERITED_WEIGHT,
    LOST,
    NONE,
    RETURN_MEAN,
    RETURN_WEIGHT,
    SETTINGS_AND_ROOM,
    STOP_MEAN,
    STOP_WEIGHT,
    learn,
    learn_outcome,
    plant,
    step,
    votes,
    walk,
)
from learners.hoeffding_leaf import log_loss
from learners.logit_pool import learn_pool, log_odds, pooled
from learners.native import Floats, Ints, compiled, entry, inlined, sources
from learners.splitmix import poisson

VOTE_RATE = 3.0  # a tree's vote weighs exp(-VOTE_RATE * its recent log loss)
MEMORY = 0.999  # how much of the recent log loss one more event leaves
_CLUELESS = math.log(2.0)

_SOURCES = sources(
    "adwin",
    "forest_kernels",
    "forest_layout",
    "hoeffding",
    "hoeffding_leaf",
    "hoeffding_split",
    "logit_pool",
    "splitmix",
)


_view = inlined(view)
_tree_at = inlined(tree_at)


@compiled
def _restart_record(record: Floats) -> None:
    """Weigh a new tree's vote as that of one that knows nothing."""
    record[LOSS] = 0.0
    record[LOSS_WEIGHT] = 0.0
    record[VOTE] = math.exp(-VOTE_RATE * _CLUELESS)


@inlined
def _score(record: Floats, loss: float) -> None:
    """Add one event's log loss to a tree's record and weigh its vote anew."""
    record[LOSS] = record[LOSS] * MEMORY + loss
    record[LOSS_WEIGHT] = record[LOSS_WEIGHT] * MEMORY + 1.0
    record[VOTE] = math.exp(-VOTE_RATE * record[LOSS] / record[LOSS_WEIGHT])


@compiled
def _plant_all(forest: Forest) -> None:
    """Start every tree, at the first event."""
    logit_pool.start(forest.pool)
    random = forest.head[RANDOM:]
    for m in range(forest.head[N_TREES]):
        forest.members[m, VOTING] = 2 * m
        _restart_record(forest.records[m])
        plant(_tree_at(forest, 2 * m), forest.head[FEATURES], random)


@inlined
def _find_all(forest: Forest, row: Floats) -> None:
    """Find the leaf that `row` falls into, of each voting tree.

    All trees go down side by side, a level at a time: tree after tree, the processor would wait
    for memory at each node, and guess wrong at every third where to go.
    """
    going = forest.going
    n = going.size
    for m in range(n):
        going[m] = m
        forest.paths[m, 0] = 0
    depth = 0
    while n > 0:
        left = 0
        for k in range(n):
            m = going[k]
            slot = forest.members[m, VOTING]
            i = forest.paths[m, depth]
            forest.depths[m] = depth
            going[left] = m
            if forest.nodes[slot, i, FEATURE] != NONE:
                nodes, numbers = forest.nodes[slot], forest.node_numbers[slot]
                forest.paths[m, depth + 1] = step(nodes, numbers, i, row)
                left += 1
        n = left
        depth += 1


@inlined
def _ask(forest: Forest, row: Floats) -> None:
    """Let every tree vote on `row`."""
    _find_all(forest, row)
    for m in range(forest.depths.size):
        tree = _tree_at(forest, forest.members[m, VOTING])
        base, bayes, mix = votes(tree, forest.paths[m, forest.depths[m]], row)
        forest.ballots[m, BASE] = base
        forest.ballots[m, BAYES] = bayes
        forest.ballots[m, MIX] = mix


@compiled
def _known(asked: Floats, row: Floats, features: int) -> bool:
    """Whether the trees' votes on `row` are still those asked for last."""
    if asked[ASKED] == 0.0:
        return False
    before = asked[ASKED_ROW:].view(np.int64)
    now = row.view(np.int64)
    same = 0
    while same < features and before[same] == now[same]:
        same += 1
    return same == features


@inlined
def _count(forest: Forest) -> tuple[float, float, float]:
    """Sum of the votes' weights, mean vote, mean log odds of the votes."""
    weights = 0.0
    mean = 0.0
    mean_log_odds = 0.0
    for m in range(forest.depths.size):
        p = forest.ballots[m, MIX]
        vote = forest.records[m, VOTE]
        weights += vote
        mean += vote * p
        mean_log_odds += vote * log_odds(p)
    return weights, mean / weights, mean_log_odds / weights


@compiled
def _shrunk(mean: float, weight: float, overall: float) -> float:
    """Draw a leaf's mean towards the stream's, the more the less weight it has."""
    return (mean * weight + overall * INHERITED_WEIGHT) / (weight + INHERITED_WEIGHT)


@inlined
def _watch(forest: Forest, m: int, error: float) -> None:
    """Feed a tree's error to its two detectors and act on what they say."""
    member = forest.members[m]
    spare = 4 * m + 1 - member[VOTING]
    windows = forest.windows[m]
    if adwin_update(windows[0], error, forest.numbers[WARNING_DELTA]):
        member[WARNINGS] += 1
        member[GROWING] = 1
        plant(_tree_at(forest, spare), forest.head[FEATURES], forest.head[RANDOM:])
        windows[0] = 0.0
    if adwin_update(windows[1], error, forest.numbers[DRIFT_DELTA]):
        member[DRIFTS] += 1
        if member[GROWING] == 0:
            plant(_tree_at(forest, spare), forest.head[FEATURES], forest.head[RANDOM:])
        forest.counts[member[VOTING]] = 0
        member[VOTING] = spare
        member[GROWING] = 0
        windows[:] = 0.0
        _restart_record(forest.records[m])


def _entries(sources: str):  # type: ignore[no-untyped-def]
    """Compile the entries for exactly these sources."""

    @entry
    def predict(
        words: Ints, numbers: Floats, row: Floats
    ) -> tuple[float, float, float, float, float]:
        _ = sources
        forest = _view(words, numbers)
        overall_return = numbers[RETURN] if numbers[RETURN_SEEN] > 0.0 else math.nan
        overall_stop = numbers[STOP] if numbers[STOP_SEEN] > 0.0 else math.nan
        if forest.counts[forest.members[0, VOTING], 0] == 0:
            return 0.5, overall_return, overall_stop, 0.5, 0.0
        _ask(forest, row)
        weights, mean, mean_log_odds = _count(forest)
        features = words[FEATURES]
        forest.asked[ASKED] = 1.0
        forest.asked[MEAN_VOTE] = mean
        forest.asked[MEAN_LOG_ODDS] = mean_log_odds
        for j in range(features):
            forest.asked[ASKED_ROW + j] = row[j]
        expected = 0.0
        stop = 0.0
        for m in range(words[N_TREES]):
            leaf = forest.node_numbers[forest.members[m, VOTING], forest.paths[m, forest.depths[m]]]
            vote = forest.records[m, VOTE]
            expected += vote * _shrunk(leaf[RETURN_MEAN], leaf[RETURN_WEIGHT], overall_return)
            stop += vote * _shrunk(leaf[STOP_MEAN], leaf[STOP_WEIGHT], overall_stop)
        p = pooled(forest.pool, mean, mean_log_odds)
        return p, expected / weights, stop / weights, mean, mean_log_odds

    @entry
    def learn_event(
        words: Ints,
        numbers: Floats,
        row: Floats,
        won: int,
        return_pct: float,
        stopped: float,
        voted: float,
        voted_log_odds: float,
    ) -> None:
        _ = sources
        forest = _view(words, numbers)
        if forest.counts[forest.members[0, VOTING], 0] == 0:
            _plant_all(forest)
        settings = numbers[:SETTINGS_AND_ROOM]
        table = numbers[WEIGHTS:HEAD_NUMBERS]
        features = words[FEATURES]
        random = forest.head[RANDOM:]
        if not _known(forest.asked, row, features):
            _ask(forest, row)
            if voted != voted:
                _, forest.asked[MEAN_VOTE], forest.asked[MEAN_LOG_ODDS] = _count(forest)
        if voted != voted:  # not known how the trees voted when they were asked: as they do now
            voted = forest.asked[MEAN_VOTE]
            voted_log_odds = forest.asked[MEAN_LOG_ODDS]
        forest.asked[ASKED] = 0.0
        for m in range(words[N_TREES]):
            member = forest.members[m]
            weight = float(poisson(random, table))
            p = forest.ballots[m, MIX]
            _score(forest.records[m], log_loss(p, won))
            if weight == 0.0:
                continue
            tree = _tree_at(forest, member[VOTING])
            depth = forest.depths[m]
            for k in range(depth):
                tree.numbers[forest.paths[m, k], LOST + won] += weight
            i = forest.paths[m, depth]
            base = forest.ballots[m, BASE]
            bayes = forest.ballots[m, BAYES]
            for background in range(1 + member[GROWING]):
                if background == 1:
                    tree = _tree_at(forest, 4 * m + 1 - member[VOTING])
                    i = walk(tree, row, won, weight)
                    base, bayes, _ = votes(tree, i, row)
                learn_outcome(tree, i, weight, return_pct, stopped)
                learn(tree, i, row, base, bayes, won, weight, settings, features, random)
            _watch(forest, m, 0.0 if (p > 0.5) == (won == 1) else 1.0)
        learn_pool(forest.pool, voted, voted_log_odds, won)
        if return_pct == return_pct:
            numbers[RETURN_SEEN] = numbers[RETURN_SEEN] * MEMORY + 1.0
            numbers[RETURN] += (return_pct - numbers[RETURN]) / numbers[RETURN_SEEN]
        if stopped == stopped:
            numbers[STOP_SEEN] = numbers[STOP_SEEN] * MEMORY + 1.0
            numbers[STOP] += (stopped - numbers[STOP]) / numbers[STOP_SEEN]

    return predict, learn_event


predict, learn_event = _entries(_SOURCES)
