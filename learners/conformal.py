"""Intervals that hold what they promise, whatever the model is worth: online conformal prediction.

No distribution is assumed. How wide an interval must be is read off the errors made so far, and
corrected at each miss and each hit (Gibbs and Candès 2021, Adaptive conformal inference under
distribution shift, arXiv:2106.00170). So on any sequence, the most adverse included, misses exceed
their share by no more than a number that does not grow with the sequence: of T intervals at most
``MISSES * T + room / pace`` miss, where `room` is how far the level can be driven from where it
began until an interval holds all that can come. (Fewer may miss: an interval is never empty.)
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

MISSES = 0.1
"""The share of intervals that may miss."""
_HIGHEST = 0.5  # level of an end: the median
_FARTHEST = 60.0  # doublings beyond the farthest error: more than a return can take


class _Recent:
    """The last numbers, also in order of size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ranked: list[float] = []
        self._order: deque[float] = deque()

    def add(self, value: float) -> None:
        self._order.append(value)
        insort(self.ranked, value)
        if len(self._order) > self.size:
            del self.ranked[bisect_left(self.ranked, self._order.popleft())]

    def state(self) -> list[float]:
        return list(self._order)

    def restore(self, state: Iterable[float]) -> None:
        self._order = deque(state)
        self.ranked = sorted(self._order)


class ReturnInterval:
    """Where the return of a trade will lie, nine times in ten.

    Each side misses one time in twenty. A level of 0 is the farthest error looked back on; below
    it the interval doubles with each miss, so that some fifty in a row reach whatever may come.
    Levels stay at or below one half, so that returns that never vary don't cost what is known of
    those that do: at worst, of T intervals, ``0.1 T + 2 (0.05 / pace + 61 + delay)`` miss.

    Parameters
    ----------
    window
        Closes whose errors are looked back on.
    least
        Until so many closes are known there is no interval.
    pace
        How fast the level follows misses.
    """

    def __init__(self, window: int = 1000, least: int = 50, pace: float = 0.005) -> None:
        self.window = window
        self.least = least
        self.pace = pace
        self.judged = 0
        """Intervals whose return has come."""
        self.covered = 0
        """How many of those held it."""
        self._errors = _Recent(window)
        self._low = self._high = MISSES / 2

    def predict(self, expected: float, scale: float) -> tuple[float, float] | None:
        """The interval, in percent, around an expected return of that usual size."""
        errors = self._errors.ranked
        if len(errors) < self.least:
            return None
        low = errors[int(max(self._low, 0.0) * len(errors))]
        high = errors[-1 - int(max(self._high, 0.0) * len(errors))]
        span = max(errors[-1] - errors[0], 1.0)
        low, high = min(low, high), max(low, high)
        low -= span * self._beyond(self._low)
        high += span * self._beyond(self._high)
        return expected + scale * low, expected + scale * high

    def _beyond(self, level: float) -> float:
        """How many spans of the errors an end lies beyond all of them."""
        return 2.0 ** min(-level / self.pace, _FARTHEST) - 1.0 if level < 0.0 else 0.0

    def learn(
        self, interval: tuple[float, float] | None, expected: float, scale: float, seen: float
    ) -> None:
        """Take in one close: the interval as frozen at the signal, and the return."""
        if interval is not None:
            below, above = seen < interval[0], seen > interval[1]
            self._low = min(self._low + self.pace * (MISSES / 2 - below), _HIGHEST)
            self._high = min(self._high + self.pace * (MISSES / 2 - above), _HIGHEST)
            self.judged += 1
            self.covered += not (below or above)
        self._errors.add((seen - expected) / scale)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "errors": self._errors.state(),
            "levels": [self._low, self._high],
            "judged": self.judged,
            "covered": self.covered,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self._errors.restore(state["errors"])
        self._low, self._high = state["levels"]
        self.judged = state["judged"]
        self.covered = state["covered"]


class ProbabilityInterval:
    """Where the share of wins among trades like this will lie, nine times in ten.

    One trade wins or doesn't: an interval for a probability can be wrong only about many. So
    closes are gathered, by how their probability ranks among the recent ones, into groups of
    `group`; when a group is full its share of wins lies within its mean interval or not. An
    interval is the probability and `width` standard deviations of such a share either way, and
    `width` follows the misses. At ``sqrt(group * q / (1 - q))``, with q the larger of p and 1 - p,
    it holds all shares.

    Parameters
    ----------
    group
        Closes that make a group.
    ranks
        Kinds of groups: by probability, from the lowest fifth to the highest.
    window
        Closes among which probabilities are ranked.
    pace
        How fast the width follows misses.
    """

    def __init__(
        self, group: int = 50, ranks: int = 5, window: int = 500, pace: float = 0.4
    ) -> None:
        self.group = group
        self.ranks = ranks
        self.window = window
        self.pace = pace
        self.judged = 0
        """Groups that are full."""
        self.covered = 0
        """Those whose share of wins lay in the interval."""
        self.width = 1.6449  # of a normal distribution
        self._recent = _Recent(window)
        # By rank: closes, wins, sums of the intervals' ends.
        self._groups = [[0.0, 0.0, 0.0, 0.0] for _ in range(ranks)]

    def predict(self, p: float) -> tuple[float, float]:
        """The interval around the probability `p`."""
        half = self.width * sqrt(p * (1.0 - p) / self.group)
        return max(p - half, 0.0), min(p + half, 1.0)

    def learn(self, p: float, interval: tuple[float, float], won: bool) -> None:
        """Take in one close: probability and interval as frozen at the signal, and the label."""
        ranked = self._recent.ranked
        rank = bisect_left(ranked, p) * self.ranks // (len(ranked) + 1)
        self._recent.add(p)
        sums = self._groups[rank]
        for i, value in enumerate((1.0, won, *interval)):
            sums[i] += value
        if sums[0] == self.group:
            missed = not sums[2] <= sums[1] <= sums[3]
            self.width = max(self.width + self.pace * (missed - MISSES), 0.0)
            self.judged += 1
            self.covered += not missed
            self._groups[rank] = [0.0, 0.0, 0.0, 0.0]

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "recent": self._recent.state(),
            "groups": [list(sums) for sums in self._groups],
            "width": self.width,
            "judged": self.judged,
            "covered": self.covered,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self._recent.restore(state["recent"])
        self._groups = [list(sums) for sums in state["groups"]]
        self.width = state["width"]
        self.judged = state["judged"]
        self.covered = state["covered"]
