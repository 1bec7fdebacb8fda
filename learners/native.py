"""How kernels are compiled: by numba, never reordering floating point, cached where possible.

`compiled` is for kernels called by kernels, `entry` for the few that Python calls. Nothing is
compiled at import, but at an entry's first call: what has entries offers a warm-up, so that no
decision waits for a compiler.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators
# numba's own extension functions have no types.

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import lower_builtin, type_callable
from numba.np.arrayobj import make_array, populate_array
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Kernels only ever look into arrays that Python owns. Without numba's runtime they allocate nothing
# and count no references, which took a third of the time. So no kernel may return an array to
# Python, nor be called by code compiled otherwise.
_HOW: dict[str, Any] = {"error_model": "numpy", "_nrt": False}

P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N", np.float64, np.int64)


def compiled(kernel: Callable[P, R]) -> Callable[P, R]:
    """Compile `kernel` as a part of the entries that call it."""
    return cast(Callable[P, R], numba.njit(**_HOW)(kernel))


def inlined(kernel: Callable[P, R]) -> Callable[P, R]:
    """Like `compiled`, copied to where it is called: for what every event passes through.

    A call hands over each array as ten words on the stack, and a tree is five arrays.
    """
    return cast(Callable[P, R], numba.njit(forceinline=True, **_HOW)(kernel))


def shaped(flat: NDArray[N], shape: tuple[int, ...]) -> NDArray[N]:
    """View the contiguous `flat` in another shape.

    In kernels this is free, while numba's `reshape` calls a function that looks for a way.
    """
    return flat.reshape(shape)


@type_callable(shaped)
def _type_shaped(_: Any) -> Callable[[Any, Any], types.Array]:
    return lambda flat, shape: types.Array(flat.dtype, len(shape), "C")


@lower_builtin(shaped, types.Array, types.BaseTuple)
def _lower_shaped(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    whole = make_array(signature.args[0])(context, builder, args[0])
    view = make_array(signature.return_type)(context, builder)
    sizes = cgutils.unpack_tuple(builder, args[1])
    strides = [whole.itemsize]
    for size in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    populate_array(view, whole.data, sizes, strides, whole.itemsize, whole.meminfo)
    return view._getvalue()


def entry(kernel: Callable[P, R]) -> Callable[P, R]:
    """Compile `kernel` for calls from Python; with nowhere to cache it, anew in each process.

    numba's cache looks at the kernel's own file and its closure, not at what it calls. An entry
    must therefore close over `sources`, the digest of all files it is made of, or an upgrade could
    run old code.
    """
    try:
        return cast(Callable[P, R], numba.njit(cache=True, **_HOW)(kernel))
    except RuntimeError:  # numba found nowhere to keep a cache
        return cast(Callable[P, R], numba.njit(**_HOW)(kernel))


def sources(*modules: str) -> str:
    """Digest the named modules of this package, for `entry`."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for module in (*modules, "native"):
        digest.update((here / f"{module}.py").read_bytes())
    return digest.hexdigest()
