"""What a bot might send that means harm or is broken: each kind aims at one thing that could grow.

Deterministic by its seed. Used by the tests for a short while and by `bench/fuzz.py` for long.
"""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import orjson

from streams.events import MAX_ENTRY_BYTES
from streams.values import MAX_FEATURES, MAX_NAME, MAX_TEXT

_START = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
_AGES = ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z")
_NUMBERS = (1e308, -1e308, 5e-324, 0.0, -0.0, 1e18, 2**53, -(2**63))


class Hostile:
    """An endless source of bytes for the events stream, most of it no larger than `size` bytes."""

    def __init__(self, seed: int = 1, size: int = MAX_ENTRY_BYTES) -> None:
        self._size = size
        self._rng = random.Random(seed)
        self._serial = count()
        self._at = _START
        self._trade: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        kinds: list[Callable[[], bytes]] = [
            self.feature_names, self.categories, self.symbols, self.fat_signal, self.ages,
            self.numbers, self.early_close, self.copies, self.control, self.garbage, self.trade,
        ]  # fmt: skip
        while True:
            self._at += timedelta(seconds=30)
            yield self._rng.choice(kinds)()

    def _name(self) -> str:
        return f"{next(self._serial):x}".rjust(MAX_NAME, "\u20ac")

    def _signal(self, **fields: object) -> bytes:
        ts = self._at.isoformat().replace("+00:00", "Z")
        plain = {"type": "signal", "signal_id": self._name(), "ts": ts, "symbol": "S"}
        return orjson.dumps(plain | {"side": "long", "features": {"rsi": 1.0}} | fields)

    def _close(self, **fields: object) -> bytes:
        ts = self._at.isoformat().replace("+00:00", "Z")
        plain = {"type": "close", "signal_id": self._name(), "ts": ts, "return_pct": 1.0}
        return orjson.dumps(plain | fields)

    def feature_names(self) -> bytes:
        """Names never seen before, as many and as long as they may be."""
        few = {self._name(): 1.0 for _ in range(min(MAX_FEATURES, self._size // 400))}
        return self._signal(features=few)

    def categories(self) -> bytes:
        """A category with a new value each time, as long as it may be."""
        return self._signal(features={"session": self._name() * (MAX_TEXT // MAX_NAME)})

    def symbols(self) -> bytes:
        """A symbol and a strategy never seen before."""
        name = self._name()
        return self._signal(symbol=name, strategy=name)

    def fat_signal(self) -> bytes:
        """Notes that take far more memory decoded than as bytes."""
        return self._signal(meta={"notes": [{}] * (self._size // 3 - 500)})

    def ages(self) -> bytes:
        """An event of another age."""
        kind = self._rng.choice([self._signal, self._close])
        return kind(ts=self._rng.choice(_AGES))

    def numbers(self) -> bytes:
        """The numbers at the edge of what a double holds."""
        features = {f"n{i}": self._rng.choice(_NUMBERS) for i in range(4)}
        return self._signal(features=features, price=self._rng.choice(_NUMBERS))

    def early_close(self) -> bytes:
        """A close for nothing, with notes that decode to megabytes."""
        deep: object = 1
        for _ in range(150):
            deep = [deep]
        return self._close(meta={"deep": deep, "wide": [{}] * (self._size // 3 - 700)})

    def copies(self) -> bytes:
        """One and the same event, over and over."""
        kind = self._rng.choice([self._signal, self._close])
        return (
            kind(signal_id="copy", return_pct=1.0)
            if kind == self._close
            else kind(signal_id="copy")
        )

    def control(self) -> bytes:
        """A forged command with all that fits in."""
        arguments = {self._name(): "x" * MAX_TEXT for _ in range(40)}
        ts = "2026-01-05T09:30:00Z"
        return orjson.dumps(
            {"type": "control", "command": "refit", "ts": ts, "by": "me", "reason": "mine"}
            | {"sig": "0" * 64, "args": arguments}
        )

    def garbage(self) -> bytes:
        """Bytes that are no event, of any size up to past the limit."""
        size = self._rng.choice([0, 1, 100, self._size, 2 * self._size])
        return self._rng.choice(
            [
                b"[" * size,
                b'{"a":' * (size // 5),
                self._rng.randbytes(size),
                self._signal(features={f"{i:x}": [] for i in range(size // 10)}),
                b'"' + b"\\u20ac" * (size // 6) + b'"',
                b"9" * size,
            ]
        )

    def trade(self) -> bytes:
        """A signal of a new symbol, or its close with an absurd return."""
        if self._trade is None:
            self._trade = self._name()
            return self._signal(signal_id=self._trade, symbol=self._trade)
        name, self._trade = self._trade, None
        return self._close(signal_id=name, return_pct=self._rng.choice(_NUMBERS))
