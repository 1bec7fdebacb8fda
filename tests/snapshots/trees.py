"""States for the tests, and what it means that two of them are the same."""

import struct
from datetime import UTC

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

KEY = b"k" * 32

_ARRAYS = hnp.arrays(
    hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | _ARRAYS
    | _ARRAYS.filter(lambda array: array.size).map(lambda array: array.reshape(-1)[0])
    | st.sets(st.text() | st.integers())
    | st.dictionaries(st.integers() | st.booleans(), st.text())
)
_KEYS = st.text() | st.sampled_from(["$array", "$dict", "$float", "$object", "$"])

trees = st.dictionaries(
    _KEYS,
    st.recursive(
        _LEAVES,
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(_KEYS, inner),
        max_leaves=12,
    ),
)


def same(one: object, other: object) -> bool:
    """Whether both hold the same values of the same types, bit by bit; tuples count as lists."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray | np.generic) and isinstance(other, np.ndarray | np.generic):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return one == other
