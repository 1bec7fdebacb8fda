r"""Features to rows: a schema that is learned from the stream and only ever grows on the right.

A row is a float64 array with one column for each number or bool, and one for each value of each
category, in the order in which they first appeared; fixed columns of our own come first. NaN is
missing: null, not sent, or no longer sent. An older row is shorter: the columns that came
after it are missing in it, and `pad` says so with NaNs.

Column names are unique whatever bots call their features. Ours start with ``@``, a category's
are ``feature=value``, and in a bot's own words ``@``, ``=`` and ``\`` are escaped by a ``\``.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import cos, nan, pi, sin
from struct import Struct
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from learners.history import HISTORY_NAMES

Feature: TypeAlias = float | bool | str | None
Kind: TypeAlias = Literal["number", "bool", "category"]

FIXED_NAMES = (
    "@hour_sin",
    "@hour_cos",
    "@weekday_sin",
    "@weekday_cos",
    *(f"@{name}" for name in HISTORY_NAMES),
)
MAGNITUDE = 1e18
"""Numbers are cut to this size either way: their squares stay finite, also as float32."""

_KINDS: dict[type, Kind] = {float: "number", int: "number", bool: "bool", str: "category"}
_ESCAPES = str.maketrans({"\\": "\\\\", "=": "\\=", "@": "\\@"})
_HOURS = [(sin(2 * pi * m / 1440), cos(2 * pi * m / 1440)) for m in range(1440)]
_WEEKDAYS = [(sin(2 * pi * d / 7), cos(2 * pi * d / 7)) for d in range(7)]


class _Category:
    """The columns of one category: one a value, then `other` for the values past the bound."""

    __slots__ = ("columns", "name", "other", "values")

    def __init__(self, name: str) -> None:
        self.name = name  # as it stands in column names
        self.values: dict[str, int] = {}
        self.other: int | None = None
        self.columns: list[int] = []


class FeatureEncoder:
    """Turns what a signal says into a row of numbers, learning the columns on the way.

    Parameters
    ----------
    max_columns
        Columns past this many are not made; values that would need one are left out and counted.
    max_categories
        Values of one category that get a column each; all further ones share the column `other`.
    """

    def __init__(self, max_columns: int = 512, max_categories: int = 32) -> None:
        self.max_columns = max_columns
        self.max_categories = max_categories
        self.left_out = 0
        """Values that no column was left for, since the beginning."""
        self._names: list[str] = list(FIXED_NAMES)
        self._kinds: dict[str, Kind] = {}
        self._numbers: dict[str, int] = {}  # numbers and bools: their column
        self._categories: dict[str, _Category] = {}
        own = ("symbol", "side", "strategy", "regime")
        self._own = {name: _Category(f"@{name}") for name in own}
        # numpy takes three times as long to make an array of floats.
        self._pack = Struct("=0d")

    @property
    def names(self) -> list[str]:
        """The columns' names, in order. A row's names are the first ``len(row)`` of them."""
        return list(self._names)

    @property
    def columns(self) -> Sequence[str]:
        """The columns' names, in order; not a copy, so not to be kept."""
        return self._names

    def problem(self, features: Mapping[str, Feature]) -> str | None:
        """Why these features can't be encoded, for a person; None when they can. Changes nothing.

        A feature's first value that isn't null says whether it is a number, a bool or a category.
        """
        kinds = self._kinds
        for name, value in features.items():
            if value is not None:
                had = kinds.get(name)
                if had is not None and _KINDS[type(value)] != had:
                    shown = repr(value) if len(repr(value)) <= 64 else repr(value)[:61] + "..."
                    return (
                        f"feature `{name}` has been a {had} so far, but is {shown}, a "
                        f"{_KINDS[type(value)]}; send a {had} or null, or choose another name"
                    )
        return None

    def encode(
        self,
        ts: datetime,
        symbol: str,
        side: str,
        strategy: str | None,
        features: Mapping[str, Feature],
        history: Sequence[float],
        regime: str | None = None,
    ) -> NDArray[np.float64]:
        """The row of one signal, of shape (columns so far,), read-only. New features get their
        columns first.

        `features` must have no `problem`; `history` is `History.features` at this moment.
        """
        row = [*_HOURS[ts.hour * 60 + ts.minute], *_WEEKDAYS[ts.weekday()], *history]
        row += [nan] * (len(self._names) - len(row))
        numbers = self._numbers
        categories = self._categories
        for name, value in features.items():
            column = numbers.get(name)
            if column is not None:
                if value is not None:
                    number = float(value)
                    row[column] = (
                        number
                        if -MAGNITUDE < number < MAGNITUDE
                        else max(-MAGNITUDE, min(MAGNITUDE, number))
                    )
            elif name in categories:
                if value is not None:
                    self._one_hot(categories[name], cast(str, value), row)
            elif value is not None:
                self._first_value(name, value, row)
        own = self._own
        self._one_hot(own["symbol"], symbol, row)
        self._one_hot(own["side"], side, row)
        if strategy is not None:
            self._one_hot(own["strategy"], strategy, row)
        if regime is not None:
            self._one_hot(own["regime"], regime, row)
        if self._pack.size != 8 * len(row):
            self._pack = Struct(f"={len(row)}d")
        return np.frombuffer(self._pack.pack(*row))

    def as_dict(self, row: NDArray[np.float64]) -> dict[str, float]:
        """The row by column names, without what is missing: how River wants it."""
        # Only NaN differs from itself. An older row is shorter: its names are the first ones.
        values = row.tolist()
        return {n: v for n, v in zip(self._names, values, strict=False) if v == v}

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "names": list(self._names),
            "left_out": self.left_out,
            "kinds": [[name, kind] for name, kind in self._kinds.items()],
            "numbers": [[name, column] for name, column in self._numbers.items()],
            "categories": _categories_state(self._categories),
            "own": _categories_state(self._own),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the encoder whose `state` this is."""
        self._names = list(cast(list[str], state["names"]))
        self.left_out = cast(int, state["left_out"])
        self._kinds = dict(cast(Iterable[tuple[str, Kind]], state["kinds"]))
        self._numbers = dict(cast(Iterable[tuple[str, int]], state["numbers"]))
        self._categories = _categories_restored(state["categories"])
        self._own = _categories_restored(state["own"])

    def _first_value(self, name: str, value: float | bool | str, row: list[float]) -> None:
        """A feature that has no column yet."""
        if len(self._names) >= self.max_columns:
            # Nothing is kept of it, not even its type: names are bounded like columns.
            self.left_out += 1
            return
        kind = _KINDS[type(value)]
        self._kinds[name] = kind
        if isinstance(value, str):
            category = self._categories[name] = _Category(name.translate(_ESCAPES))
            self._one_hot(category, value, row)
        else:
            self._numbers[name] = self._add(name.translate(_ESCAPES), row)
            row[-1] = max(-MAGNITUDE, min(MAGNITUDE, float(value)))

    def _one_hot(self, category: _Category, value: str, row: list[float]) -> None:
        column = category.values.get(value)
        if column is None:
            column = self._column(category, value, row)
        for other in category.columns:
            row[other] = 0.0
        if column is not None:
            row[column] = 1.0

    def _column(self, category: _Category, value: str, row: list[float]) -> int | None:
        """The column of a value not seen before; None when no column is left for it."""
        if len(category.values) >= self.max_categories and category.other is not None:
            return category.other
        if len(self._names) >= self.max_columns:
            self.left_out += 1
            return None
        if len(category.values) < self.max_categories:
            column = self._add(f"{category.name}={value.translate(_ESCAPES)}", row)
            category.values[value] = column
        else:
            column = category.other = self._add(f"{category.name}=@other", row)
        category.columns.append(column)
        return column

    def _add(self, name: str, row: list[float]) -> int:
        """A new last column, missing in `row` so far."""
        self._names.append(name)
        row.append(nan)
        return len(row) - 1


def pad(row: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """`row` as it looks with `columns` columns: what came after it is missing, what's past cut."""
    if len(row) >= columns:
        return row[:columns]
    padded = np.full(columns, nan)
    padded[: len(row)] = row
    return padded


def _categories_state(categories: Mapping[str, _Category]) -> list[object]:
    return [
        [feature, c.name, [[value, column] for value, column in c.values.items()], c.other]
        for feature, c in categories.items()
    ]


def _categories_restored(state: object) -> dict[str, _Category]:
    categories = {}
    entries = cast(list[tuple[str, str, list[tuple[str, int]], int | None]], state)
    for feature, name, values, other in entries:
        category = categories[feature] = _Category(name)
        category.values = dict(values)
        category.other = other
        category.columns = list(category.values.values())
        if other is not None:
            category.columns.append(other)
    return categories
