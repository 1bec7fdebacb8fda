"""An anytime-valid test of two arms: a confidence sequence for the difference of their means.

A confidence interval holds at one moment chosen beforehand; who looks at it after every close is
soon deceived. A confidence sequence holds at all times together: the chance that it ever leaves out
the true difference is at most `alpha`, however often and for whatever reason somebody looks.

How it is made:

1. Within a stage signals are dealt to the arms at a constant rate. There the difference of the
   means D is a weighted sum of returns (a trade weighs ``1 / n_model`` less ``1 / n_baseline``,
   where it stands in both arms). Its variance v is the larger of two: that of independent returns
   with a common spread, and that of sums over days, since trades of a day overlap and correlate
   (Liang and Zeger 1986, Biometrika 73).
2. In shadow the arms share trades, which cancel out in D. So D is scaled by h, the share of the
   weight on which the arms differ: D / h is the contrast of what one would take and what the other
   would, its information ``I = h^2 / v`` only grows, and counts effective pairs of trades. With
   arms that share nothing h is 1.
3. Stages are strata: each adds ``D h / v`` to the score S and ``h^2 / v`` to the information I, so
   what the market did between two stages isn't taken for a difference of the arms. S is then
   asymptotically a Brownian motion in time I, with the true contrast as its drift (Jennison and
   Turnbull 1997, JASA 92, the canonical joint distribution).
4. Robbins' normal mixture bounds that at all times at once: ``|S - I d| < sqrt((I + r) log((I + r)
   / (r alpha^2)))`` (Robbins 1970; Howard et al. 2021, arXiv:1810.08240, eq. 14; for variances that
   are estimated Waudby-Smith et al. 2024, arXiv:2103.06476, theorem 2.2). Each of its two sides is
   crossed with a chance of at most about ``alpha / 2``.

Why no package: confseq (0.0.11) ships no wheels for Python 3.11 and later, doesn't build there, and
depends on pandas, matplotlib and pytest; ville (0.1.0, a first release) wants a propensity that
stays the same and independent units, and keeps arrays as long as the stream. What is taken from
either is the one formula of step 4.
"""

from collections.abc import Mapping
from math import log, sqrt
from typing import Any

FEWEST_PAIRS = 25.0
"""Effective pairs of trades from which a stage counts: fewer don't tell their own variance."""
TIGHTEST_AT = 1_000.0
"""Effective pairs at which the sequence is as narrow as it can be; it affects no error rate."""
_SUMS = 4


class Difference:
    """The confidence sequence for mean of the model's arm minus mean of the baseline's.

    Parameters
    ----------
    alpha
        The chance that the true difference is ever outside, in (0, 1).

    Attributes
    ----------
    bounds
        The difference, and between what it lies at all times; None while too little is known.

    Notes
    -----
    Costs a few microseconds a value and no memory that grows.
    """

    __slots__ = (
        "_both", "_cluster", "_day", "_ended", "_moments", "_prior", "_squares", "_sums",
        "_total", "_union", "alpha", "bounds",
    )  # fmt: skip

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.bounds: tuple[float, float, float] | None = None
        self._ended = (0.0, 0.0, 0.0)
        # Robbins' r, fixed at the first look, in units of information.
        self._prior = 0.0
        self._clear()

    def _clear(self) -> None:
        # Model's sum and count, baseline's sum and count: of the stage, and of its newest day.
        self._sums = [0.0] * _SUMS
        self._cluster = [0.0] * _SUMS
        # Sums over all earlier days of the products of those four: a symmetric matrix, by rows.
        self._moments = [0.0] * 10
        self._day = 0
        # Every trade once: how many, in both arms how many, sum and sum of squares.
        self._union = 0.0
        self._both = 0.0
        self._total = 0.0
        self._squares = 0.0

    def add(self, day: int, model: bool, baseline: bool, value: float) -> None:
        """Take in what a trade of event day `day` brought, in one arm or in both."""
        if day != self._day:
            self._end_day()
            self._day = day
        sums, cluster = self._sums, self._cluster
        if model:
            sums[0] += value
            sums[1] += 1.0
            cluster[0] += value
            cluster[1] += 1.0
            if baseline:
                self._both += 1.0
        if baseline:
            sums[2] += value
            sums[3] += 1.0
            cluster[2] += value
            cluster[3] += 1.0
        self._union += 1.0
        self._total += value
        self._squares += value * value
        self._look()

    def _end_day(self) -> None:
        a, b, c, d = self._cluster
        m = self._moments
        m[0] += a * a
        m[1] += a * b
        m[2] += a * c
        m[3] += a * d
        m[4] += b * b
        m[5] += b * c
        m[6] += b * d
        m[7] += c * c
        m[8] += c * d
        m[9] += d * d
        self._cluster = [0.0] * _SUMS

    def next_stage(self) -> None:
        """From now on the arms get other shares of the signals: what was seen is a stratum."""
        self._ended = self._evidence()
        self._clear()

    def _look(self) -> None:
        score, information, reached = self._evidence()
        if information <= 0.0:
            self.bounds = None
            return
        after = information + self._prior
        away = sqrt(after * log(after / (self._prior * self.alpha * self.alpha)))
        # Back from the contrast to the difference of the means.
        scale = reached / (information * information)
        self.bounds = (score * scale, (score - away) * scale, (score + away) * scale)

    def _evidence(self) -> tuple[float, float, float]:
        """Score and information of all stages, and the latter times h."""
        x1, n1, x0, n0 = self._sums
        if n1 < 2.0 or n0 < 2.0:
            return self._ended
        both = self._both
        w1, w0 = 1.0 / n1, 1.0 / n0
        # The trades' weights, squared and summed; and h, half the sum of their sizes.
        squared = w1 + w0 - 2.0 * both * w1 * w0
        apart = 0.5 * (both * abs(w1 - w0) + (n1 - both) * w1 + (n0 - both) * w0)
        # Kish's effective size: how many trades against as many would tell as much.
        if apart * apart < FEWEST_PAIRS * squared or squared <= 0.0:
            return self._ended
        pairs = apart * apart / squared
        mean = self._total / self._union
        variance = (self._squares / self._union - mean * mean) * squared
        m1, m0 = x1 * w1, x0 * w0
        # Each day's part in D is e a + f b + g c + h d, with its four sums a, b, c, d.
        e, f, g, h = w1, -m1 * w1, -w0, m0 * w0
        a, b, c, d = self._cluster
        aa, ab, ac, ad, bb, bc, bd, cc, cd, dd = self._moments
        newest = e * a + f * b + g * c + h * d
        by_day = (
            newest * newest
            + e * (e * aa + 2.0 * (f * ab + g * ac + h * ad))
            + f * (f * bb + 2.0 * (g * bc + h * bd))
            + g * (g * cc + 2.0 * h * cd)
            + h * h * dd
        )
        if by_day > variance:
            variance = by_day
        # Values that are all the same leave rounding errors, and nothing to compare.
        if variance <= 1e-12 * self._squares / self._union * squared:
            return self._ended
        information = apart * apart / variance
        if self._prior == 0.0:
            self._prior = information / pairs * TIGHTEST_AT / _growth(self.alpha)
        ended_score, ended_information, ended_reached = self._ended
        return (
            ended_score + (m1 - m0) * apart / variance,
            ended_information + information,
            ended_reached + information * apart,
        )

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "ended": list(self._ended),
            "prior": self._prior,
            "sums": list(self._sums),
            "cluster": list(self._cluster),
            "moments": list(self._moments),
            "day": self._day,
            "trades": [self._union, self._both, self._total, self._squares],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        score, information, reached = state["ended"]
        self._ended = (score, information, reached)
        self._prior = state["prior"]
        self._sums = list(state["sums"])
        self._cluster = list(state["cluster"])
        self._moments = list(state["moments"])
        self._day = state["day"]
        self._union, self._both, self._total, self._squares = state["trades"]
        self._look()


def _growth(alpha: float) -> float:
    """Information over Robbins' r where the bound is tightest (Howard et al. 2021, section 3.5)."""
    doubt = -2.0 * log(alpha)
    return doubt + log(doubt) + 1.0
