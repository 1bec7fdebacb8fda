"""Pickles of what has no plain form, loaded through an allow-list.

Only for bytes whose digest and signature already held; the list is the second wall. What a pickle
may name is a class defined in one of River's learning packages, or one of the few exact names
below that Python, numpy and River need to rebuild data. None of these runs code it is given,
opens a file or looks up a name. `getattr`, as which pickle writes a bound method, is replaced by
one that knows the few methods River's classifiers keep of themselves. Who holds the key could still
have a pickle fill the memory.
"""

import copyreg
import pickle
from collections.abc import Sequence
from io import BytesIO
from math import inf
from time import monotonic
from types import FunctionType, MethodType

from snapshots.errors import SnapshotUnsupported
from snapshots.reducers import reducers

PROTOCOL = 4

_RIVER = frozenset(
    {
        "_river_rust",
        "anomaly",
        "base",
        "cluster",
        "compose",
        "covariance",
        "drift",
        "dummy",
        "ensemble",
        "facto",
        "feature_extraction",
        "feature_selection",
        "forest",
        "imblearn",
        "linear_model",
        "metrics",
        "model_selection",
        "multiclass",
        "naive_bayes",
        "neighbors",
        "optim",
        "preprocessing",
        "proba",
        "rules",
        "sketch",
        "stats",
        "tree",
        "utils",
    }
)
"""River's packages of learners and their parts; not `datasets` and `stream`, which read files."""

_NAMES = frozenset(
    {
        ("builtins", "bool"),
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "dict"),
        ("builtins", "float"),
        ("builtins", "frozenset"),
        ("builtins", "int"),
        ("builtins", "list"),
        ("builtins", "set"),
        ("builtins", "str"),
        ("builtins", "tuple"),
        ("collections", "Counter"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "deque"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("functools", "partial"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.random._mt19937", "MT19937"),
        ("numpy.random._pcg64", "PCG64"),
        ("numpy.random._pcg64", "PCG64DXSM"),
        ("numpy.random._philox", "Philox"),
        ("numpy.random._sfc64", "SFC64"),
        ("numpy.random._pickle", "__bit_generator_ctor"),
        ("numpy.random._pickle", "__generator_ctor"),
        ("numpy.random._pickle", "__randomstate_ctor"),
        ("numpy.random.bit_generator", "SeedSequence"),
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
        ("random", "Random"),
        ("river.naive_bayes.gaussian", "GaussianNB._make_gaussian"),
    }
)

_METHODS = frozenset(
    {
        ("river.ensemble.bagging", "LeveragingBaggingClassifier._leveraging_bag"),
        ("river.ensemble.bagging", "LeveragingBaggingClassifier._leveraging_bag_half"),
        ("river.ensemble.bagging", "LeveragingBaggingClassifier._leveraging_bag_me"),
        ("river.ensemble.bagging", "LeveragingBaggingClassifier._leveraging_bag_wt"),
        ("river.ensemble.bagging", "LeveragingBaggingClassifier._leveraging_subag"),
        ("river.linear_model.pa", "BasePA._calc_tau_0"),
        ("river.linear_model.pa", "BasePA._calc_tau_1"),
        ("river.linear_model.pa", "BasePA._calc_tau_2"),
    }
)

_UNLOADABLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""All that River's and numpy's constructors and pickle's own machine raise over unfitting data."""


def dump(objects: Sequence[object]) -> bytes:
    """One pickle of all `objects`, so that what they share stays shared.

    Raises `SnapshotUnsupported` for what pickle can't take, such as a lambda.
    """
    buffer = BytesIO()
    pickler = pickle.Pickler(buffer, PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, **reducers()}
    try:
        pickler.dump(list(objects))
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise SnapshotUnsupported(f"a state can't be pickled: {error}; keep it out") from error
    return buffer.getvalue()


def load(data: bytes | memoryview, seconds: float = inf) -> list[object]:
    """What `dump` was given.

    Raises `SnapshotUnsupported` for names that aren't on the list, or when it has taken `seconds`.
    Call it only for bytes that are signed, or that this process just made.
    """
    try:
        loaded = _Unpickler(_Timed(data, seconds), fix_imports=False).load()
    except _UNLOADABLE as error:
        raise SnapshotUnsupported(f"a pickle can't be loaded: {error}") from error
    if type(loaded) is not list:
        raise SnapshotUnsupported(f"a pickle holds a {type(loaded).__name__}, not a list")
    return loaded


class _Timed(BytesIO):
    """Bytes that are given out for so many seconds. A pickle is read frame by frame."""

    def __init__(self, data: bytes | memoryview, seconds: float) -> None:
        super().__init__(data)
        self._seconds = seconds
        self._deadline = monotonic() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        self._check()
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        self._check()
        return super().readline(size)

    def _check(self) -> None:
        if monotonic() > self._deadline:
            raise SnapshotUnsupported(
                f"a pickle takes longer than {self._seconds:g} s to load; bound the experts' memory"
            )


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> object:
        if (module, name) in _NAMES:
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _bound_method
        package, _, rest = module.partition(".")
        if package == "river" and rest.split(".")[0] in _RIVER and ".datasets" not in module:
            found = None if "." in name else super().find_class(module, name)
            # Neither what a module merely imported, nor a metaclass, which makes classes.
            if isinstance(found, type) and not issubclass(found, type):
                defined_in = (found.__module__, found.__qualname__)
                if defined_in == (module, name):
                    return found
        raise SnapshotUnsupported(
            f"{module}.{name} is not a type that a snapshot may hold; use an expert without it"
        )


def _bound_method(owner: object, name: str) -> MethodType:
    """`getattr` for the methods on the list and for nothing else."""
    function = getattr(type(owner), name, None)
    if isinstance(function, FunctionType):
        defined_in = (function.__module__, function.__qualname__)
        if defined_in in _METHODS:
            return MethodType(function, owner)
    raise SnapshotUnsupported(f"{type(owner).__name__}.{name} may not be looked up by a snapshot")
