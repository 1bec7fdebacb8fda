"""A state taken apart: what is plain as JSON, arrays as arrays, the rest as one pickle.

`freeze` is the cheap part, done between two events: it copies arrays, pickles what has no plain
form, and what it returns shares nothing with the live state. All the rest (`snapshots.format`) can
happen in another thread. `thaw` puts the state together again.

In the JSON a dict with one key that begins with ``$`` stands for what JSON doesn't have.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import NoneType
from typing import Any

import numpy as np

from snapshots import pickles
from snapshots.errors import SnapshotUnsupported

MAX_DEPTH = 64

_SCALARS = "biufcmM"
"""Not strings: as an item of an array they lose zeros at their end."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """A state at one moment, detached from the live one.

    Parameters
    ----------
    document
        What orjson can write, with references into the other two.
    arrays
        Read-only copies, C-ordered.
    objects
        A pickle of the list of all that has no plain form.
    """

    document: object
    arrays: tuple[Array, ...]
    objects: bytes


def freeze(tree: Mapping[str, object]) -> Frozen:
    """`tree` at this moment.

    Dicts with str keys, lists, tuples (which come back as lists), None, bool, int, float, str,
    bytes, numpy arrays and scalars without objects, naive and UTC datetimes are plain; anything
    else goes into the pickle, whole. Raises `SnapshotUnsupported` for what can't.
    """
    taken = _Freezer()
    document = taken.plain(tree if type(tree) is dict else dict(tree), 0)
    return Frozen(document, tuple(taken.arrays), pickles.dump(taken.objects))


def thaw(frozen: Frozen) -> dict[str, object]:
    """The state that was frozen. Its arrays are the frozen ones themselves.

    Raises `SnapshotUnsupported` where the pickle names what isn't on the allow-list.
    """
    return tree_of(frozen.document, frozen.arrays, pickles.load(frozen.objects))


class _Freezer:
    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self.objects: list[object] = []

    def plain(self, value: object, depth: int) -> object:
        """`value` as orjson can write it."""
        kind = type(value)
        if kind is bool or kind is str or kind is NoneType:
            return value
        if depth > MAX_DEPTH:
            raise SnapshotUnsupported(
                f"a state is nested deeper than {MAX_DEPTH}, or holds itself; flatten it"
            )
        match value:
            case float() if kind is float:
                return value if math.isfinite(value) else {"$float": struct.pack("<d", value).hex()}
            case int() if kind is int:
                return value if -(2**63) <= value < 2**63 else {"$int": hex(value)}
            case bytes() if kind is bytes:
                return {"$bytes": self._array(np.frombuffer(value, np.uint8))}
            case list() | tuple() if kind is list or kind is tuple:
                return [self.plain(item, depth + 1) for item in value]
            case dict() if kind is dict and all(type(key) is str for key in value):
                pairs = {key: self.plain(item, depth + 1) for key, item in value.items()}
                return {"$dict": pairs} if len(pairs) == 1 and min(pairs)[:1] == "$" else pairs
            case np.ndarray() if kind is np.ndarray and _is_plain(value.dtype):
                return {"$array": self._array(value)}
            case np.generic() if value.dtype.kind in _SCALARS:
                return {"$scalar": self._array(np.asarray(value))}
            case datetime() if kind is datetime and not value.fold and value.tzinfo in (None, UTC):
                return {"$datetime": value.isoformat()}
        self.objects.append(value)
        return {"$object": len(self.objects) - 1}

    def _array(self, array: Array) -> int:
        copy = np.array(array, order="C")
        copy.flags.writeable = False
        self.arrays.append(copy)
        return len(self.arrays) - 1


def _is_plain(dtype: "np.dtype[Any]") -> bool:
    return not dtype.hasobject and dtype.names is None and np.dtype(dtype.str) == dtype


def tree_of(
    document: object, arrays: Sequence[Array], objects: Sequence[object]
) -> dict[str, object]:
    """The state that `document` describes. Raises `SnapshotUnsupported` where it describes none."""
    try:
        tree = _thawed(document, arrays, objects)
    except (LookupError, TypeError, ValueError, struct.error, RecursionError) as error:
        raise SnapshotUnsupported(f"a document that describes no state: {error!r}") from error
    if not isinstance(tree, dict):
        raise SnapshotUnsupported(f"a document that holds a {type(tree).__name__}, not a dict")
    return tree


def _thawed(value: object, arrays: Sequence[Array], objects: Sequence[object]) -> object:
    if isinstance(value, list):
        return [_thawed(item, arrays, objects) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(key, item)] = value.items()
        match key:
            case "$array":
                return arrays[item]
            case "$scalar":
                return arrays[item][()]
            case "$bytes":
                return arrays[item].tobytes()
            case "$object":
                return objects[item]
            case "$float":
                return struct.unpack("<d", bytes.fromhex(item))[0]
            case "$int":
                return int(item, 16)
            case "$datetime":
                return datetime.fromisoformat(item)
            case "$dict":
                return _pairs(item, arrays, objects)
    return _pairs(value, arrays, objects)


def _pairs(
    value: dict[str, object], arrays: Sequence[Array], objects: Sequence[object]
) -> dict[str, object]:
    return {key: _thawed(item, arrays, objects) for key, item in value.items()}
