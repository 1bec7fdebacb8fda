"""Which trades are open that were taken: what caps and correlation are judged by."""

from engine.ledger import OpenSignal
from engine.policy import Exposure
from streams.events import Signal


class OpenTrades:
    """Counts open taken trades, by symbol and by strategy and side. A view of the ledger."""

    def __init__(self) -> None:
        self._count = 0
        self._groups: dict[tuple[str | None, ...], int] = {}

    def facing(self, signal: Signal) -> Exposure:
        """What is open beside this signal."""
        symbol, strategy, side = signal.symbol, signal.strategy, signal.side
        opened = self._groups.get
        return Exposure(
            self._count,
            opened((symbol,), 0),
            opened((strategy, side), 0) - opened((symbol, strategy, side), 0),
        )

    def of_strategy(self, strategy: str | None) -> int:
        """How many of a strategy's are open."""
        opened = self._groups.get
        return opened((strategy, "long"), 0) + opened((strategy, "short"), 0)

    def opened(self, trade: OpenSignal) -> None:
        """A signal was decided."""
        self._change(trade, 1)

    def ended(self, trade: OpenSignal) -> None:
        """It was closed, or has expired."""
        self._change(trade, -1)

    def _change(self, trade: OpenSignal, by: int) -> None:
        # Where the baseline is done, the model is judged by the trades it would have open itself.
        echoed = trade.mode == "shadow" or trade.mode == "advisory"
        if (trade.advised if echoed else trade.action) == "skip":
            return
        self._count += by
        alike = (trade.strategy, trade.side)
        for group in ((trade.symbol,), alike, (trade.symbol, *alike)):
            count = self._groups.get(group, 0) + by
            if count:
                self._groups[group] = count
            else:
                del self._groups[group]
