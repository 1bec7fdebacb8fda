"""A tape read once, into columns.

Memory is bounded by the tape's own signals times its features, nine bytes each.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.evaluation.audit_columns import (
    ABSENT,
    BOOL,
    CLOSE_FIELDS,
    NULL,
    NUMBER,
    TEXT,
    Columns,
    Feature,
    Floats,
    Ints,
)
from engine.ledger import to_micros
from streams import Close, Signal
from streams.tape import Line

EXAMPLES = 5
"""Places kept of each kind of fault."""
PROGRESS_EVERY = 1_000

_NAN = float("nan")
# What differs from one fault of a kind to the next.
_QUOTED = re.compile(r"; got .*|'[^']*'|[0-9]+", re.DOTALL)


def read(lines: Iterable[Line], progress: Callable[[], None] = lambda: None) -> Columns:
    """Read a tape; `progress` is called now and then."""
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        reader.take(line)
        if number % PROGRESS_EVERY == 0:
            progress()
    return reader.columns()


@dataclass(slots=True)
class _Growing:
    """A feature's column while the tape is read."""

    values: "array[float]" = field(default_factory=lambda: array("d"))
    kinds: "array[int]" = field(default_factory=lambda: array("b"))
    categories: dict[str, int] = field(default_factory=dict)

    def coded(self, value: float | bool | str | None) -> tuple[float, int]:
        if value is None:
            return _NAN, NULL
        if isinstance(value, str):
            return float(self.categories.setdefault(value, len(self.categories))), TEXT
        return float(value), BOOL if isinstance(value, bool) else NUMBER

    def put(self, row: int, value: float | bool | str | None) -> None:
        self.pad(row)
        coded, kind = self.coded(value)
        self.values.append(coded)
        self.kinds.append(kind)

    def pad(self, rows: int) -> None:
        missing = rows - len(self.values)
        if missing:
            self.values.extend([_NAN] * missing)
            self.kinds.extend([ABSENT] * missing)

    def differs(self, row: int, value: float | bool | str | None) -> bool:
        coded, kind = self.coded(value)
        if row >= len(self.kinds) or self.kinds[row] != kind:
            return True
        return kind > NULL and self.values[row] != coded


@dataclass(slots=True)
class _Waiting:
    """A close that came before its signal, or without one."""

    close: Close
    where: str


class _Reader:
    def __init__(self) -> None:
        self._lines = 0
        self._events: Counter[str] = Counter()
        self._invalid: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._times = array("q")
        self._latest: int | None = None
        self._back = array("q")
        self._rows: dict[str, int] = {}
        self._signals: list[tuple[str, str, str]] = []
        self._symbols: dict[str, str] = {}
        self._opened = array("q")
        self._price = array("d")
        self._seen = array("q")
        self._closed = array("q")
        self._outcome = {name: array("d") for name in CLOSE_FIELDS}
        self._stopped = array("d")
        self._signals_meanwhile = array("q")
        self._closes_meanwhile = array("q")
        self._joined = 0
        self._most_open = 0
        self._waiting: dict[str, _Waiting] = {}
        self._early = 0
        self._again: Counter[str] = Counter()
        self._changed: Counter[str] = Counter()
        self._features: dict[str, _Growing] = {}

    def take(self, line: Line) -> None:
        self._lines += 1
        entry = line.entry()
        where = f"{line.path}:{line.number}"
        event = entry.event
        if event is None:
            reason = _QUOTED.sub("…", entry.error or "")[:120]
            self._invalid[reason] += 1
            self._example("invalid", f"{where}: {entry.error}")
            return
        self._events[event.type] += 1
        if not isinstance(event, Signal | Close):
            return
        micros = to_micros(event.ts)
        self._times.append(micros)
        if self._latest is not None and micros < self._latest:
            self._back.append(self._latest - micros)
            self._example("back", where)
        else:
            self._latest = micros
        if isinstance(event, Signal):
            self._signal(event, micros)
        else:
            self._close(event, where)

    def _signal(self, event: Signal, micros: int) -> None:
        row = self._rows.setdefault(event.signal_id, len(self._opened))
        if row < len(self._opened):
            self._signal_again(row, event)
            return
        intern = self._symbols.setdefault
        strategy = event.strategy or ""
        self._signals.append(
            (
                intern(event.symbol, event.symbol),
                intern(event.side, event.side),
                intern(strategy, strategy),
            )
        )
        self._opened.append(micros)
        self._price.append(_NAN if event.price is None else event.price)
        self._closed.append(-1)
        for column in self._outcome.values():
            column.append(_NAN)
        self._stopped.append(_NAN)
        self._signals_meanwhile.append(-1)
        self._closes_meanwhile.append(-1)
        self._seen.append(self._joined)
        for name, value in event.features.items():
            feature = self._features.get(name)
            if feature is None:
                feature = self._features[name] = _Growing()
            feature.put(row, value)
        waiting = self._waiting.pop(event.signal_id, None)
        if waiting is not None:
            self._early += 1
            self._example("early", waiting.where)
            self._join(row, waiting.close)
        self._most_open = max(self._most_open, len(self._opened) - self._joined)

    def _signal_again(self, row: int, event: Signal) -> None:
        names = [n for n, column in self._features.items() if self._lacks(column, row, event, n)]
        names += [
            name
            for name, value in event.features.items()
            if name not in self._features or self._features[name].differs(row, value)
        ]
        given = (event.symbol, event.side, event.strategy or "")
        for name, before, now in zip(
            ("symbol", "side", "strategy"), self._signals[row], given, strict=True
        ):
            if before != now:
                names.append(name)
        if not names:
            self._again["signals"] += 1
            return
        self._changed.update(names)
        self._again["changed"] += 1
        self._again["changed_after_close"] += self._closed[row] >= 0

    @staticmethod
    def _lacks(column: _Growing, row: int, event: Signal, name: str) -> bool:
        had = row < len(column.kinds) and column.kinds[row] != ABSENT
        return had and name not in event.features

    def _close(self, event: Close, where: str) -> None:
        row = self._rows.get(event.signal_id)
        if row is None:
            first = self._waiting.setdefault(event.signal_id, _Waiting(event, where))
            if first.close is not event:
                self._close_again(first.close.return_pct, event)
        elif self._closed[row] >= 0:
            self._close_again(self._outcome["return_pct"][row], event)
        else:
            self._join(row, event)

    def _close_again(self, before: float, event: Close) -> None:
        self._again["closes" if before == event.return_pct else "conflicting"] += 1

    def _join(self, row: int, event: Close) -> None:
        self._closed[row] = to_micros(event.ts)
        for name, column in self._outcome.items():
            value = getattr(event, name)
            if value is not None:
                column[row] = value
        if event.exit_reason is not None:
            self._stopped[row] = event.exit_reason == "stop"
        self._signals_meanwhile[row] = len(self._opened) - row - 1
        self._closes_meanwhile[row] = self._joined - self._seen[row]
        self._joined += 1

    def _example(self, kind: str, where: str) -> None:
        found = self._examples.setdefault(kind, [])
        if len(found) < EXAMPLES:
            found.append(where)

    def columns(self) -> Columns:
        rows = len(self._opened)
        for column in self._features.values():
            column.pad(rows)
        for waiting in self._waiting.values():
            self._example("orphans", waiting.where)
        texts = np.array(self._signals, np.str_).reshape(rows, 3)
        return Columns(
            lines=self._lines,
            events=self._events,
            invalid=self._invalid,
            invalid_examples=self._examples.get("invalid", []),
            times=_ints(self._times),
            back=_ints(self._back),
            back_examples=self._examples.get("back", []),
            opened=_ints(self._opened),
            symbol=texts[:, 0],
            side=texts[:, 1],
            strategy=texts[:, 2],
            price=_floats(self._price),
            closed=_ints(self._closed),
            outcome={name: _floats(column) for name, column in self._outcome.items()},
            stopped=_floats(self._stopped),
            signals_meanwhile=_ints(self._signals_meanwhile),
            closes_meanwhile=_ints(self._closes_meanwhile),
            most_open=self._most_open,
            early=self._early,
            early_examples=self._examples.get("early", []),
            orphans=len(self._waiting),
            orphan_examples=self._examples.get("orphans", []),
            repeated_signals=self._again["signals"],
            repeated_closes=self._again["closes"],
            conflicting_closes=self._again["conflicting"],
            changed=self._changed,
            changed_again=self._again["changed"],
            changed_after_close=self._again["changed_after_close"],
            features=_features(self._features),
        )


def _features(growing: Mapping[str, _Growing]) -> dict[str, Feature]:
    return {
        name: Feature(
            _floats(column.values), np.array(column.kinds, np.int8), list(column.categories)
        )
        for name, column in growing.items()
    }


def _ints(values: "array[int]") -> Ints:
    return np.array(values, np.int64)


def _floats(values: "array[float]") -> Floats:
    return np.array(values, np.float64)
