"""Rows for experts that are asked with River's dicts: a name gets a column when it appears."""

from collections.abc import Hashable, Mapping
from math import nan
from typing import cast

import numpy as np
from numpy.typing import NDArray


class NamedRows:
    """Turns dicts of numbers into rows, at most `max_columns` wide; later names are left out."""

    def __init__(self, max_columns: int) -> None:
        self.max_columns = max_columns
        self._columns: dict[Hashable, int] = {}

    @property
    def names(self) -> list[Hashable]:
        """The columns' names, in order."""
        return list(self._columns)

    @names.setter
    def names(self, names: list[Hashable]) -> None:
        self._columns = {name: column for column, name in enumerate(names)}

    def learn(self, x: Mapping[Hashable, float]) -> None:
        """Give every new name of `x` a column, as long as there is one left."""
        for name in x:
            if name not in self._columns and len(self._columns) < self.max_columns:
                self._columns[name] = len(self._columns)

    def row(self, x: Mapping[Hashable, float | None]) -> NDArray[np.float64]:
        """The row of `x`, NaN where it has no value. Unknown names are left out.

        `TypeError` for text: it has to be encoded before.
        """
        row = np.full(len(self._columns), nan)
        for name, value in x.items():
            column = self._columns.get(name)
            if column is not None and value is not None:
                if isinstance(cast(object, value), str):
                    raise TypeError(f"feature {name!r} is the text {value!r}: one-hot encode it")
                row[column] = value
        return row
