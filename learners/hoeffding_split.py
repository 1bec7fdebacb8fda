"""Where to split a Hoeffding leaf: the information gain of thresholds on Gaussian sketches of each
feature.

Domingos and Hulten, *Mining High-Speed Data Streams* (KDD 2000); the ten equidistant thresholds
between a feature's extremes are MOA's and River's. Gains and thresholds equal River's
`GaussianSplitter` to the last bit.
"""

import math

from learners.hoeffding_leaf import HIGH, LOW, MEAN, PER_CLASS, SQUARES, WEIGHT
from learners.native import Floats, compiled

THRESHOLDS = 10
LEAST_SHARE = 0.01  # both sides must hold more than this share of the weight

# A proposal: gain, threshold, then the class weights expected left and right.
GAIN, THRESHOLD, LEFT_LOST, LEFT_WON, RIGHT_LOST, RIGHT_WON = range(6)
PROPOSAL = 6


@compiled
def entropy(a: float, b: float) -> float:
    """Entropy in bits of two weights."""
    total = 0.0
    bits = 0.0
    if a > 0.0:
        bits -= a * math.log2(a)
        total += a
    if b > 0.0:
        bits -= b * math.log2(b)
        total += b
    return (bits + total * math.log2(total)) / total if total > 0.0 else 0.0


@compiled
def _below(tracker: Floats, c: int, threshold: float) -> float:
    """Estimate the weight of the class at offset `c` that lies at or below `threshold`."""
    n = float(tracker[c + WEIGHT])
    if n == 0.0 or threshold < tracker[c + LOW]:
        return 0.0
    if threshold >= tracker[c + HIGH]:
        return n
    if n <= 1.0:
        return 0.0
    sigma = math.sqrt(tracker[c + SQUARES] / (n - 1.0))
    if not sigma > 0.0:
        return 0.0
    return 0.5 * (1.0 + math.erf((threshold - tracker[c + MEAN]) / sigma / math.sqrt(2.0))) * n


@compiled
def propose(tracker: Floats, before: float, best: Floats) -> None:
    """Write into `best` the best threshold for one feature, `before` being the leaf's entropy.

    Without any threshold that leaves enough on both sides the gain is minus infinity.
    """
    best[GAIN] = -math.inf
    lost = tracker[WEIGHT]
    won = tracker[PER_CLASS + WEIGHT]
    low = math.inf
    high = -math.inf
    if lost > 0.0:
        low = tracker[LOW]
        high = tracker[HIGH]
    if won > 0.0:
        low = min(low, tracker[PER_CLASS + LOW])
        high = max(high, tracker[PER_CLASS + HIGH])
    if not low < high:
        return
    step = (high - low) / (THRESHOLDS + 1.0)
    for k in range(THRESHOLDS):
        threshold = low + step * (k + 1)
        if not low < threshold < high:
            continue
        left_lost = _below(tracker, 0, threshold)
        left_won = _below(tracker, PER_CLASS, threshold)
        right_lost = lost - left_lost
        right_won = won - left_won
        left = left_lost + left_won
        right = right_lost + right_won
        total = left + right
        if left / total <= LEAST_SHARE or right / total <= LEAST_SHARE:
            continue
        after = left * entropy(left_lost, left_won) + right * entropy(right_lost, right_won)
        gain = before - after / total
        if gain > best[GAIN]:
            best[GAIN] = gain
            best[THRESHOLD] = threshold
            best[LEFT_LOST] = left_lost
            best[LEFT_WON] = left_won
            best[RIGHT_LOST] = right_lost
            best[RIGHT_WON] = right_won


@compiled
def hoeffding_bound(delta: float, weight: float) -> float:
    """How far a mean of `weight` gains in [0, 1] may be from the truth, but for chance `delta`."""
    return math.sqrt(math.log(1.0 / delta) / (2.0 * weight))
