"""SplitMix64: a random generator whose whole state is one word, saved with the model.

Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators* (OOPSLA 2014).
"""

import math

import numpy as np

from learners.native import Floats, Ints, compiled

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_UNIT = 1.0 / 2.0**53
MOST = 32  # the most a draw can give


@compiled
def uniform(state: Ints) -> float:
    """Draw from [0, 1) and advance `state`, an array of one word."""
    words = state.view(np.uint64)
    z = words[0] + _STEP
    words[0] = z
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * _UNIT


def poisson_table(rate: float) -> Floats:
    """Cumulative probabilities of Poisson(`rate`) up to `MOST`, for `poisson`."""
    probability = math.exp(-rate)
    table = np.empty(MOST)
    total = 0.0
    for k in range(MOST):
        total += probability
        table[k] = total
        probability *= rate / (k + 1)
    return table


@compiled
def poisson(state: Ints, table: Floats) -> int:
    """Draw from the Poisson distribution of `table`, by inversion: one uniform draw each."""
    u = uniform(state)
    k = 0
    for step in table:  # all of it: faster than a search, whose end no processor foresees
        k += u >= step
    return k
