"""The digest of a state: SHA-256 over a canonical walk, since a pickle's bytes are not canonical.

Two states have the same digest when they hold the same values, in whichever process, with any
``PYTHONHASHSEED``, before a snapshot and after its restore. The rules:

- Numbers count by type and bits: ``1``, ``1.0``, ``True`` and ``numpy.float64(1)`` all differ, and
  so do ``0.0`` and ``-0.0``. NaN equals NaN of the same bits. Strings count by their characters.
- A dict's order is ignored, also within objects; an ``OrderedDict``'s, a list's and a tuple's
  counts. A tuple equals a list of the same items, because a snapshot's JSON knows only lists.
- Arrays count by dtype, shape and their items in C order. Their layout in memory and their byte
  order don't count: pickle keeps neither.
- Any other object counts by its class's qualified name and what `object.__reduce_ex__` gives,
  functions and classes by their qualified names.
- Identity never counts: an object shared by two owners equals two equal objects. Each object is
  hashed by itself, and its owner takes in that hash (a Merkle tree), so what is shared is walked
  once. A reference back to an owner counts as the number of steps up to it, which pickle keeps.
"""

import copyreg
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from marshal import dumps
from pickle import PickleError
from types import EllipsisType, FunctionType, NoneType
from typing import Any

import numpy as np

from snapshots.errors import SnapshotUnsupported
from snapshots.reducers import reducers

_ATOMS = frozenset({NoneType, bool, int, float, str, bytes})
_SORTABLE = (frozenset({str}), frozenset({int}), frozenset({bytes}))
_CHILD = ...
"""Stands in an object's own bytes for an object that has a hash of its own."""
_MARSHAL_VERSION = 2
"""The last version without back references, so that equal values have equal bytes; and self-
delimiting, so that different values have different bytes."""


def digest(tree: object) -> str:
    """The SHA-256 of `tree`, in hex: 64 digits.

    Raises `SnapshotUnsupported` for what has no state to speak of (a generator, an open file) or
    no order to walk it in (a set of objects).
    """
    walk = _Walk()
    try:
        return walk.hash((tree,)).hex()
    except (AttributeError, PickleError, RecursionError, TypeError, ValueError) as error:
        raise SnapshotUnsupported(f"a state can't be walked: {error}; keep it out") from error


def state_digest(state: Mapping[str, object]) -> str:
    """The digest of an engine's state, in hex.

    What stands under `transport` is left out: it is where the events came from, not what they say,
    so a tape and a stream with the same events end in the same digest.
    """
    return digest({name: part for name, part in state.items() if name != "transport"})


class _Walk:
    """One walk: an explicit stack, since River's trees may be deeper than Python's own."""

    def __init__(self) -> None:
        # With the object itself, lest its id be given to another one during the walk.
        self._done: dict[int, tuple[bytes, object]] = {}
        self._names: dict[object, str] = {}
        self._reducers = reducers()

    def hash(self, root: object) -> bytes:
        """The hash of `root`, a tuple, and of all that it reaches."""
        depth_of: dict[int, int] = {}
        children: list[object] = []
        own = sha256(_encoded(self._value(root, children)))
        stack = [(root, own, iter(children))]
        while True:
            parent, hasher, rest = stack[-1]
            for child in rest:
                key = id(child)
                if (done := self._done.get(key)) is not None:
                    hasher.update(done[0])
                elif key in depth_of:
                    hasher.update(sha256(b"up %d" % (len(stack) - depth_of[key])).digest())
                else:
                    depth_of[key] = len(stack)
                    children = []
                    own = sha256(_encoded(self._node(child, children)))
                    stack.append((child, own, iter(children)))
                    break
            else:
                stack.pop()
                result = hasher.digest()
                if not stack:
                    return result
                stack[-1][1].update(result)
                del depth_of[id(parent)]
                self._done[id(parent)] = (result, parent)

    def _value(self, value: Any, children: list[object]) -> object:
        """`value` for marshal: an atom, a tagged tuple, or `_CHILD` with itself in `children`."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if (kind is list or kind is tuple) and _ATOMS.issuperset(map(type, value)):
            return ("list", *value)
        if kind is np.ndarray:
            return self._array(value, children)
        if isinstance(value, np.generic):
            return ("scalar", repr(value.dtype.descr), value.tobytes())
        if kind is datetime:
            return ("datetime", value.isoformat(), value.fold, str(value.tzinfo))
        if kind is set or kind is frozenset:
            return self._set(kind.__name__, value)
        if kind is FunctionType or isinstance(value, type):
            return ("global", self._name(value))
        if kind is EllipsisType:
            return ("global", "builtins.Ellipsis")
        children.append(value)
        return _CHILD

    def _node(self, value: Any, children: list[object]) -> object:
        """What has a hash of its own, for marshal: a list, a dict, an object."""
        kind = type(value)
        if kind is list or kind is tuple:
            return self._sequence(value, children)
        if kind is dict:
            return self._mapping(value, children)
        reducer = self._reducers.get(kind) or copyreg.dispatch_table.get(kind)
        reduced = value.__reduce_ex__(4) if reducer is None else reducer(value)
        if isinstance(reduced, str):
            return ("global", f"{getattr(value, '__module__', None)}.{reduced}")
        function, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return (
            "object",
            self._name(function),
            self._sequence(arguments, children),
            # The dict of an object's attributes is its alone: no need for a hash of its own.
            self._mapping(state, children) if type(state) is dict else self._value(state, children),
            None if items is None else self._sequence(items, children),
            None
            if pairs is None
            else self._sequence([part for pair in pairs for part in pair], children)
            if isinstance(value, OrderedDict)
            else self._mapping(dict(pairs), children),
        )

    def _sequence(self, items: Iterable[object], children: list[object]) -> object:
        return ("list", *[self._value(item, children) for item in items])

    def _mapping(self, mapping: dict[Any, object], children: list[object]) -> object:
        if frozenset(map(type, mapping)) in _SORTABLE:
            keys = sorted(mapping)
        else:
            inner: list[object] = []
            encoded = {key: _encoded(self._value(key, inner)) for key in mapping}
            # Objects as keys have no order but that of insertion, which pickle keeps.
            keys = list(mapping) if inner else sorted(mapping, key=encoded.__getitem__)
        parts: list[object] = ["dict"]
        for key in keys:
            parts += (self._value(key, children), self._value(mapping[key], children))
        return tuple(parts)

    def _set(self, kind: str, elements: Iterable[object]) -> object:
        inner: list[object] = []
        encoded = sorted(_encoded(self._value(element, inner)) for element in elements)
        if inner:
            raise TypeError(f"a {kind} of {type(inner[0]).__name__} has no order of its own")
        return (kind, *encoded)

    def _array(self, array: "np.ndarray[Any, Any]", children: list[object]) -> object:
        little = array.dtype.newbyteorder("<")
        name = repr(little.descr)
        if array.dtype.hasobject:
            return ("objects", name, array.shape, self._sequence(array.flat, children))
        flat = np.ascontiguousarray(array, little).reshape(-1).view(np.uint8)
        return ("array", name, array.shape, sha256(flat.data).digest())

    def _name(self, named: Any) -> str:
        if (name := self._names.get(named)) is None:
            name = self._names[named] = f"{named.__module__}.{named.__qualname__}"
        return name


def _encoded(value: Any) -> bytes:
    return dumps(value, _MARSHAL_VERSION)
