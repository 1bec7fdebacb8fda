import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings

from snapshots import SnapshotUnsupported, digest, freeze, read, state_digest, thaw
from tests.snapshots.trained import HALF, SAMPLES, encoded, train, untrained
from tests.snapshots.trees import KEY, same, trees

ROOT = Path(__file__).parents[2]


def in_another_process(hash_seed: int, *arguments: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.snapshots.trained", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@settings(max_examples=25, deadline=None)
@given(trees)
@example({"floats": [math.nan, -math.nan, math.inf, -math.inf, -0.0, 5e-324]})
@example({"ints": [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400]})
def test_any_tree_comes_back_as_it_was(tree: dict[str, object]) -> None:
    snapshot = read(encoded(tree), KEY)
    assert same(tree, snapshot.tree)
    assert digest(tree) == digest(snapshot.tree)
    assert state_digest(tree) == snapshot.manifest.state_digest


@settings(max_examples=25, deadline=None)
@given(trees)
def test_a_frozen_tree_has_the_digest_of_the_live_one(tree: dict[str, object]) -> None:
    assert digest(tree) == digest(thaw(freeze(tree)))


def test_what_happens_to_the_live_state_does_not_reach_a_frozen_one() -> None:
    state = {"array": np.zeros(3), "list": [1], **untrained()}
    before = digest(state)
    frozen = freeze(state)
    state["array"][0] = 1  # type: ignore[index] # the array
    state["list"].append(2)  # type: ignore[attr-defined] # the list
    train({name: state[name] for name in untrained()}, range(3))
    assert digest(thaw(frozen)) == before != digest(state)


def test_restored_arrays_can_be_written_to() -> None:
    array = read(encoded({"a": np.zeros((2, 3), ">f4", order="F")}), KEY).tree["a"]
    assert isinstance(array, np.ndarray)
    array[1, 2] = 1
    assert array.dtype == ">f4"


def test_what_two_leaves_share_stays_shared() -> None:
    shared = np.random.default_rng(1)
    tree = read(encoded({"a": shared, "b": {"c": shared}}), KEY).tree
    assert tree["a"] is tree["b"]["c"]  # type: ignore[index] # the dict


def test_going_on_from_a_snapshot_equals_never_having_stopped(tmp_path: Path) -> None:
    state = untrained()
    train(state, range(HALF))
    half = tmp_path / "half"
    half.write_bytes(encoded(state))
    at_half = digest(state)
    train(state, range(HALF, SAMPLES))

    whole = digest(state)
    assert in_another_process(1) == [whole]
    assert in_another_process(2, half, tmp_path / "whole") == [at_half, whole]
    assert digest(read((tmp_path / "whole").read_bytes(), KEY).tree) == whole


def test_a_restored_panel_predicts_what_the_live_one_does() -> None:
    state = untrained()
    train(state, range(HALF))
    restored = read(encoded(state), KEY).tree
    features = {"rsi": 0.1, "atr": -1.0, "gap": 0.4, "volume": 0.0}
    for name, model in state.items():
        if hasattr(model, "predict_proba_one"):
            other = restored[name].predict_proba_one(features)  # type: ignore[attr-defined] # so has it
            assert model.predict_proba_one(features) == other, name


def test_a_forest_takes_kilobytes_not_megabytes() -> None:
    state = {"forest": untrained()["forest"]}
    train(state, range(SAMPLES))
    assert len(freeze(state).objects) < 100_000


def looped() -> dict[str, object]:
    loop: dict[str, object] = {}
    loop["loop"] = loop
    return loop


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        (looped(), "holds itself"),
        ({"a": lambda: 0}, "can't be pickled"),
        ({"a": (number for number in (1,))}, "can't be pickled"),
        ({"a": print}, "builtins.print is not a type"),
        ({"a": Path("x")}, "pathlib"),
        ({"a": "\ud800"}, "can't be written as JSON"),
    ],
)
def test_a_state_that_could_not_be_read_again_is_not_written(
    tree: dict[str, object], why: str
) -> None:
    with pytest.raises(SnapshotUnsupported, match=why):
        encoded(tree)
