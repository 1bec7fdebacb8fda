"""The experts by name: our own, and any of River's classifiers.

Every one draws from a seed of its own and nothing else: River's default is to seed itself, and
its trees prune by `sys.getsizeof`, which differs between Python versions and after a restore.
`build` closes both doors.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from river.base import Classifier
from river.base.typing import ClfTarget

from learners.bayes import GaussianBayes
from learners.booster import Booster
from learners.forest import AdaptiveRandomForest
from learners.groups import GroupRate
from learners.linear import Logistic

_NEVER = 2**62


class ExpertError(ValueError):
    """The config names an expert that can't be built. Stop; the message has the mend."""


@runtime_checkable
class RowExpert(Protocol):
    """An expert that takes encoded rows as they are. A booster abstains by answering NaN."""

    def predict_proba_row(self, row: NDArray[np.float64]) -> float:
        """The win probability."""
        ...

    def learn_row(self, row: NDArray[np.float64], won: bool) -> None:
        """Take in one close."""
        ...


@runtime_checkable
class Voter(Protocol):
    """A row expert that wants back at the close what it thought at the signal.

    Labels are late: by the time one comes, an ensemble has learned from trades side by side with
    it, and what weighs its members would take that for skill.
    """

    def predict_with_votes(
        self, row: NDArray[np.float64]
    ) -> tuple[tuple[float, float, float], tuple[float, float]]:
        """Win probability, expected return and probability of the stop; and the votes."""
        ...

    def learn_row(
        self,
        row: NDArray[np.float64],
        won: bool,
        return_pct: float,
        stopped: float,
        votes: tuple[float, float],
    ) -> None:
        """Take in one close; `stopped` is 1, 0, or NaN when the bot didn't say."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An expert whose state is plain data. All others are one opaque leaf each."""

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        ...

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one whose `state` this is."""
        ...


@dataclass(frozen=True, slots=True)
class ExpertSpec:
    """An expert as the config names it.

    Parameters
    ----------
    name
        What it is called in decisions and metrics.
    model
        `base_rate`, `group_rate`, `logistic`, `bayes`, `forest`, `lightgbm`,
        `river_logistic` or `river_bayes` (River's own, which `logistic` and `bayes` are held to),
        or the path of a River classifier such as ``river.tree.HoeffdingAdaptiveTreeClassifier``.
    params
        Its constructor's arguments.
    """

    name: str
    model: str
    params: Mapping[str, object] = field(default_factory=dict)


class BaseRate(Classifier):
    """The running share of wins, with Laplace's prior of one win and one loss."""

    def __init__(self) -> None:
        self.wins = 0
        self.closes = 0

    def predict_proba_row(self, row: NDArray[np.float64]) -> float:
        """The same for every row."""
        return (self.wins + 1) / (self.closes + 2)

    def learn_row(self, row: NDArray[np.float64], won: bool) -> None:
        """Count one close."""
        self.wins += won
        self.closes += 1

    def predict_proba_one(self, x: Mapping[Hashable, float], **_: object) -> dict[ClfTarget, float]:
        """The same for every `x`."""
        p = (self.wins + 1) / (self.closes + 2)
        return {False: 1.0 - p, True: p}

    def learn_one(self, x: Mapping[Hashable, float], y: ClfTarget) -> None:
        """Count one close."""
        self.wins += bool(y)
        self.closes += 1

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"wins": self.wins, "closes": self.closes}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self.wins = cast(int, state["wins"])
        self.closes = cast(int, state["closes"])


def _river_logistic(l2: float = 0.0, intercept_lr: float = 0.01) -> Classifier:
    scaler = import_module("river.preprocessing").StandardScaler()
    model = import_module("river.linear_model").LogisticRegression(l2=l2, intercept_lr=intercept_lr)
    return cast(Classifier, scaler | model)  # it is one in all but its base class


# River's own by their path: they are imported when asked for, which takes longer than all else at
# the start.
_NAMED: dict[str, Callable[..., Classifier] | str] = {
    "base_rate": BaseRate,
    "group_rate": GroupRate,
    "logistic": Logistic,
    "bayes": GaussianBayes,
    "forest": AdaptiveRandomForest,
    "river_forest": "river.forest.ARFClassifier",
    "lightgbm": Booster,
    "river_logistic": _river_logistic,
    "river_bayes": "river.naive_bayes.GaussianNB",
}


def build(spec: ExpertSpec, seed: int = 1, columns: int = 512) -> Classifier:
    """A new expert as `spec` says, for rows of at most `columns`. Raises `ExpertError`."""
    named = _NAMED.get(spec.model, spec.model)
    make = _river_class(spec, named) if isinstance(named, str) else named
    params = dict(spec.params)
    taken = inspect.signature(make).parameters
    if "seed" in taken:
        params.setdefault("seed", seed)
    if "max_columns" in taken:
        params.setdefault("max_columns", columns)
    if "memory_estimate_period" in taken:
        params.setdefault("memory_estimate_period", _NEVER)
    try:
        return make(**params)
    except (TypeError, ValueError) as error:
        raise ExpertError(
            f"expert `{spec.name}`: {spec.model} can't be made with {params}: {error}"
        ) from error


def _river_class(spec: ExpertSpec, path: str) -> type[Classifier]:
    module, _, name = path.replace(":", ".").rpartition(".")
    found: object = None
    if module.startswith("river."):
        with suppress(ImportError):
            found = getattr(import_module(module), name, None)
    if not (inspect.isclass(found) and issubclass(found, Classifier)):
        raise ExpertError(
            f"expert `{spec.name}`: there is no model {spec.model!r}; use one of "
            f"{', '.join(_NAMED)}, or a River classifier like "
            "river.tree.HoeffdingAdaptiveTreeClassifier"
        )
    return found
