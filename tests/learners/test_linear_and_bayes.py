"""Our array versions of River's two simplest experts, held to River's own."""

import math
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from river import checks
from river.base import Classifier
from river.linear_model import LogisticRegression
from river.naive_bayes import GaussianNB
from river.preprocessing import StandardScaler

from learners.bayes import GaussianBayes
from learners.linear import Logistic

Stream = list[tuple[NDArray[np.float64], bool]]
BOTH = pytest.mark.parametrize("make", [Logistic, GaussianBayes])
PAIRS = pytest.mark.parametrize(
    ("make", "river"),
    [
        (Logistic, lambda: StandardScaler() | LogisticRegression()),
        (
            lambda: Logistic(l2=0.1, intercept_lr=0.05),
            lambda: StandardScaler() | LogisticRegression(l2=0.1, intercept_lr=0.05),
        ),
        # Steps so large that log odds leave the range where River computes them in full.
        (
            lambda: Logistic(intercept_lr=40.0),
            lambda: StandardScaler() | LogisticRegression(intercept_lr=40.0),
        ),
        (GaussianBayes, GaussianNB),
    ],
)


def stream(closes: int = 1500, seed: int = 0) -> Stream:
    """Rows that widen twice, miss values, and hold constant, one-hot, tiny and huge columns."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(closes, 12))
    won = rows[:, 0] + rng.normal(size=closes) > 0.3
    rows[:, 1] = 7.0
    rows[:, 2:4] = np.eye(2)[rng.integers(0, 2, closes)]
    rows[:, 4] *= 1e-12
    rows[:, 5] = 1e6 + rows[:, 5]
    rows[:, 6] = np.where(rng.random(closes) < 0.01, 1e18, rows[:, 6])
    rows[rng.random(rows.shape) < 0.1] = math.nan
    widths = np.searchsorted([closes // 5, closes // 2], range(closes), "right") * 2 + 8
    return [
        (row[:width].copy(), bool(label))
        for row, label, width in zip(rows, won, widths, strict=True)
    ]


def named(row: NDArray[np.float64]) -> dict[str, float]:
    return {f"f{i}": x for i, x in enumerate(row.tolist()) if x == x}


def play(model: Any, closes: Stream) -> list[str]:
    answers = []
    for row, won in closes:
        answers.append(repr(model.predict_proba_row(row)))
        model.learn_row(row, won)
    return answers


@PAIRS
@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_rivers_says(
    make: Callable[[], Any], river: Callable[[], Any], seed: int
) -> None:
    ours, theirs = make(), river()
    for row, won in stream(seed=seed):
        x = named(row)
        # River's naive Bayes doesn't speak of classes that it hasn't seen.
        expected = theirs.predict_proba_one(x) or {True: 0.5}
        p = ours.predict_proba_row(row)
        assert p == pytest.approx(expected.get(True, 0.0), rel=1e-11)
        ours.learn_row(row, won)
        theirs.learn_one(x, won)


@BOTH
def test_dicts_reach_what_rows_reach(make: Callable[[], Any]) -> None:
    by_row, by_dict = make(), make()
    closes = stream(400)
    width = len(closes[-1][0])
    # A first close with all names, so that both have their columns in the same order.
    closes.insert(0, (np.arange(float(width)), True))
    for row, won in closes:
        p = by_row.predict_proba_row(row)
        expected = {False: 1.0 - p, True: p}
        assert by_dict.predict_proba_one({**named(row), "never learned": 1.0}) == expected
        assert by_dict.predict_proba_one({**named(row), "f99": None}) == expected
        by_row.learn_row(row, won)
        by_dict.learn_one(named(row), won)
    states = by_row.state(), by_dict.state()
    assert states[1].pop("names") == [f"f{i}" for i in range(width)]
    assert states[0].pop("names") == []
    assert pickle.dumps(states[0]) == pickle.dumps(states[1])


@BOTH
@pytest.mark.parametrize("at", [0, 1, 250])
def test_a_restored_one_goes_on_as_if_it_had_never_stopped(
    make: Callable[[], Any], at: int
) -> None:
    closes = stream(400)
    straight = make()
    play(straight, closes[:at])
    state = straight.state()
    expected = play(straight, closes[at:])
    restored = make()
    for _ in range(2):
        restored.restore(pickle.loads(pickle.dumps(state)))
        assert play(restored, closes[at:]) == expected
    assert pickle.dumps(restored.state()) == pickle.dumps(straight.state())


@BOTH
def test_a_restored_one_still_knows_its_names(make: Callable[[], Any]) -> None:
    straight, restored = make(), make()
    for row, won in stream(100):
        straight.learn_one(named(row), won)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    x = named(stream(1, seed=9)[0][0])
    x = dict(reversed(x.items()))
    assert restored.predict_proba_one(x) == straight.predict_proba_one(x)


@BOTH
def test_columns_past_the_bound_are_ignored(make: Callable[..., Any]) -> None:
    bounded, narrow = make(max_columns=5), make()
    for row, won in stream(300):
        assert repr(bounded.predict_proba_row(row)) == repr(narrow.predict_proba_row(row[:5]))
        bounded.learn_row(row, won)
        narrow.learn_row(row[:5], won)
        bounded.learn_one(named(row), won)
        narrow.learn_one({k: x for k, x in named(row).items() if k in named(np.zeros(5))}, won)
    assert len(bounded.state()["names"]) == 5


@BOTH
def test_a_read_only_row_is_as_good_as_any(make: Callable[[], Any]) -> None:
    frozen, free = make(), make()
    closes = stream(50)
    expected = play(free, closes)
    for row, _ in closes:
        row.flags.writeable = False
    assert play(frozen, closes) == expected


@BOTH
def test_what_is_no_number_is_refused(make: Callable[[], Any]) -> None:
    model = make()
    with pytest.raises(TypeError, match="feature 'session' is the text 'Tokyo'"):
        model.learn_one({"session": "Tokyo"}, True)
    with pytest.raises(TypeError):
        model.learn_row(np.zeros(3, np.float32), True)
    assert model.predict_proba_row(np.zeros(3)) == 0.5


@BOTH
def test_it_passes_rivers_own_checks(
    make: Callable[[], Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    # River imports scikit-learn for data on which no classifier is checked.
    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    monkeypatch.setattr(sys.modules["sklearn"], "datasets", None, raising=False)
    for check in checks.yield_checks(make()):
        check(make())


def test_until_it_has_seen_a_win_and_a_loss_bayes_knows_nothing_else() -> None:
    model = GaussianBayes()
    assert model.predict_proba_one({"x": 1.0}) == {False: 0.5, True: 0.5}
    model.learn_one({"x": 1.0}, True)
    assert model.predict_proba_one({"x": 5.0}) == {False: 0.0, True: 1.0}
