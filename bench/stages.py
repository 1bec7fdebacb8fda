"""Where an event's time goes: the engine's own functions, each with a clock around it.

Only the time that a function doesn't spend in another clocked one is its own, so the stages add up
to the whole. What the clocks cost is measured first and taken off. Functions are named by module
and attribute; what the engine no longer has is left out and named, its time falls to its caller.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from time import perf_counter_ns
from typing import Any, TypeVar
from unittest.mock import patch

from engine.core_config import CoreConfig
from engine.fitting import InlineFitter
from engine.model import Model

T = TypeVar("T")

STAGES: dict[str, tuple[str, ...]] = {
    "decode and validate": ("streams.tape:Line.entry",),
    "check and encode features": (
        "learners.encoding:FeatureEncoder.problem",
        "learners.encoding:FeatureEncoder.encode",
    ),
    "history features": (
        "learners.history:History.features",
        "learners.history:History.learn",
    ),
    "panel, around the experts": (
        "learners.panel:ExpertPanel.predict",
        "learners.panel:ExpertPanel.learn",
    ),
    "mixture": ("learners.mixture:Mixture.predict", "learners.mixture:Mixture.learn"),
    "returns and risk": (
        "learners.returns:Returns.expected_return_pct",
        "learners.returns:Returns.risk",
        "learners.returns:Returns.learn",
    ),
    "drift monitors": ("drift.monitor:DriftMonitors.update",),
    "refit window": ("learners.window:RefitWindow.add",),
    "refit, handed over": ("engine.fitting:ProcessFitter.submit",),
    "refit, waited for": ("engine.fitting:ProcessFitter.collect",),
    "model, the rest": ("engine.model:Model.score", "engine.model:Model.learn"),
    "ledger": (
        "engine.ledger:Ledger.close",
        "engine.ledger:Ledger.has_ended",
        "engine.ledger:Ledger.has_closed",
    ),
    "policy": ("engine.core:decide",),
    "decisions' digest": ("engine.core:chain",),
    "core, the rest": ("engine.core:Core.apply",),
    "encode outputs": ("bench.cores:encoded",),
    "report": ("engine.report:Report.add",),
}
"""Stages and the functions they are made of."""

_EXPERT_CALLS = {
    "predict": ("predict_proba_row", "predict_proba_one"),
    "learn": ("learn_row", "learn_one"),
}


class StageClock:
    """Adds up the time spent in stages, each without the stages inside it."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        # Time spent in clocked calls so far, for each call under way.
        self._inside = [0]
        self._cost = 0
        self._cost = self._calibrated()
        self.ns.clear()
        self.calls.clear()

    def around(self, stage: str, function: Callable[..., T]) -> Callable[..., T]:
        """`function` with its time going to `stage`."""
        self.ns.setdefault(stage, 0)
        self.calls.setdefault(stage, 0)

        def clocked(*args: Any, **kwargs: Any) -> T:
            inside = self._inside
            inside.append(0)
            started = perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                took = perf_counter_ns() - started
                self.ns[stage] += took - inside.pop()
                self.calls[stage] += 1
                inside[-1] += took + self._cost

        return clocked

    def reading(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """`items`, with the time to get each going to `stage`."""
        get = self.around(stage, iter(items).__next__)
        while True:
            try:
                item = get()
            except StopIteration:
                return
            yield item

    def _calibrated(self, calls: int = 20_000) -> int:
        """Nanoseconds that a clocked call costs its caller beyond what it measures of itself."""
        inner = self.around("inner", lambda: None)

        def many() -> None:
            for _ in range(calls):
                inner()

        self.around("outer", many)()
        return max(0, self.ns["outer"] // calls)


@contextmanager
def clocked(clock: StageClock, config: CoreConfig) -> Iterator[list[str]]:
    """The engine with its clocks on; gives the names of functions that weren't found.

    Cores must be made inside.
    """
    missing: list[str] = []
    with ExitStack() as patches:
        for stage, functions in STAGES.items():
            for name in functions:
                owner, attribute = _found(name)
                if owner is None:
                    missing.append(name)
                    continue
                function = clock.around(stage, getattr(owner, attribute))
                patches.enter_context(patch.object(owner, attribute, function))
        for kind, names in _experts(config).items():
            for call, methods in _EXPERT_CALLS.items():
                for method in methods:
                    if hasattr(kind, method):
                        stage = f"{call}: {', '.join(names)}"
                        function = clock.around(stage, getattr(kind, method))
                        patches.enter_context(patch.object(kind, method, function))
        yield missing


def _experts(config: CoreConfig) -> dict[type, list[str]]:
    """The experts' classes, each with the names of those that are of it."""
    panel = Model(config, InlineFitter()).panel
    kinds: dict[type, list[str]] = {}
    for name in panel.names:
        kinds.setdefault(type(panel[name]), []).append(name)
    return kinds


def _found(name: str) -> tuple[Any, str]:
    """The object that holds a function, and the function's name there; None when it's gone."""
    module, _, path = name.partition(":")
    *parts, attribute = path.split(".")
    try:
        owner: Any = import_module(module)
        for part in parts:
            owner = getattr(owner, part)
        getattr(owner, attribute)
    except (ImportError, AttributeError):
        return None, attribute
    return owner, attribute
