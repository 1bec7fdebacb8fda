"""Windows over the newest values, in constant time and bounded memory."""

from collections import deque
from collections.abc import Iterable


class Sums:
    """The sums over the newest rows of small whole or real numbers.

    Parameters
    ----------
    window
        Rows that count.
    columns
        Numbers in a row.
    """

    def __init__(self, window: int, columns: int) -> None:
        self.window = window
        self._columns = columns
        self._rows: deque[tuple[float, ...]] = deque()
        self.sums = [0.0] * columns

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether as many rows have come as count."""
        return len(self._rows) == self.window

    def add(self, row: tuple[float, ...]) -> None:
        """Take in a row; the oldest goes when there is one too many."""
        self._rows.append(row)
        sums = self.sums
        if len(self._rows) > self.window:
            for column, (new, old) in enumerate(zip(row, self._rows.popleft(), strict=True)):
                sums[column] += new - old
        else:
            for column, new in enumerate(row):
                sums[column] += new

    def clear(self) -> None:
        """Begin anew."""
        self._rows.clear()
        self.sums = [0.0] * self._columns

    def state(self) -> dict[str, object]:
        """All that `restore` needs. The sums too: what rounding left in them goes on."""
        return {"rows": [list(row) for row in self._rows], "sums": list(self.sums)}

    def restore(self, rows: Iterable[Iterable[float]], sums: Iterable[float]) -> None:
        """Go on from what `state` gave."""
        self._rows = deque(tuple(row) for row in rows)
        self.sums = list(sums)


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
