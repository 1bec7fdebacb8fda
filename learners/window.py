"""The sliding window of closes that refits are fitted on, and when they are launched and installed.

A refit launched at close ``k`` is installed at close ``k + lag``, never sooner or later, however
long the fit took. The window keeps ``lag`` closes more than a refit needs, so that until then the
very same job can be made again, in another process or after a crash.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from math import nan
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class WindowView:
    """Closes of the window, oldest first; copies, of shapes (closes, columns) and (closes,)."""

    rows: NDArray[np.float32]
    won: NDArray[np.bool_]
    returns: NDArray[np.float64]
    sized: NDArray[np.float64]
    opened: NDArray[np.float64]
    closed: NDArray[np.float64]


class RefitWindow:
    """A preallocated ring of the newest closes: their rows, labels, returns and times.

    Parameters
    ----------
    size
        How many closes one refit sees.
    lag
        For how many closes after its launch a refit's job can still be made.
    """

    def __init__(self, size: int = 8000, lag: int = 50) -> None:
        self.size = size
        self.lag = lag
        self.closes = 0
        """Closes added since the beginning."""
        self._capacity = size + lag
        self.columns = 0
        """Of the widest row so far."""
        self._rows = np.full((self._capacity, 0), nan, np.float32)
        # Return in percent and in usual sizes, opened, closed.
        self._facts = np.zeros((self._capacity, 4))

    def add(
        self,
        row: NDArray[np.float64],
        return_pct: float,
        opened: float,
        closed: float,
        usual_pct: float = 1.0,
    ) -> None:
        """Take in one close: its row as decided, its return, its times in seconds since 1970.

        `usual_pct` is the usual size of such a return.
        """
        columns = len(row)
        if columns > self.columns:
            self._widen(columns)
        at = self.closes % self._capacity
        held = self._rows[at]
        held[:columns] = row
        if columns < self.columns:
            held[columns:] = nan
        self._facts[at] = (return_pct, return_pct / usual_pct, opened, closed)
        self.closes += 1

    def at(self, closes: int) -> WindowView:
        """The last `size` closes as they were when `closes` had been added.

        `LookupError` when that is in the future or more than `lag` closes ago.
        """
        if not self.closes - self.lag <= closes <= self.closes:
            raise LookupError(
                f"the window at close {closes} is not to be had at close {self.closes}: "
                f"it goes back {self.lag} closes"
            )
        return self._view(max(closes - self.size, 0), closes)

    def state(self) -> dict[str, object]:
        """All that `restore` needs: the closes held, oldest first."""
        held = self._view(max(self.closes - self._capacity, 0), self.closes)
        return {
            "closes": self.closes,
            "rows": held.rows,
            "returns": held.returns,
            "sized": held.sized,
            "opened": held.opened,
            "closed": held.closed,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the window whose `state` this is."""
        rows = cast(NDArray[np.float32], state["rows"])
        self.closes = cast(int, state["closes"])
        self.columns = 0
        self._rows = np.full((self._capacity, 0), nan, np.float32)
        self._widen(rows.shape[1])
        at = np.arange(self.closes - len(rows), self.closes) % self._capacity
        self._rows[at, : rows.shape[1]] = rows
        for column, name in enumerate(("returns", "sized", "opened", "closed")):
            self._facts[at, column] = cast(NDArray[np.float64], state[name])

    def _view(self, start: int, stop: int) -> WindowView:
        facts = self._held(self._facts, start, stop)
        return WindowView(
            rows=self._held(self._rows[:, : self.columns], start, stop),
            won=facts[:, 0] > 0.0,
            returns=facts[:, 0].copy(),
            sized=facts[:, 1].copy(),
            opened=facts[:, 2].copy(),
            closed=facts[:, 3].copy(),
        )

    def _held(self, ring: NDArray[T], start: int, stop: int) -> NDArray[T]:
        """Closes `start` to `stop` out of a ring, as a copy: in one piece or two."""
        at = start % self._capacity
        first = ring[at : at + stop - start]
        return np.concatenate((first, ring[: stop - start - len(first)]))

    def _widen(self, columns: int) -> None:
        """Room for `columns` columns, missing in the rows held."""
        if columns > self._rows.shape[1]:
            # To spare by a quarter: features tend to come in groups, and each growth is a copy.
            rows = np.full((self._capacity, columns + columns // 4), nan, np.float32)
            rows[:, : self._rows.shape[1]] = self._rows
            self._rows = rows
        self.columns = columns


@dataclass(frozen=True, slots=True)
class Due:
    """What one close makes due: first installing, then launching.

    Parameters
    ----------
    install
        The close at which the refit to be installed now was launched.
    launch
        This close, when a refit is to be launched at it.
    """

    install: int | None = None
    launch: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A refit that is asked for.

    Parameters
    ----------
    cause
        Why: ``closes``, ``drift``, ``daily``, ``weekly``, or who asked.
    full
        Whether several shapes are tried.
    forced
        Whether it is installed whatever the gate says.
    """

    cause: str
    full: bool = False
    forced: bool = False


class RefitSchedule:
    """Counts closes: a refit every `every` closes and whenever one is asked for, never two at once.

    Parameters
    ----------
    every
        A refit is launched when the number of closes is a multiple of this.
    lag
        How many closes after its launch a refit is installed, at least 1.
    """

    def __init__(self, every: int = 500, lag: int = 50) -> None:
        self.every = every
        self.lag = lag
        self.pending: int | None = None
        """The close at which the refit under way was launched."""
        self.order = Order("closes")
        """What that one was launched for."""
        self.done = self.order
        """What the one that was due last was launched for."""
        self._wanted: Order | None = None

    def ask(self, order: Order) -> None:
        """Ask for a refit at the next close, or as soon as the one under way is installed.

        Of two that are asked for one is made: full, or forced, if either is.
        """
        if self._wanted is not None:
            had = self._wanted
            keep = had if had.forced or not order.forced else order
            order = Order(keep.cause, had.full or order.full, had.forced or order.forced)
        self._wanted = order

    def step(self, closes: int) -> Due:
        """What is due now that `closes` closes are learned. Call it once a close."""
        install = launch = None
        if self.pending is not None and closes >= self.pending + self.lag:
            install, self.pending, self.done = self.pending, None, self.order
        if self.pending is None and (self._wanted is not None or closes % self.every == 0):
            launch = self.pending = closes
            self.order, self._wanted = self._wanted or Order("closes"), None
        return Due(install, launch)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "pending": self.pending,
            "order": list(astuple(self.order)),
            "wanted": None if self._wanted is None else list(astuple(self._wanted)),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the schedule whose `state` this is."""
        self.pending = state["pending"]
        self.order = Order(*state["order"])
        self._wanted = None if state["wanted"] is None else Order(*state["wanted"])
