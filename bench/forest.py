"""The forest against River's, CapyMOA's, Vowpal Wabbit's: speed, log loss, state size in one run.

    python bench/forest.py [--tapes DIR] [--trees 10] [--events 5000] [--seeds 5] [--json OUT]

DIR holds weather.jsonl.gz and sea.jsonl.gz; the other six streams are River's own.
Every model sees the same events one by one, predicts, then learns at once; the models take turns
every few hundred events, so that a noisy machine is noisy for all. Ours and River's get dicts;
CapyMOA gets an array, its fastest way in. Log loss is clipped at 0.001 for all, which spares rivals
that answer 0 or 1. Rivals that are not installed are left out.
"""

import gzip
import itertools
import json
import math
import pickle
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import typer
from river import datasets, forest
from river.datasets import synth

from bench.results import JsonOption, Results, run
from learners.forest import AdaptiveRandomForest, warm_up

Event = tuple[dict[Any, float], bool]
TURN = 250
CLIP = 1e-3


class Model(Protocol):
    def predict(self, x: dict[Any, float]) -> float: ...
    def learn(self, x: dict[Any, float], y: bool) -> None: ...
    def size(self) -> int: ...


class Ours:
    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        self.model = AdaptiveRandomForest(n_models=trees, seed=seed)
        self.learn = self.model.learn_one

    def predict(self, x: dict[Any, float]) -> float:
        return self.model.predict_proba_one(x)[True]

    def size(self) -> int:
        return sum(v.nbytes for v in self.model.state().values() if isinstance(v, np.ndarray))


class Rivers:
    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        self.model = forest.ARFClassifier(n_models=trees, seed=seed)
        self.learn = self.model.learn_one

    def predict(self, x: dict[Any, float]) -> float:
        return float(self.model.predict_proba_one(x).get(True, 0.5))

    def size(self) -> int:
        return len(pickle.dumps(self.model))


class CapyMOAs:
    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        from capymoa.classifier import AdaptiveRandomForestClassifier
        from capymoa.core import LabeledInstance
        from capymoa.stream import Schema

        self.schema = Schema.from_custom(
            features=[*names, "y"], target="y", categories={"y": ["0", "1"]}, name="bench"
        )
        self.model = AdaptiveRandomForestClassifier(
            schema=self.schema, ensemble_size=trees, random_seed=seed
        )
        self.instance = LabeledInstance.from_array
        self.names = names

    def _event(self, x: dict[Any, float], y: bool) -> Any:
        return self.instance(self.schema, np.array(list(x.values())), int(y))

    def predict(self, x: dict[Any, float]) -> float:
        self.now = self._event(x, False)
        votes = self.model.predict_proba(self.now)
        if votes is None or votes.sum() == 0:
            return 0.5
        return float(votes[1] / votes.sum()) if len(votes) > 1 else 0.0

    def learn(self, x: dict[Any, float], y: bool) -> None:
        self.model.train(self._event(x, y))

    def size(self) -> int:
        return 0  # it has no plain form


class VowpalWabbits:
    def __init__(self, names: list[str], trees: int, seed: int) -> None:
        from vowpalwabbit import Workspace

        self.model = Workspace("--loss_function logistic --link logistic --quiet -q ::")

    def predict(self, x: dict[Any, float]) -> float:
        return float(self.model.predict(self._line(x)))

    def learn(self, x: dict[Any, float], y: bool) -> None:
        self.model.learn(f"{1 if y else -1} {self._line(x)}")

    def size(self) -> int:
        return 0

    @staticmethod
    def _line(x: dict[Any, float]) -> str:
        return "|f " + " ".join(f"{k}:{v}" for k, v in x.items())


MODELS: dict[str, Callable[[list[str], int, int], Model]] = {
    "ours": Ours,
    "river": Rivers,
    "capymoa": CapyMOAs,
    "vw": VowpalWabbits,
}


def tape(path: Path) -> Iterator[Event]:
    """Signals with the label their close gave, in the order of signals."""
    waiting: dict[str, dict[str, float]] = {}
    with gzip.open(path) as lines:
        for line in lines:
            event = json.loads(line)
            if event["type"] == "signal":
                waiting[event["signal_id"]] = event["features"]
            elif event["type"] == "close" and event["signal_id"] in waiting:
                yield waiting.pop(event["signal_id"]), event["return_pct"] > 0


def streams(tapes: Path | None, seed: int) -> dict[str, Iterator[Event]]:
    """Streams of one seed; those of a fixed data set are the same for all."""
    drawn: dict[str, Any] = {
        "agrawal": synth.Agrawal(seed=seed),
        "rbf drift": synth.RandomRBFDrift(
            seed_model=seed,
            seed_sample=seed,
            n_classes=2,
            n_features=10,
            n_centroids=50,
            change_speed=0.0001,
            n_drift_centroids=10,
        ),
        "hyperplane": synth.Hyperplane(
            seed=seed, n_features=10, n_drift_features=5, mag_change=0.001
        ),
        "mixed": synth.Mixed(seed=seed),
        "phishing": datasets.Phishing(),
        "bananas": datasets.Bananas(),
    }
    found = {
        name: tape(tapes / f"{name}.jsonl.gz")
        for name in ("weather", "sea")
        if tapes and (tapes / f"{name}.jsonl.gz").exists()
    }
    plain = {
        name: (({str(k): float(v) for k, v in x.items()}, bool(y)) for x, y in stream)
        for name, stream in drawn.items()
    }
    return {**found, **plain}


def race(events: list[Event], models: dict[str, Model]) -> dict[str, dict[str, float]]:
    """Run all models over `events` in turns; log loss, accuracy, events/s (median turn), bytes."""
    losses = dict.fromkeys(models, 0.0)
    hits = dict.fromkeys(models, 0)
    rates: dict[str, list[float]] = {name: [] for name in models}
    for at in range(0, len(events), TURN):
        turn = events[at : at + TURN]
        for name, model in models.items():
            began = time.perf_counter()
            answers = []
            for x, y in turn:
                answers.append(model.predict(x))
                model.learn(x, y)
            rates[name].append(len(turn) / (time.perf_counter() - began))
            for p, (_, y) in zip(answers, turn, strict=True):
                hits[name] += (p >= 0.5) == y
                q = min(max(p, CLIP), 1.0 - CLIP)
                losses[name] -= math.log(q if y else 1.0 - q)
    return {
        name: {
            "log_loss": losses[name] / len(events),
            "accuracy": hits[name] / len(events),
            "events_per_s": statistics.median(rates[name]),
            "bytes": model.size(),
        }
        for name, model in models.items()
    }


def installed(name: str) -> bool:
    try:
        MODELS[name](["a", "b"], 1, 1)
    except ImportError:
        return False
    return True


def main(
    tapes: Annotated[Path | None, typer.Option(help="Where weather and sea are.")] = None,
    trees: Annotated[int, typer.Option(min=1)] = 10,
    events: Annotated[int, typer.Option(min=TURN, help="At most, per stream.")] = 5000,
    seeds: Annotated[int, typer.Option(min=1, help="Of the models and the generators.")] = 5,
    rivals: Annotated[str, typer.Option(help="Who else runs.")] = "river,capymoa,vw",
    only: Annotated[str | None, typer.Option(help="Streams to run.", show_default="all")] = None,
    json_out: JsonOption = None,
) -> None:
    """Ours against River's, CapyMOA's and Vowpal Wabbit's: speed, log loss and state size."""
    results = Results("forest", json_out)
    warm_up()
    names = ["ours", *(name for name in rivals.split(",") if name in MODELS and installed(name))]
    runs: dict[str, list[dict[str, dict[str, float]]]] = {}
    for seed in range(1, seeds + 1):
        for name, stream in streams(tapes, seed).items():
            if only is not None and name not in only.split(","):
                continue
            taken = list(itertools.islice(stream, events))
            models = {m: MODELS[m](list(taken[0][0]), trees, seed) for m in names}
            runs.setdefault(name, []).append(race(taken, models))
    table = {
        name: {
            m: {key: statistics.mean(run[m][key] for run in by_seed) for key in by_seed[0][m]}
            for m in names
        }
        for name, by_seed in runs.items()
    }
    rows = [
        (
            name,
            m,
            row["log_loss"],
            row["accuracy"],
            row["events_per_s"],
            by_model["ours"]["events_per_s"] / row["events_per_s"],
            row["bytes"] / 1000 or None,
        )
        for name, by_model in table.items()
        for m, row in by_model.items()
    ]
    results.table(
        f"{trees} trees, mean of {seeds} seeds, at most {events:,} events a stream",
        ("stream", "model", "log loss", "accuracy", "events/s", "ours is x faster", "kB of state"),
        rows,
    )
    results.add({"trees": trees, "seeds": seeds, "events": events, "streams": table})
    results.write()


if __name__ == "__main__":
    run(main)
