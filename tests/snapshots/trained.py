"""River's learners, trained; as a script, in another process, the same.

``python -m tests.snapshots.trained``          prints the digest after 800 samples.
``python -m tests.snapshots.trained FILE OUT`` goes on from the snapshot FILE, 500 samples long,
                                               prints its digest and then that after 800, and
                                               writes the snapshot to OUT.
"""

# mypy: allow-untyped-calls
# River has types, but most of its constructors have none.

import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random

from river import (
    compose,
    drift,
    ensemble,
    forest,
    linear_model,
    naive_bayes,
    optim,
    preprocessing,
    tree,
)

from snapshots import digest, encode, freeze, read
from tests.snapshots.trees import KEY

SAMPLES = 800
HALF = 500


def untrained() -> dict[str, object]:
    """The experts that a panel is made of, and River's others that keep unusual state."""
    scaler, linear = preprocessing.StandardScaler, linear_model.LogisticRegression
    return {
        "linear": compose.Pipeline(scaler(), linear()),
        "adam": compose.Pipeline(scaler(), linear(optimizer=optim.Adam(0.01))),
        "bayes": naive_bayes.GaussianNB(),
        "forest": forest.ARFClassifier(n_models=3, seed=1, grace_period=20),
        "mondrian": forest.AMFClassifier(n_estimators=2, seed=1),
        "patches": ensemble.SRPClassifier(n_models=2, seed=1),
        "bagging": ensemble.LeveragingBaggingClassifier(
            tree.HoeffdingTreeClassifier(), n_models=2, seed=1
        ),
        "tree": tree.HoeffdingAdaptiveTreeClassifier(seed=1, grace_period=20),
        "passive": linear_model.PAClassifier(),
        "adwin": drift.ADWIN(),
    }


def train(state: dict[str, object], samples: Iterable[int]) -> None:
    """Learn `samples` of one fixed stream, which drifts in its middle."""
    for number in samples:
        random = Random(number)
        features = {name: random.gauss(0, 1) for name in ("rsi", "atr", "gap", "volume")}
        sign = 1 if number < 600 else -1
        won = sign * features["rsi"] + features["gap"] ** 2 + random.gauss(0, 0.5) > 0.5
        for name, model in state.items():
            if name == "adwin":
                model.update(float(won))  # type: ignore[attr-defined] # the only one of its kind
            else:
                model.learn_one(dict(features), won)  # type: ignore[attr-defined] # a classifier


def encoded(state: dict[str, object]) -> bytes:
    """A snapshot of `state`."""
    return encode(
        freeze(state),
        KEY,
        created="2026-05-01T13:30:00Z",
        config_digest="c" * 64,
        lineage="one",
        position="1-0",
        events=HALF,
        decisions_digest="d" * 64,
    )


def _main(arguments: list[str]) -> None:
    if arguments:
        source, target = map(Path, arguments)
        state = read(source.read_bytes(), KEY).tree
        sys.stdout.write(f"{digest(state)}\n")
        train(state, range(HALF, SAMPLES))
        target.write_bytes(encoded(state))
    else:
        state = untrained()
        train(state, range(SAMPLES))
    sys.stdout.write(f"{digest(state)}\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
