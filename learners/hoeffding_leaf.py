"""A Hoeffding leaf's statistics and what it predicts: its base rate mixed with a naive Bayes model.

A leaf tracks a random subset of the features. Per tracked feature and class it keeps the weight,
mean, sum of squared deviations (Welford), minimum and maximum: enough for a Gaussian naive Bayes
and for finding splits. These *trackers* are taken from a pool; a leaf without one is *inactive* and
predicts its base rate.

MOA and River choose, per leaf, whichever of base rate and naive Bayes was more often right (Holmes
et al. 2005). A probability needs more than being right: here the two are mixed by their log loss in
the leaf so far. And a feature that was constant within a class has variance zero there. River skips
its term, MOA calls any other value impossible; here both classes' Gaussians are drawn towards the
leaf's pooled one by a few observations' weight, so that neither happens.
"""

import math

import numpy as np

from learners.native import Floats, Ints, compiled, inlined

# Fields of a tracker, per class: weight, mean, squared deviations, minimum, maximum.
WEIGHT, MEAN, SQUARES, LOW, HIGH = range(5)
PER_CLASS = 5
TRACKER = 2 * PER_CLASS
# Behind them lies what a vote needs of them, worked out once per change, not per vote: where the
# classes' Gaussians lie, their variances, one over the product of these (0: the feature says
# nothing) and their ratio.
CENTRE_LOST, CENTRE_WON, VARIANCE_LOST, VARIANCE_WON, INVERSE, RATIO = range(TRACKER, TRACKER + 6)
FIELDS = TRACKER + 6
# Row 0 of a leaf's trackers is the leaf's own: whether all this is up to date, the classes' log
# odds, the product of the ratios and half its logarithm, the trust in naive Bayes.
FRESH, ODDS, SPREAD, HALF_LOG_SPREAD, TRUST = range(5)

POOLED_WEIGHT = 4.0  # how many observations' weight of the pooled Gaussian each class is given
PRIOR_WEIGHT = 1.0  # the same for a leaf's base rate, towards even odds
MIX_RATE = 0.03  # log odds of naive Bayes against the base rate, per nat it was better
WORST = 1e-4  # one event never counts as worse than this probability
LARGEST = 1e50  # beyond it, as for NaN, a value is taken as missing
_CONSTANT = 1e-100  # a variance below it is none
_FURTHEST = 30.0


@compiled
def sigmoid(z: float) -> float:
    """Logistic function, held within what a double can tell from 0 and 1."""
    return 1.0 / (1.0 + math.exp(-min(max(z, -_FURTHEST), _FURTHEST)))


@compiled
def log_loss(p: float, won: int) -> float:
    """Loss of probability `p`, in nats, at most that of `WORST`."""
    return -math.log(max(p if won == 1 else 1.0 - p, WORST))


@compiled
def base_rate(lost: float, won: float) -> float:
    """Probability of a win from a leaf's class weights."""
    return (won + PRIOR_WEIGHT) / (lost + won + 2.0 * PRIOR_WEIGHT)


@compiled
def _trust(base_loss: float, bayes_loss: float) -> float:
    """Share of naive Bayes in a leaf's vote."""
    return sigmoid(MIX_RATE * (base_loss - bayes_loss))


@inlined
def refresh(
    count: int, trackers: Floats, lost: float, won: float, base_loss: float, bayes_loss: float
) -> None:
    """Work out what a leaf's vote needs of its `count` trackers, class weights and losses."""
    spread = 1.0
    for j in range(1, 1 + count):
        n0 = trackers[j, WEIGHT]
        n1 = trackers[j, PER_CLASS + WEIGHT]
        n = n0 + n1
        trackers[j, INVERSE] = 0.0
        if n < 2.0:
            continue
        m0 = trackers[j, MEAN]
        m1 = trackers[j, PER_CLASS + MEAN]
        s0 = max(trackers[j, SQUARES], 0.0)  # rounding may leave it below
        s1 = max(trackers[j, PER_CLASS + SQUARES], 0.0)
        w0 = n0 + POOLED_WEIGHT
        w1 = n1 + POOLED_WEIGHT
        inverse = 1.0 / (n * w0 * w1)  # divisions are what takes the time here
        share = n1 * w0 * w1 * inverse
        apart = m1 - m0
        pooled = (s0 + s1) * w0 * w1 * inverse + apart * apart * share * (1.0 - share)
        if pooled <= _CONSTANT:
            continue
        mean = m0 + apart * share
        v0 = (s0 + pooled * POOLED_WEIGHT) * n * w1 * inverse
        v1 = (s1 + pooled * POOLED_WEIGHT) * n * w0 * inverse
        trackers[j, CENTRE_LOST] = (m0 * n0 + mean * POOLED_WEIGHT) * n * w1 * inverse
        trackers[j, CENTRE_WON] = (m1 * n1 + mean * POOLED_WEIGHT) * n * w0 * inverse
        inverse = 1.0 / (v0 * v1)
        trackers[j, VARIANCE_LOST] = v0
        trackers[j, VARIANCE_WON] = v1
        trackers[j, INVERSE] = inverse
        trackers[j, RATIO] = v0 * v0 * inverse
        spread *= v0 * v0 * inverse
    trackers[0, FRESH] = 1.0
    trackers[0, ODDS] = math.log((won + PRIOR_WEIGHT) / (lost + PRIOR_WEIGHT))
    trackers[0, SPREAD] = spread
    trackers[0, HALF_LOG_SPREAD] = 0.5 * math.log(spread)
    trackers[0, TRUST] = _trust(base_loss, bayes_loss)


@inlined
def naive_bayes_vote(tracked: Ints, trackers: Floats, row: Floats) -> float:
    """Probability of a win by Bayes' rule, over the tracked features that `row` has."""
    odds = trackers[0, ODDS]
    spread = 1.0
    for j in range(1, 1 + tracked[0]):
        x = row[tracked[j]]
        inverse = trackers[j, INVERSE]
        if not math.fabs(x) <= LARGEST or inverse == 0.0:
            continue
        d0 = x - trackers[j, CENTRE_LOST]
        d1 = x - trackers[j, CENTRE_WON]
        v0 = trackers[j, VARIANCE_LOST]
        v1 = trackers[j, VARIANCE_WON]
        odds += 0.5 * (d0 * d0 * v1 - d1 * d1 * v0) * inverse
        spread *= trackers[j, RATIO]
        if spread < 1e-100 or spread > 1e100:
            odds += 0.5 * math.log(spread)
            spread = 1.0
    if spread == trackers[0, SPREAD]:  # as always when nothing is missing
        return sigmoid(odds + trackers[0, HALF_LOG_SPREAD])
    return sigmoid(odds + 0.5 * math.log(spread))


def naive_bayes(tracked: Ints, trackers: Floats, row: Floats, lost: float, won: float) -> float:
    """Naive Bayes' vote of a leaf whose `trackers`, of shape (features, TRACKER), were saved."""
    rows = np.zeros((1 + len(trackers), FIELDS))
    rows[1:, :TRACKER] = trackers
    refresh(int(tracked[0]), rows, lost, won, 0.0, 0.0)
    return naive_bayes_vote(tracked, rows, row)


@compiled
def mixed(base: float, bayes: float, base_loss: float, bayes_loss: float) -> float:
    """Mix a leaf's two probabilities by how much each has lost in it so far."""
    return base + _trust(base_loss, bayes_loss) * (bayes - base)


@inlined
def observe(tracked: Ints, trackers: Floats, row: Floats, won: int, weight: float) -> None:
    """Learn `row` into the trackers of class `won`; missing values are left out."""
    c = PER_CLASS * won
    for j in range(1, 1 + tracked[0]):
        x = row[tracked[j]]
        if not math.fabs(x) <= LARGEST:
            continue
        n = trackers[j, c + WEIGHT]
        if n == 0.0:
            trackers[j, c + LOW] = x
            trackers[j, c + HIGH] = x
        elif x < trackers[j, c + LOW]:
            trackers[j, c + LOW] = x
        elif x > trackers[j, c + HIGH]:
            trackers[j, c + HIGH] = x
        n += weight
        mean = trackers[j, c + MEAN]
        trackers[j, c + WEIGHT] = n
        apart = x - mean
        mean += weight / n * apart
        trackers[j, c + MEAN] = mean
        trackers[j, c + SQUARES] += weight * apart * (x - mean)
    trackers[0, FRESH] = 0.0
