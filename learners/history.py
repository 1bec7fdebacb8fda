"""The engine's own history features: how the last closes went, overall and per symbol."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from math import nan
from typing import cast

HISTORY_NAMES = (
    "win_rate",
    "mean_return",
    "symbol_win_rate",
    "symbol_mean_return",
    "drawdown",
)
"""What `History.features` gives, in its order."""

MAX_RETURN_PCT = 1e6
"""Returns are cut to this many percent either way, so that sums of them stay finite."""


class _Recent:
    """The last few returns and their summary. The sum is taken anew, so it can't drift."""

    __slots__ = ("returns", "summary", "wins")

    def __init__(self, returns: Iterable[float], closes: int) -> None:
        self.returns: deque[float] = deque(maxlen=closes)
        self.wins = 0
        self.summary = (nan, nan)
        for return_pct in returns:
            self.add(return_pct)

    def add(self, return_pct: float) -> None:
        returns = self.returns
        if len(returns) == returns.maxlen:
            self.wins -= returns[0] > 0.0
        returns.append(return_pct)
        self.wins += return_pct > 0.0
        self.summary = (self.wins / len(returns), sum(returns) / len(returns))


class History:
    """Win rate and mean return of the last closes, and the current drawdown.

    Every call costs the same however many closes there were.

    Parameters
    ----------
    closes
        How many closes the rates look back on.
    max_symbols
        How many symbols are remembered; the one whose last close is the oldest goes first.
    """

    def __init__(self, closes: int = 10, max_symbols: int = 1024) -> None:
        self.closes = closes
        self.max_symbols = max_symbols
        self._overall = _Recent((), closes)
        self._symbols: OrderedDict[str, _Recent] = OrderedDict()  # by their last close
        self._drawdown = nan
        self._total = 0.0
        self._peak = 0.0

    def features(self, symbol: str) -> tuple[float, ...]:
        """The values of `HISTORY_NAMES` for a signal of `symbol`; NaN where nothing is known.

        Win rates are in [0, 1], returns in percent. The drawdown, in percent, is how far the
        cumulative sum of returns is below its highest value so far, where it began at 0.
        """
        recent = self._symbols.get(symbol)
        own = (nan, nan) if recent is None else recent.summary
        return (*self._overall.summary, *own, self._drawdown)

    def learn(self, symbol: str, return_pct: float) -> None:
        """Take in one close."""
        value = min(max(return_pct, -MAX_RETURN_PCT), MAX_RETURN_PCT)
        self._overall.add(value)
        recent = self._symbols.pop(symbol, None) or _Recent((), self.closes)
        recent.add(value)
        self._symbols[symbol] = recent
        if len(self._symbols) > self.max_symbols:
            self._symbols.popitem(last=False)
        self._total += value
        self._peak = max(self._peak, self._total)
        self._drawdown = self._peak - self._total

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "overall": list(self._overall.returns),
            "symbols": [[name, list(recent.returns)] for name, recent in self._symbols.items()],
            "drawdown": self._drawdown,
            "total": self._total,
            "peak": self._peak,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the history whose `state` this is."""
        self._overall = _Recent(cast(list[float], state["overall"]), self.closes)
        symbols = cast(list[tuple[str, list[float]]], state["symbols"])
        self._symbols.clear()
        self._symbols.update((name, _Recent(returns, self.closes)) for name, returns in symbols)
        self._drawdown = cast(float, state["drawdown"])
        self._total = cast(float, state["total"])
        self._peak = cast(float, state["peak"])
