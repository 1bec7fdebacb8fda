"""Forests and their like behind one face: predict an event, then learn it.

Each gets an event as suits it best: ours and River's forest a dict, CapyMOA an array, Vowpal Wabbit
a line of its text format. `prepare` makes that, and no clock runs meanwhile. The rivals are not
among closeloop's requirements; what is missing says so with an ImportError (CapyMOA, without Java,
with a RuntimeError).
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from river import forest

from engine.evaluation import peers
from learners.forest import AdaptiveRandomForest


class Model(Protocol):
    """What the race asks of a model; `x` is always what `prepare` made."""

    def prepare(self, x: dict[str, float]) -> Any:
        """The event in the form that this model takes."""
        ...

    def predict(self, x: Any) -> float:
        """Probability of true."""
        ...

    def learn(self, x: Any, y: bool) -> None:
        """Learn the event that was predicted last."""
        ...

    def size(self) -> int:
        """Bytes of its state as it would be saved."""
        ...


class Ours:
    """closeloop's forest, fed dicts."""

    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        self._model = AdaptiveRandomForest(n_models=trees, seed=seed)
        self.learn = self._model.learn_one

    def prepare(self, x: dict[str, float]) -> dict[Any, float]:
        return x

    def predict(self, x: dict[Any, float]) -> float:
        return self._model.predict_proba_one(x)[True]

    def size(self) -> int:
        return sum(v.nbytes for v in self._model.state().values() if isinstance(v, np.ndarray))


class River:
    """River's ARF with its default settings, fed dicts; its state is its pickle."""

    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        self._model = forest.ARFClassifier(n_models=trees, seed=seed)
        self.learn = self._model.learn_one

    def prepare(self, x: dict[str, float]) -> dict[str, float]:
        return x

    def predict(self, x: dict[str, float]) -> float:
        votes = self._model.predict_proba_one(x)
        return float(votes.get(True, 0.0)) if votes else 0.5

    def size(self) -> int:
        return len(pickle.dumps(self._model))


class CapyMoa:
    """CapyMOA's ARF with its default settings, fed arrays.

    An event becomes a Java instance once, and gets its label when it is learned. Its state is what
    Java's own serialization writes.
    """

    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        from capymoa.classifier import AdaptiveRandomForestClassifier
        from capymoa.core import Instance
        from capymoa.stream import Schema

        self._names = names
        self._schema = Schema.from_custom(
            features=[*names, "y"], target="y", categories={"y": ["0", "1"]}
        )
        self._model = AdaptiveRandomForestClassifier(
            schema=self._schema, ensemble_size=trees, random_seed=seed
        )
        self._instance = Instance.from_array

    def prepare(self, x: dict[str, float]) -> NDArray[np.float64]:
        return np.array([x[name] for name in self._names])

    def predict(self, x: NDArray[np.float64]) -> float:
        self._asked = self._instance(self._schema, x)
        votes = self._model.predict_proba(self._asked)
        return 0.5 if votes is None else float(votes[1])

    def learn(self, x: NDArray[np.float64], y: bool) -> None:
        self._asked.java_instance.getData().setClassValue(float(y))
        self._model.train(self._asked)

    def size(self) -> int:
        from jpype import JClass

        out = JClass("java.io.ByteArrayOutputStream")()
        JClass("java.io.ObjectOutputStream")(out).writeObject(self._model.moa_learner)
        return int(out.size())


class VowpalWabbit(peers.VowpalWabbit):
    """Vowpal Wabbit as `closeloop compare` runs it; its state is the model file it writes."""

    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        super().__init__()

    def size(self) -> int:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            self._model.save(str(path))
            return path.stat().st_size


MODELS: dict[str, Callable[[list[str], int, int], Model]] = {
    "ours": Ours,
    "river": River,
    "capymoa": CapyMoa,
    "vw": VowpalWabbit,
}
DISTRIBUTIONS = {"river": "river", "capymoa": "capymoa", "vw": "vowpalwabbit"}


def missing(name: str) -> str | None:
    """Why a model of `MODELS` can't run here; None if it can."""
    try:
        MODELS[name](["a", "b"], 1, 1)
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None
