"""One probability from many trees: their mean and mean log odds in an online logistic regression.

The plain mean of trees' probabilities is too timid where trees agree for different reasons, their
mean log odds too bold where they err together (Satopää et al., *Combining multiple probability
predictions using a simple logit model*, 2014). Which of the two, and how sharp, differs between
streams and over time, so it is learned: an extended Kalman filter on the three coefficients, which
drift as a random walk (Penny and Roberts, *Dynamic logistic regression*, 1999).
"""

import math

from learners.hoeffding_leaf import sigmoid
from learners.native import Floats, compiled, shaped

INPUTS = 3  # log odds of the mean, mean log odds, one
# Three coefficients, then the rows of their covariance.
SIZE = INPUTS + INPUTS * INPUTS

_VARIANCE = 0.1  # of a coefficient at the start, and at most
_DRIFT = (1e-5, 1e-5, 1e-6)  # added to each variance per event
_FLATTEST = 1e-3  # least curvature
CLIP = 1e-3  # no tree is believed beyond this, nor is the pool


@compiled
def log_odds(p: float) -> float:
    """Log odds of `p`, clipped."""
    q = min(max(p, CLIP), 1.0 - CLIP)
    return math.log(q / (1.0 - q))


@compiled
def start(pool: Floats) -> None:
    """Begin with the two means on a par."""
    pool[:] = 0.0
    pool[0] = 0.5
    pool[1] = 0.5
    for a in range(INPUTS):
        pool[INPUTS + a * INPUTS + a] = _VARIANCE


@compiled
def pooled(pool: Floats, mean: float, mean_log_odds: float) -> float:
    """Probability by the present coefficients."""
    p = sigmoid(pool[0] * log_odds(mean) + pool[1] * mean_log_odds + pool[2])
    return min(max(p, CLIP), 1.0 - CLIP)


@compiled
def learn_pool(pool: Floats, mean: float, mean_log_odds: float, won: int) -> None:
    """Correct the coefficients by one outcome."""
    p = pooled(pool, mean, mean_log_odds)
    inputs = (log_odds(mean), mean_log_odds, 1.0)
    covariance = shaped(pool[INPUTS:], (INPUTS, INPUTS))
    curvature = max(p * (1.0 - p), _FLATTEST)
    g0 = 0.0
    g1 = 0.0
    g2 = 0.0
    for b in range(INPUTS):
        g0 += covariance[0, b] * inputs[b]
        g1 += covariance[1, b] * inputs[b]
        g2 += covariance[2, b] * inputs[b]
    gains = (g0, g1, g2)
    scale = 1.0 / (1.0 + curvature * (g0 * inputs[0] + g1 * inputs[1] + g2))
    for a in range(INPUTS):
        pool[a] += gains[a] * scale * (won - p)
        for b in range(INPUTS):
            covariance[a, b] -= curvature * scale * gains[a] * gains[b]
        if covariance[a, a] < _VARIANCE:
            covariance[a, a] += _DRIFT[a]
