"""Shares over the newest closes that are past a threshold beyond doubt, all in one compiled call.

Three kinds of figures, each over a window of its own that must be full:

- `ACCURACY`: the share of closes that the probability called, above a half for a win.
- `BEHIND`: points by which the trades taken win more rarely than those that the baseline takes.
- `MISCALIBRATION`: points between the mean probability and the share that won.

A figure is past its threshold when it is by more than `DOUBT` standard errors, and back when the
plain figure is. Between the two nothing is said.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from drift.native import BUFFER, INTEGER, NUMBER, READ_ONLY, Floats, entry, ready

DOUBT = 3.0
"""Standard errors past a threshold at which nobody calls it luck. (A normal deviate of 3 is passed
by luck alone once in 741 independent windows; trades that overlap win and lose together.)"""
LEAST_TRADES = 50
"""Taken trades of a window below which their win rate says nothing."""
ACCURACY, BEHIND, MISCALIBRATION = 0, 1, 2
NOTHING, BACK, PAST = 0, 1, 2
"""What is said of a figure."""

# A figure's settings: kind, offset of its block, window, threshold. Its block: rows held, where the
# next goes, four sums, then the rows.
_SETTINGS = 4
_HEAD = 6
_COLUMNS = 4


@entry(INTEGER, BUFFER, READ_ONLY, NUMBER, NUMBER, NUMBER, NUMBER)
def watch_close(
    blocks: Floats, settings: Floats, p: float, won: float, taken: float, echoed: float
) -> int:
    """Take a close into each window; returns what is said of each figure, two bits each."""
    said = 0
    for figure in range(len(settings) // _SETTINGS):
        kind = int(settings[figure * _SETTINGS])
        at = int(settings[figure * _SETTINGS + 1])
        window = int(settings[figure * _SETTINGS + 2])
        threshold = settings[figure * _SETTINGS + 3]
        row = at + _HEAD + int(blocks[at + 1]) * _COLUMNS
        if blocks[at] == window:
            for column in range(_COLUMNS):
                blocks[at + 2 + column] -= blocks[row + column]
        else:
            blocks[at] += 1.0
        blocks[at + 1] = (blocks[at + 1] + 1.0) % window
        if kind == ACCURACY:
            blocks[row] = 1.0 if (p > 0.5) == (won > 0.0) else 0.0
        elif kind == BEHIND:
            blocks[row] = taken
            blocks[row + 1] = taken * won
            blocks[row + 2] = echoed
            blocks[row + 3] = echoed * won
        else:
            blocks[row] = p
            blocks[row + 1] = won
            blocks[row + 2] = p * (1.0 - p)
        for column in range(_COLUMNS):
            blocks[at + 2 + column] += blocks[row + column]
        if blocks[at] < window:
            continue
        a, b = blocks[at + 2], blocks[at + 3]
        c, d = blocks[at + 4], blocks[at + 5]
        if kind == ACCURACY:
            share = a / window
            past = share + DOUBT * sqrt(share * (1.0 - share) / window) < threshold
            back = share >= threshold
        elif kind == BEHIND:
            if a < LEAST_TRADES or c < LEAST_TRADES:
                continue
            rate, base = b / a, d / c
            behind = 100.0 * (base - rate)
            error = 100.0 * sqrt(rate * (1.0 - rate) / a + base * (1.0 - base) / c)
            past = behind - DOUBT * error > threshold
            back = behind <= threshold
        else:
            off = 100.0 * abs(a - b) / window
            past = off - DOUBT * 100.0 * sqrt(max(c, 0.0)) / window > threshold
            back = off <= threshold
        if past:
            said |= PAST << 2 * figure
        elif back:
            said |= BACK << 2 * figure
    return said


class Figure(NamedTuple):
    """A figure that is watched.

    Parameters
    ----------
    kind
        `ACCURACY`, `BEHIND` or `MISCALIBRATION`.
    window
        Closes.
    threshold
        A share for `ACCURACY`, else points.
    """

    kind: int
    window: int
    threshold: float


class ShareMonitors:
    """Watches figures over closes.

    Parameters
    ----------
    figures
        Which.
    """

    def __init__(self, figures: Sequence[Figure]) -> None:
        self._figures = list(figures)
        self._offsets = []
        size = 0
        for figure in figures:
            self._offsets.append(size)
            size += _HEAD + _COLUMNS * figure.window
        self._blocks = np.zeros(size)
        self._settings = np.array(
            [
                number
                for figure, offset in zip(figures, self._offsets, strict=True)
                for number in (figure.kind, offset, figure.window, figure.threshold)
            ],
            np.float64,
        )
        ready(watch_close)

    def update(self, p: float, won: bool, taken: bool, echoed: bool) -> int:
        """A close came: two bits a figure, from the lowest on, `NOTHING`, `BACK` or `PAST`.

        Parameters
        ----------
        p
            Its probability of a win.
        won, taken, echoed
            Whether it won, was taken, and would be taken by the baseline.
        """
        return watch_close(self._blocks, self._settings, p, float(won), float(taken), float(echoed))

    def sums(self, figure: int) -> list[float]:
        """The sums of a figure's window: calls right; or taken, won of them, baseline's, won of
        them; or probabilities, won.
        """
        at = self._offsets[figure] + 2
        sums: list[float] = self._blocks[at : at + _COLUMNS].tolist()
        return sums

    def clear(self, figure: int) -> None:
        """Begin a figure's window anew."""
        at = self._offsets[figure]
        self._blocks[at : at + _HEAD + _COLUMNS * self._figures[figure].window] = 0.0

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"blocks": self._blocks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the monitors, of the same figures, whose `state` this is."""
        self._blocks[:] = state["blocks"]
