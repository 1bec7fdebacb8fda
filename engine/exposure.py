"""Which trades are open that were taken: what caps and correlation are judged by."""

from collections import Counter

from engine.ledger import OpenSignal
from engine.policy import Exposure
from streams.events import Signal


class OpenTrades:
    """Counts open taken trades, by symbol and by strategy and side. A view of the ledger."""

    def __init__(self) -> None:
        self._count = 0
        self._groups: Counter[tuple[str | None, ...]] = Counter()

    def facing(self, signal: Signal) -> Exposure:
        """What is open beside this signal."""
        alike = (signal.strategy, signal.side)
        return Exposure(
            self._count,
            self._groups[signal.symbol,],
            self._groups[alike] - self._groups[signal.symbol, *alike],
        )

    def opened(self, trade: OpenSignal) -> None:
        """A signal was decided."""
        self._change(trade, 1)

    def ended(self, trade: OpenSignal) -> None:
        """It was closed, or has expired."""
        self._change(trade, -1)

    def _change(self, trade: OpenSignal, by: int) -> None:
        if trade.action == "skip":
            return
        self._count += by
        alike = (trade.strategy, trade.side)
        for group in ((trade.symbol,), alike, (trade.symbol, *alike)):
            self._groups[group] += by
            if not self._groups[group]:
                del self._groups[group]
