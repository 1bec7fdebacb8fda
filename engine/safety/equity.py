"""What taken trades made of the equity, and how far it is below its highest point."""

from collections import deque
from collections.abc import Iterable


class Equity:
    """What taken trades made of a share of equity, and how far it is below its highest point.

    Parameters
    ----------
    window
        Trades that the highest point is looked for in.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.trades = 0
        self.now = 0.0
        """Percent of equity won or lost since the beginning, not compounded."""
        # Trade number and equity of what may yet be the highest point, falling: a window maximum.
        self._peaks: deque[tuple[int, float]] = deque([(0, 0.0)])

    @property
    def drawdown(self) -> float:
        """Percent of equity below the highest point of the window."""
        return self._peaks[0][1] - self.now

    def add(self, gain_pct: float) -> None:
        """A trade brought so many percent of equity."""
        self.trades += 1
        self.now += gain_pct
        peaks = self._peaks
        while peaks and peaks[-1][1] <= self.now:
            peaks.pop()
        peaks.append((self.trades, self.now))
        while peaks[0][0] < self.trades - self.window:
            peaks.popleft()

    def clear(self) -> None:
        """The highest point is now."""
        self._peaks = deque([(self.trades, self.now)])

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "trades": self.trades,
            "now": self.now,
            "peaks": [list(peak) for peak in self._peaks],
        }

    def restore(self, trades: int, now: float, peaks: Iterable[tuple[int, float]]) -> None:
        """Go on from what `state` gave."""
        self.trades, self.now = trades, now
        self._peaks = deque((number, equity) for number, equity in peaks)
