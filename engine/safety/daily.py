"""The daily summary: what came of a day of event time, in one alert."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from math import log
from typing import Any

from engine.finding import Finding
from engine.safety.triggers import Trade

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_DAY = timedelta(days=1)


@dataclass(slots=True)
class _Sums:
    signals: int = 0
    taken: int = 0
    closes: int = 0
    wins: int = 0
    taken_closes: int = 0
    taken_wins: int = 0
    equity_pct: float = 0.0
    log_loss: float = 0.0


class DailySummary:
    """Sums up what happens, day by day."""

    def __init__(self) -> None:
        self._day: str | None = None
        self.since = self.until = _BEGINNING
        """When the day is over; and from when on there is nothing to tell until then, even if event
        time goes back. (When it goes back further, a wrong clock was found out.)"""
        self._sums = _Sums()

    def decided(self, taken: bool) -> None:
        """A signal was decided."""
        self._sums.signals += 1
        self._sums.taken += taken

    def closed(self, trade: Trade) -> None:
        """A close was learned."""
        sums = self._sums
        sums.closes += 1
        sums.wins += trade.won
        sums.taken_closes += trade.taken
        sums.taken_wins += trade.taken and trade.won
        sums.equity_pct += trade.gain_pct
        sums.log_loss -= log(trade.probability if trade.won else 1.0 - trade.probability)

    def turn(self, now: datetime, state: str) -> Finding | None:
        """Event time is `now`; the summary of the day before, once, if there was anything in it.

        `state` is the kill switch's.
        """
        if self.since <= now < self.until:
            return None
        before, sums = self._day, self._sums
        over = now >= self.until
        self._day = now.date().isoformat()
        self._set_span()
        if before is None or not over or not (sums.signals or sums.closes):
            return None
        self._sums = _Sums()
        closes = max(sums.closes, 1)
        taken = "no taken trade closed"
        if sums.taken_closes:
            taken = f"{sums.taken_wins:,} of {sums.taken_closes:,} taken trades won"
        message = (
            f"{before}: {sums.signals:,} signals, {sums.taken:,} taken; {sums.closes:,} closes,"
            f" {sums.wins / closes:.1%} won; {taken}, {sums.equity_pct:+.3f} % of equity;"
            f" log loss {sums.log_loss / closes:.4f}; {state}"
        )
        return Finding("info", "daily_summary", before, message, always=True)

    def _set_span(self) -> None:
        if self._day is not None:
            begun = datetime.fromisoformat(self._day).replace(tzinfo=UTC)
            self.since = begun - _DAY if begun > _BEGINNING else begun
            self.until = begun + _DAY if begun < _LAST else datetime.max.replace(tzinfo=UTC)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"day": self._day, **asdict(self._sums)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._day = state["day"]
        self._set_span()
        self._sums = _Sums(**{field.name: state[field.name] for field in fields(_Sums)})
