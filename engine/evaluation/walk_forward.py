"""Walk-forward windows: fresh cores, each trained on a stretch of the tape, judged on the next.

A prequential pass asks how one model that began at the tape's first line did. Walk-forward asks
what a user gets who starts anew, again and again, with so many closes of history, which shows
whether the result hangs on one lucky start.

A window is trained on `train` closes and judged on the next `step`. In the judged stretch its core
goes on learning from each close, as it does live: a core is never frozen, and none of its closes is
judged by a model that has seen it. A signal decided before the border, whose trade was still open
there, is purged: it is learned, not judged. So is one decided during the `embargo` after it. The
next window begins `step` closes on, so that each close of the tape is judged in one window at most.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from engine.core import Core
from engine.evaluation.prequential import Lines, Outcomes, run, running_base_rate
from streams.tape import Line

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """Which lines of a tape a window is made of, from 0, each end exclusive.

    Parameters
    ----------
    start, border, end
        Where training begins; where it ends and judging begins; where that ends.
    judged_from
        Signals decided from here on are judged; the border, or later by the embargo.
    """

    start: int
    border: int
    judged_from: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What came of a window.

    Parameters
    ----------
    window
        Its lines.
    outcomes
        Those judged.
    base_rate
        The running base rate when each was decided, learned in this window alone.
    purged, embargoed
        Closes of the judged stretch left out: their signal came before the border, or during the
        embargo.
    """

    window: Window
    outcomes: Outcomes
    base_rate: Floats
    purged: int
    embargoed: int


def windows(learned_at: Lines, train: int, step: int, embargo: int = 0) -> list[Window]:
    """The windows of a tape.

    Parameters
    ----------
    learned_at
        On which line each close of the tape was learned, from a prequential run.
    train, step, embargo
        In closes. The last window is judged on what is left, if that is at least half a step.

    Raises `ValueError` when the tape has too few closes for one window, or the embargo leaves
    nothing of a step.
    """
    if embargo >= step:
        raise ValueError(
            f"embargo {embargo:,}: nothing is left of a step of {step:,} closes; lower it"
        )
    # Lines after the k-th close.
    after = np.concatenate([[0], learned_at + 1])
    closes = len(learned_at)
    shortest = max(step // 2, 1)
    if closes < train + shortest:
        raise ValueError(
            f"train {train:,} and step {step:,}: the tape has {closes:,} closes, and one window "
            f"needs {train + shortest:,}; lower them"
        )
    return [
        Window(
            int(after[first]),
            int(after[first + train]),
            int(after[min(first + train + embargo, closes)]),
            int(after[min(first + train + step, closes)]),
        )
        for first in range(0, closes - train - shortest + 1, step)
    ]


def walk_forward(
    new_core: Callable[[], Core],
    lines: Iterable[Line],
    chosen: list[Window],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Judged]:
    """Train and judge a fresh core on each window.

    Parameters
    ----------
    new_core
        Makes an empty one.
    lines
        The tape, which can be iterated again and again.
    chosen
        From `windows`.
    progress
        Called now and then with how many lines of all windows are done.
    """
    found = []
    done = 0

    def tell(events: int) -> None:
        progress(done + events)

    for window in chosen:
        part = islice(lines, window.start, window.end)
        found.append(_judged(window, run(new_core(), part, tell).outcomes))
        done += window.end - window.start
    return found


def _judged(window: Window, outcomes: Outcomes) -> Judged:
    decided = outcomes.decided_at + window.start
    judged = outcomes.learned_at + window.start >= window.border
    purged = judged & (decided < window.border)
    embargoed = judged & ~purged & (decided < window.judged_from)
    kept = judged & ~purged & ~embargoed
    return Judged(
        window,
        outcomes.select(kept),
        running_base_rate(outcomes)[kept],
        int(purged.sum()),
        int(embargoed.sum()),
    )


def pooled(judged: list[Judged]) -> tuple[Outcomes, Floats]:
    """All windows' outcomes in order, and the base rates beside them."""
    parts = [each.outcomes for each in judged]
    columns = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts])
        for each in fields(Outcomes)[:-1]
    }
    names = dict.fromkeys(name for part in parts for name in part.experts)
    experts = {
        name: np.concatenate([part.experts.get(name, np.full(len(part), np.nan)) for part in parts])
        for name in names
    }
    base_rate = np.concatenate([each.base_rate for each in judged])
    return Outcomes(**columns, experts=experts), base_rate
