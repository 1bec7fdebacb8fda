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

from learners.native import Floats, Ints, compiled

# Fields of a tracker, per class: weight, mean, squared deviations, minimum, maximum.
WEIGHT, MEAN, SQUARES, LOW, HIGH = range(5)
PER_CLASS = 5
TRACKER = 2 * PER_CLASS

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
def naive_bayes(tracked: Ints, trackers: Floats, row: Floats, lost: float, won: float) -> float:
    """Probability of a win by Bayes' rule, over the tracked features that `row` has."""
    odds = math.log((won + PRIOR_WEIGHT) / (lost + PRIOR_WEIGHT))
    spread = 1.0
    for j in range(tracked[0]):
        x = row[tracked[1 + j]]
        n0 = trackers[j, WEIGHT]
        n1 = trackers[j, PER_CLASS + WEIGHT]
        n = n0 + n1
        if not math.fabs(x) <= LARGEST or n < 2.0:
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
        d0 = x - (m0 * n0 + mean * POOLED_WEIGHT) * n * w1 * inverse
        d1 = x - (m1 * n1 + mean * POOLED_WEIGHT) * n * w0 * inverse
        v0 = (s0 + pooled * POOLED_WEIGHT) * n * w1 * inverse
        v1 = (s1 + pooled * POOLED_WEIGHT) * n * w0 * inverse
        inverse = 1.0 / (v0 * v1)
        odds += 0.5 * (d0 * d0 * v1 - d1 * d1 * v0) * inverse
        spread *= v0 * v0 * inverse
        if spread < 1e-100 or spread > 1e100:
            odds += 0.5 * math.log(spread)
            spread = 1.0
    return sigmoid(odds + 0.5 * math.log(spread))


@compiled
def mixed(base: float, bayes: float, base_loss: float, bayes_loss: float) -> float:
    """Mix a leaf's two probabilities by how much each has lost in it so far."""
    trust = sigmoid(MIX_RATE * (base_loss - bayes_loss))
    return base + trust * (bayes - base)


@compiled
def observe(tracked: Ints, trackers: Floats, row: Floats, won: int, weight: float) -> None:
    """Learn `row` into the trackers of class `won`; missing values are left out."""
    c = PER_CLASS * won
    for j in range(tracked[0]):
        x = row[tracked[1 + j]]
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
