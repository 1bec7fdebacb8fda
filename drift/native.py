"""How kernels are compiled: once, for the types they declare, never while an event waits.

A kernel is a function over flat arrays that numba compiles. It never reorders floating point, so
that the same input gives the same bits, and it lies in one file with all the kernels it calls:
numba's cache on disk looks at that file alone to see whether it is up to date. (Who changes this
one has to clear it.)

Nothing is compiled at import. `ready` compiles the kernels it is given or loads them from the
cache, which is in ``NUMBA_CACHE_DIR``, else beside the source, else in the user's cache directory,
else nowhere: then each process compiles anew. What calls kernels makes them ready when it is built.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BUFFER = types.float64[::1]
"""An array that the kernel may write to."""
READ_ONLY = types.Array(types.float64, 1, "C", readonly=True)
"""An array that the kernel reads. One that could be written to is taken too."""
NUMBER = types.float64
INTEGER = types.int64
NOTHING = types.void

P = ParamSpec("P")
R = TypeVar("R")

# Kernels only look into arrays that Python owns, and give back numbers. Without numba's runtime
# they count no references, which saves 0.1 us a call.
_HOW: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_signatures: dict[object, object] = {}


def compiled(kernel: Callable[P, R]) -> Callable[P, R]:
    """Compile `kernel` as a part of the kernels of its file that call it."""
    return cast(Callable[P, R], numba.njit(**_HOW)(kernel))


def entry(result: Any, *arguments: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a kernel for calls from Python, with arguments of exactly these types.

    Once it is ready, arguments of other types are a `TypeError`, not seconds of compiling.
    """

    def decorate(kernel: Callable[P, R]) -> Callable[P, R]:
        try:
            dispatcher = numba.njit(cache=True, **_HOW)(kernel)
        except RuntimeError:  # numba found nowhere to keep a cache
            dispatcher = numba.njit(**_HOW)(kernel)
        _signatures[dispatcher] = result(*arguments)
        return cast(Callable[P, R], dispatcher)

    return decorate


def ready(*kernels: Callable[..., object]) -> None:
    """Compile these entries, or load them from the cache; costs nothing the second time."""
    for kernel in kernels:
        dispatcher = cast(Any, kernel)
        if not dispatcher.signatures:
            dispatcher.compile(_signatures[dispatcher])
            dispatcher.disable_compile()


def warm_up() -> None:
    """Make all entries ready that have been imported."""
    ready(*cast(dict[Callable[..., object], object], _signatures))
