"""How objects come apart where their own way would take along what isn't state.

Each of River's distributions holds a `random.Random`, and where it has no seed the operating
system gives one: 2.5 kB that differ from run to run, drawn from by ``sample()`` alone, which no
learner calls. A forest holds thousands of them. Here all unseeded distributions of a state share
one generator that is always the same, so a forest's pickle is some twenty times smaller.
"""

import copyreg
import sys
from collections.abc import Callable
from random import Random
from typing import Any

Reduced = tuple[Callable[..., Any], tuple[Any, ...], Any]

_UNSEEDED = Random(0)
_MODULE = "river.proba"
_NAMES = ("Beta", "Gaussian", "Multinomial", "MultivariateGaussian")


def _reduce_distribution(distribution: Any) -> Reduced:
    state = dict(distribution.__dict__)
    if state["seed"] is None:
        state["_rng"] = _UNSEEDED
    return (copyreg.__newobj__, (type(distribution),), state)  # type: ignore[attr-defined] # typeshed lacks it


def reducers() -> dict[type, Callable[..., Reduced]]:
    """By exact type, for `pickle.Pickler.dispatch_table` and for the digest's walk alike."""
    # River's distributions bring scipy.stats along, half a second of every start. Where nobody has
    # imported them there are none.
    module = sys.modules.get(_MODULE)
    return {} if module is None else {getattr(module, n): _reduce_distribution for n in _NAMES}
