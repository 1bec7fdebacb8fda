"""The peers: what a user could run instead of the engine, each behind one of two faces.

Online peers predict a signal and learn its close, one by one. Refit peers are fitted again every
500 closes on the newest 8,000, as the engine's own booster is, but installed at once and without a
gate. The boosters are held to the rounds, rate and leaves of the engine's refits, the forest to
their smallest leaf. Everything else is the library's default, and what draws is seeded.

Inputs are the engine's encoded rows. Online peers get them as dicts without what is missing, under
the columns' numbers (`dicts`): what columns are called tells nothing, and Vowpal Wabbit couldn't
take it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from math import nan
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from engine.core_config import RefitConfig
from learners import RefitParams

REFIT = RefitConfig()
TREES = 10
"""Of River's ensembles; it is the default of each."""
FOREST_TREES = 100

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Predict: TypeAlias = Callable[[Floats], Floats]
Fit: TypeAlias = Callable[[Floats, Bools, int], Predict]
"""From rows, shape (closes, columns), wins and a seed to win probabilities of rows."""


class Online(Protocol):
    """Predicts and learns one by one; `x` is always what `prepare` made."""

    def prepare(self, x: dict[str, float]) -> Any:
        """The event in the form that this peer takes."""
        ...

    def predict(self, x: Any) -> float:
        """The win probability; NaN when it knows nothing yet."""
        ...

    def learn(self, x: Any, won: bool) -> None:
        """Take in a close."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: exactly one of `online` (made from a seed) and `fit` is given.

    Parameters
    ----------
    module
        What must be installed.
    """

    module: str
    online: Callable[[int], Online] | None = None
    fit: Fit | None = None

    @property
    def missing(self) -> str | None:
        """Why it can't run here; None if it can."""
        try:
            import_module(self.module)
        except ImportError as error:
            return f"not installed: {error}"
        return None


class RiverPeer:
    """A River classifier or pipeline."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def prepare(self, x: dict[str, float]) -> dict[str, float]:
        """As it is."""
        return x

    def predict(self, x: dict[str, float]) -> float:
        """NaN until it answers anything."""
        votes = self._model.predict_proba_one(x)
        return float(votes.get(True, 0.0)) if votes else nan

    def learn(self, x: dict[str, float], won: bool) -> None:
        """Take in a close."""
        self._model.learn_one(x, won)


class VowpalWabbit:
    """Vowpal Wabbit's logistic regression on all features and their pairs, fed text.

    It has no trees and no seed to it. An example parsed once can't be used for both: what it has
    predicted it no longer learns from.
    """

    def __init__(self) -> None:
        self._model = import_module("vowpalwabbit").Workspace(
            "--loss_function logistic --link logistic --quiet --interactions ::"
        )

    def prepare(self, x: dict[str, float]) -> str:
        """A line of its text format."""
        return "|f " + " ".join(f"{name}:{value}" for name, value in x.items())

    def predict(self, x: str) -> float:
        """A half before it has learned anything."""
        return float(self._model.predict(x))

    def learn(self, x: str, won: bool) -> None:
        """Take in a close."""
        self._model.learn(f"{1 if won else -1} {x}")


def dicts(row: Floats) -> dict[str, float]:
    """A row as online peers get it."""
    return {f"c{column}": value for column, value in enumerate(row.tolist()) if value == value}


def lightgbm_params(params: RefitParams, seed: int = 1) -> dict[str, object]:
    """The engine's refit parameters by LightGBM's names, on one thread as the engine's."""
    chosen: dict[str, object] = asdict(params)
    del chosen["rounds"]
    fixed = {"objective": "binary", "bagging_freq": 1, "seed": seed, "num_threads": 1}
    return chosen | fixed | {"deterministic": True, "force_row_wise": True, "verbosity": -1}


def _arf(seed: int) -> Online:
    return RiverPeer(import_module("river.forest").ARFClassifier(n_models=TREES, seed=seed))


def _srp(seed: int) -> Online:
    tree = import_module("river.tree").HoeffdingTreeClassifier()
    ensemble = import_module("river.ensemble")
    return RiverPeer(ensemble.SRPClassifier(model=tree, n_models=TREES, seed=seed))


def _leveraging_bagging(seed: int) -> Online:
    tree = import_module("river.tree").HoeffdingTreeClassifier()
    ensemble = import_module("river.ensemble")
    return RiverPeer(ensemble.LeveragingBaggingClassifier(model=tree, n_models=TREES, seed=seed))


def _logistic(seed: int) -> Online:
    scaler = import_module("river.preprocessing").StandardScaler()
    return RiverPeer(scaler | import_module("river.linear_model").LogisticRegression())


def _fit_lightgbm(rows: Floats, won: Bools, seed: int) -> Predict:
    lightgbm = import_module("lightgbm")
    params = lightgbm_params(REFIT.params, seed)
    data = lightgbm.Dataset(rows.astype(np.float32), won.astype(np.float32), params=params)
    return cast(Predict, lightgbm.train(params, data, REFIT.params.rounds).predict)


def _fit_xgboost(rows: Floats, won: Bools, seed: int) -> Predict:
    xgboost = import_module("xgboost")
    chosen = REFIT.params
    params = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": chosen.num_leaves,
        "learning_rate": chosen.learning_rate,
        "subsample": chosen.bagging_fraction,
        "colsample_bytree": chosen.feature_fraction,
        "nthread": 1,
        "seed": seed,
    }
    model = xgboost.train(params, xgboost.DMatrix(rows, won), chosen.rounds)
    return lambda asked: np.asarray(model.predict(xgboost.DMatrix(asked)), np.float64)


def _fit_catboost(rows: Floats, won: Bools, seed: int) -> Predict:
    model = (
        import_module("catboost")
        .CatBoostClassifier(
            iterations=REFIT.params.rounds,
            learning_rate=REFIT.params.learning_rate,
            depth=4,  # its trees are full: 16 leaves, the engine's have 15
            thread_count=1,
            random_seed=seed,
            allow_writing_files=False,
            verbose=False,
        )
        .fit(rows, won.astype(np.int64))
    )
    return lambda asked: np.asarray(model.predict_proba(asked)[:, 1])


def _fit_random_forest(rows: Floats, won: Bools, seed: int) -> Predict:
    model = import_module("sklearn.ensemble").RandomForestClassifier(
        FOREST_TREES, min_samples_leaf=REFIT.params.min_data_in_leaf, random_state=seed
    )
    model.fit(rows, won)
    return lambda asked: np.asarray(model.predict_proba(asked)[:, -1])


PEERS: Mapping[str, Peer] = {
    "river_arf": Peer("river", online=_arf),
    "river_srp": Peer("river", online=_srp),
    "river_leveraging_bagging": Peer("river", online=_leveraging_bagging),
    "river_logistic": Peer("river", online=_logistic),
    "vowpal_wabbit": Peer("vowpalwabbit", online=lambda seed: VowpalWabbit()),
    "lightgbm_refit": Peer("lightgbm", fit=_fit_lightgbm),
    "xgboost_refit": Peer("xgboost", fit=_fit_xgboost),
    "catboost_refit": Peer("catboost", fit=_fit_catboost),
    "random_forest_refit": Peer("sklearn", fit=_fit_random_forest),
}
