"""The ledger: open signals waiting for their closes, early closes waiting for their signals.

Rules:
- A signal is open from its decision until its close, or until `expire` of event time has passed.
  One from the future makes nobody wait behind it.
- Everything frozen at the decision (vector, experts' probabilities) is kept with it, so that a
  close is learned on what was known then, whatever the bot sends later.
- A close without a signal is parked for `park`. If its signal comes, the two are joined at once.
- Ended signals (closed, expired) are remembered, so that what is sent again is known for it.
- All of it is bounded, in bytes too: of a parked close's `meta` nothing is kept but the bytes it
  came in. Past a bound the oldest goes.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from learners import Frozen, Outlook, Votes
from streams.events import Action, Arm, Baseline, Close, Mode, Side, decode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(ts: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (ts - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The inverse of `to_micros`."""
    return _EPOCH + micros * _MICROSECOND


@dataclass(slots=True, eq=False)  # not frozen: that takes three times as long to build
class OpenSignal:
    """What was known and decided about a signal. Never changed."""

    signal_id: str
    ts: datetime
    symbol: str
    side: Side
    strategy: str | None
    baseline: Baseline | None
    regime: str | None
    action: Action
    size_multiplier: float
    position: float | None
    """The position as a fraction of equity; None where only the bot knows its size."""
    propensity: float
    arm: Arm | None
    """Whose decision it is; None: the kill switch's."""
    mode: Mode
    advised: Action
    """What the model would have done."""
    advised_size: float
    update: int
    """Closes learned before the decision."""
    outlook: Outlook
    row: NDArray[np.float64]
    frozen: Frozen
    votes: Votes


@dataclass(frozen=True, slots=True)
class ParkedClose:
    """A close that came before its signal, as it came."""

    entry_id: str
    data: bytes
    close: Close


class Ledger:
    """Open signals by ID, in the order they were opened.

    Parameters
    ----------
    max_open, max_parked, remember
        Bounds on open signals, parked closes and remembered ended signals.
    expire, park
        Event time after which an open signal, or a parked close, is given up.
    """

    def __init__(
        self, max_open: int, max_parked: int, remember: int, expire: timedelta, park: timedelta
    ) -> None:
        self.max_open = max_open
        self.max_parked = max_parked
        self.remember = remember
        self.expire = expire
        self.park = park
        # Not plain dicts: to find its first, a dict walks over all that was deleted before it.
        self.open: OrderedDict[str, OpenSignal] = OrderedDict()
        self.parked: OrderedDict[str, ParkedClose] = OrderedDict()
        # Ended signals' fingerprints, and in which order; True where the signal had a close. An
        # ordered dict of so many would take new memory for years.
        self._ended: dict[int, bool] = {}
        self._order: deque[int] = deque()

    def has_ended(self, signal_id: str) -> bool:
        """Whether this signal was closed or expired, as far as is remembered."""
        return _fingerprint(signal_id) in self._ended

    def has_closed(self, signal_id: str) -> bool:
        """Whether this signal was closed, as far as is remembered."""
        return self._ended.get(_fingerprint(signal_id), False)

    def close(self, signal_id: str) -> OpenSignal:
        """Take the open signal `signal_id` out, for good."""
        opened = self.open.pop(signal_id)
        self._end(signal_id, closed=True)
        return opened

    def park_close(self, entry_id: str, data: bytes, close: Close) -> None:
        """Keep a close until its signal comes."""
        if close.meta is not None:
            # Decoded, 64 KiB of JSON can take megabytes.
            close = replace(close, meta=None)
        self.parked[close.signal_id] = ParkedClose(entry_id, data, close)

    def overdue(self, now: datetime) -> Iterator[OpenSignal | ParkedClose]:
        """Take out what has waited too long at event time `now`, or stands past a bound."""
        # Insertion order stands in for time order: the front is looked at, not the whole ledger.
        # What is ahead of event time, for an hour or for ever, goes to the end instead.
        while self.open:
            oldest = next(iter(self.open.values()))
            if len(self.open) <= self.max_open and now - oldest.ts <= self.expire:
                if oldest.ts > now:
                    self.open.move_to_end(oldest.signal_id)
                break
            del self.open[oldest.signal_id]
            self._end(oldest.signal_id, closed=False)
            yield oldest
        while self.parked:
            waiting = next(iter(self.parked.values()))
            if len(self.parked) <= self.max_parked and now - waiting.close.ts <= self.park:
                if waiting.close.ts > now:
                    self.parked.move_to_end(waiting.close.signal_id)
                break
            del self.parked[waiting.close.signal_id]
            yield waiting

    def _end(self, signal_id: str, closed: bool) -> None:
        fingerprint = _fingerprint(signal_id)
        self._ended[fingerprint] = closed
        self._order.append(fingerprint)
        if len(self._order) > self.remember:
            self._ended.pop(self._order.popleft(), None)

    def state(self) -> dict[str, object]:
        """The ledger as plain values and arrays, without the entry IDs of parked closes."""
        opened = list(self.open.values())
        count = len(self._order)
        return {
            "open": [
                [
                    o.signal_id, to_micros(o.ts), o.symbol, o.side, o.strategy, o.baseline,
                    o.regime, o.action, o.size_multiplier, o.position, o.propensity, o.arm, o.mode,
                    o.advised, o.advised_size, o.update,
                ]
                for o in opened
            ],
            "outlooks": [list(o.outlook) for o in opened],
            "rows": [o.row for o in opened],
            "frozen": [list(o.frozen) for o in opened],
            "votes": [list(o.votes) for o in opened],
            "parked": [parked.data for parked in self.parked.values()],
            "ended": np.fromiter(self._order, np.uint64, count),
            "ended_closed": np.fromiter(map(self._ended.get, self._order), np.bool_, count),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], parked_ids: Sequence[str]) -> None:
        """Go on from `state` and the entry IDs of its parked closes."""
        self.open.clear()
        parts = (state[name] for name in ("open", "outlooks", "rows", "frozen", "votes"))
        for (name, micros, *rest), outlook, row, frozen, votes in zip(*parts, strict=True):
            voted = tuple((mean, log_odds) for mean, log_odds in votes)
            p, p_interval, expected, deviation, interval, risk = outlook
            beliefs = Outlook(
                p,
                tuple(p_interval),
                expected,
                deviation,
                None if interval is None else tuple(interval),
                risk,
            )
            fields = [name, from_micros(micros), *rest, beliefs, row, Frozen(*frozen), voted]
            self.open[name] = OpenSignal(*fields)
        self.parked.clear()
        for entry_id, data in zip(parked_ids, state["parked"], strict=True):
            close = decode(data)
            assert isinstance(close, Close)
            self.park_close(entry_id, data, close)
        self._order = deque(state["ended"].tolist())
        self._ended = dict(zip(self._order, state["ended_closed"].tolist(), strict=True))


def _fingerprint(signal_id: str) -> int:
    """64 bits of a hash: a million remembered IDs collide with a chance of 3e-8."""
    return int.from_bytes(hashlib.blake2b(signal_id.encode(), digest_size=8).digest(), "big")
