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
LANES = 16  # the same, filled up to whole vectors
LEAST_SHARE = 0.01  # both sides must hold more than this share of the weight
SLACK = 1e-3  # how far a rough gain may be off
_SHARE_SLACK = 1e-5

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
def _extremes(tracker: Floats) -> tuple[float, float]:
    """Lowest and highest value of either class."""
    low = math.inf
    high = -math.inf
    if tracker[WEIGHT] > 0.0:
        low = tracker[LOW]
        high = tracker[HIGH]
    if tracker[PER_CLASS + WEIGHT] > 0.0:
        low = min(low, tracker[PER_CLASS + LOW])
        high = max(high, tracker[PER_CLASS + HIGH])
    return low, high


@compiled
def propose(tracker: Floats, before: float, rough: Floats, floor: float, best: Floats) -> None:
    """Write into `best` the best threshold for one feature, `before` being the leaf's entropy.

    Thresholds whose `rough` gain is below `floor` are left out. Without any threshold that leaves
    enough on both sides the gain is minus infinity.
    """
    best[GAIN] = -math.inf
    lost = tracker[WEIGHT]
    won = tracker[PER_CLASS + WEIGHT]
    low, high = _extremes(tracker)
    if not low < high:
        return
    step = (high - low) / (THRESHOLDS + 1.0)
    for k in range(THRESHOLDS):
        threshold = low + step * (k + 1)
        if not low < threshold < high or rough[k] < floor:
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
def _roughly_below(
    threshold: float, n: float, low: float, high: float, mean: float, steep: float
) -> float:
    """Approximate `_below` without branches; `steep` is one over sigma and the square root of 2.

    Abramowitz and Stegun 7.1.28: the error function within 3e-7.
    """
    z = (threshold - mean) * steep
    x = math.fabs(z)
    power = 1.0 + x * (
        0.0705230784
        + x
        * (
            0.0422820123
            + x * (0.0092705272 + x * (0.0001520143 + x * (0.0002765672 + x * 0.0000430638)))
        )
    )
    power *= power
    power *= power
    power *= power
    power *= power
    between = (0.5 + 0.5 * math.copysign(1.0 - 1.0 / power, z)) * n if steep > 0.0 else 0.0
    between = n if threshold >= high else between
    return 0.0 if threshold < low else between


@compiled
def _steepness(tracker: Floats, c: int) -> float:
    """One over a class's sigma and the square root of 2; 0 where `_below` sees no Gaussian."""
    n = tracker[c + WEIGHT]
    square = 2.0 * tracker[c + SQUARES] / (n - 1.0) if n > 1.0 else 0.0
    return 1.0 / math.sqrt(square) if square > 0.0 else 0.0


@compiled
def _rough_entropy(share: float) -> float:
    """Entropy in bits of a class's share, within 6e-4: a polynomial in the Gini index's root."""
    s = math.sqrt(max(4.0 * share * (1.0 - share), 0.0))
    return s * (
        0.05638663 + s * (2.18733274 + s * (-2.59769219 + s * (1.9934826 + s * -0.64005037)))
    )


@compiled
def rough_gain(tracker: Floats, gains: Floats) -> float:
    """Approximate the gain that `propose` finds, less the entropy before, within `SLACK`.

    It takes a tenth of the time: no branches, no library calls, so that all thresholds are worked
    out at once by vector instructions. `gains` becomes the thresholds', and needs room for `LANES`.
    NaN stands for one whose sides hold too nearly `LEAST_SHARE`.
    """
    lost = tracker[WEIGHT]
    won = tracker[PER_CLASS + WEIGHT]
    low, high = _extremes(tracker)
    if not low < high:
        return -math.inf
    low0 = tracker[LOW]
    high0 = tracker[HIGH]
    mean0 = tracker[MEAN]
    steep0 = _steepness(tracker, 0)
    low1 = tracker[PER_CLASS + LOW]
    high1 = tracker[PER_CLASS + HIGH]
    mean1 = tracker[PER_CLASS + MEAN]
    steep1 = _steepness(tracker, PER_CLASS)
    step = (high - low) / (THRESHOLDS + 1.0)
    whole = 1.0 / (lost + won)
    for k in range(LANES):
        threshold = low + step * (k + 1)
        left_won = _roughly_below(threshold, won, low1, high1, mean1, steep1)
        left = _roughly_below(threshold, lost, low0, high0, mean0, steep0) + left_won
        right = lost + won - left
        after = left * _rough_entropy(left_won / left)
        after += right * _rough_entropy((won - left_won) / right)
        least = min(left, right) * whole
        gain = -after * whole if least > LEAST_SHARE + _SHARE_SLACK else math.nan
        gain = -math.inf if least < LEAST_SHARE - _SHARE_SLACK else gain
        gains[k] = gain if low < threshold < high else -math.inf
    best = -math.inf
    for k in range(THRESHOLDS):
        if not gains[k] <= best:
            best = gains[k]
            if best != best:
                break
    return best


@compiled
def hoeffding_bound(delta: float, weight: float) -> float:
    """How far a mean of `weight` gains in [0, 1] may be from the truth, but for chance `delta`."""
    return math.sqrt(math.log(1.0 / delta) / (2.0 * weight))
