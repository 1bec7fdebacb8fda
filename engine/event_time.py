"""Event time: where a shard stands in time, by what its events say and by no clock.

The events' own times come from bots, whose clocks may be wrong or lie. So event time is the median
of the last few: one event of the year 9999 doesn't move it, however often it is sent, and what a
wrong clock did to it is over once other events have followed. It may therefore go back.
"""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime

from engine.ledger import from_micros, to_micros

MEDIAN_OF = 15
"""Events whose times count: fewer than half of them may be wrong. It lags by half of them."""

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
"""Before the first event."""


class EventTime:
    """The lower median of the last `MEDIAN_OF` times seen; before the first, `BEGINNING`."""

    def __init__(self) -> None:
        self.now = BEGINNING
        self._last: deque[datetime] = deque(maxlen=MEDIAN_OF)

    def see(self, ts: datetime) -> None:
        """Take in the time of one event. An event that is sent again doesn't count again."""
        self._last.append(ts)
        self.now = sorted(self._last)[(len(self._last) - 1) // 2]

    def state(self) -> list[int]:
        """The times seen last, oldest first, in microseconds since 1970."""
        return [to_micros(ts) for ts in self._last]

    def restore(self, state: Iterable[int]) -> None:
        """Go on from `state`."""
        self.now = BEGINNING
        self._last.clear()
        for micros in state:
            self.see(from_micros(micros))
