import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from river.base import Classifier

from learners.encoding import FIXED_NAMES, FeatureEncoder
from learners.experts import BaseRate, ExpertError, ExpertSpec, Voter, build
from learners.panel import ExpertPanel

TREE = "river.tree.HoeffdingAdaptiveTreeClassifier"
ALL = [
    ExpertSpec("base_rate", "base_rate"),
    ExpertSpec("logistic", "logistic"),
    ExpertSpec("bayes", "bayes"),
    ExpertSpec("forest", "forest", {"n_models": 3, "grace_period": 20}),
    ExpertSpec("tree", TREE, {"grace_period": 20}),
    ExpertSpec("lightgbm", "lightgbm"),
    ExpertSpec("symbol", "group_rate", {"by": "symbol", "min_closes": 2}),
]
GROUPS = {"symbol": "EURUSD", "strategy": "orb", "side": "long", "regime": "ranging"}


class Odd(Classifier):
    """Stands for a River model that can't take some input."""

    def __init__(self) -> None:
        self.learned = 0

    def learn_one(self, x: dict, y: bool) -> None:  # type: ignore[override,type-arg]
        self.learned += 1
        if x["f0"] == 13.0:
            raise ZeroDivisionError

    def predict_proba_one(self, x: dict) -> dict:  # type: ignore[override,type-arg]
        if x["f0"] == 7.0:
            raise OverflowError(f"at {id(self):x}")
        return {True: math.nan if x["f0"] == 3.0 else 0.75}


def teach(panel: ExpertPanel, row: np.ndarray, won: bool) -> None:
    """One close whose votes, return and stop nobody kept."""
    voters = sum(isinstance(panel[name], Voter) for name in panel.names)
    votes = ((math.nan, math.nan),) * voters
    panel.learn(row, won, 1.0 if won else -1.0, None, votes, GROUPS)


def encoder(features: int = 6) -> FeatureEncoder:
    made = FeatureEncoder()
    names = [*FIXED_NAMES, *(f"f{i}" for i in range(features))]
    made.restore({**made.state(), "names": names, "numbers": [[n, i] for i, n in enumerate(names)]})
    return made


def closes(count: int, seed: int = 0) -> list[tuple[NDArray[np.float64], bool]]:
    """Rows whose last column comes late and sometimes misses, and whose concept changes."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, len(FIXED_NAMES) + 6))
    rows[rng.random(rows.shape) < 0.1] = math.nan
    signs = np.where(np.arange(count) < 2 * count // 3, 1.0, -1.0)
    labels = np.nan_to_num(rows[:, -6]) * signs + rng.normal(0, 0.5, count) > 0
    return [
        (row[:-1] if i < count // 3 else row, bool(label))
        for i, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]


def play(panel: ExpertPanel, stream: list[tuple[NDArray[np.float64], bool]]) -> list[bytes]:
    answers = []
    for row, won in stream:
        answers.append(panel.predict(row, GROUPS).p.tobytes())
        teach(panel, row, won)
    return answers


def row(first: float) -> NDArray[np.float64]:
    return np.array([math.nan] * len(FIXED_NAMES) + [first] * 6)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> ExpertPanel:
    monkeypatch.setitem(sys.modules, "river.odd", sys.modules[__name__])
    specs = [ExpertSpec("base_rate", "base_rate"), ExpertSpec("odd", "river.odd:Odd")]
    panel = ExpertPanel(specs, encoder())
    teach(panel, row(0.0), True)
    teach(panel, row(0.0), False)
    return panel


def test_until_it_has_seen_a_win_and_a_loss_only_the_base_rate_votes() -> None:
    panel = ExpertPanel(ALL, encoder())
    (first, _), *_ = closes(1)
    assert repr(panel.predict(first, GROUPS).p.tolist()) == repr([0.5] + [math.nan] * 6)
    teach(panel, first, True)
    assert repr(panel.predict(first, GROUPS).p.tolist()) == repr([2 / 3] + [math.nan] * 6)
    teach(panel, first, False)
    assert np.isfinite(panel.predict(first, GROUPS).p).tolist() == [True] * 5 + [False, True]
    assert panel.failures == {}


def test_every_expert_learns_each_close_exactly_once() -> None:
    panel = ExpertPanel(ALL, encoder())
    stream = closes(40)
    play(panel, stream)
    wins = sum(won for _, won in stream)
    assert panel["base_rate"].closes == 40
    assert panel["logistic"].closes == 40
    assert panel["bayes"].closes == (40 - wins, wins)


def test_experts_are_believed_within_bounds_and_some_learn_what_there_is() -> None:
    panel = ExpertPanel(ALL, encoder())
    stream = closes(400)
    answers = np.array([np.frombuffer(p) for p in play(panel, stream)])
    awake = answers[~np.isnan(answers)]
    assert ((awake >= 0.001) & (awake <= 0.999)).all()
    labels = np.array([won for _, won in stream])
    quarter = slice(100, 260)
    hits = ((answers[quarter] > 0.5) == labels[quarter, None]).mean(axis=0)
    assert (hits[1:5] > 0.65).all()


@pytest.mark.parametrize("at", [0, 1, 150])
def test_a_restored_panel_goes_on_as_if_it_had_never_stopped(at: int) -> None:
    stream = closes(300)
    shared = encoder()
    straight = ExpertPanel(ALL, shared)
    play(straight, stream[:at])
    restored = ExpertPanel(ALL, shared)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    assert play(restored, stream[at:]) == play(straight, stream[at:])


def test_a_state_is_a_copy_that_later_learning_leaves_alone() -> None:
    stream = closes(80)
    shared = encoder()
    straight = ExpertPanel(ALL, shared)
    play(straight, stream[:40])
    state = straight.state()
    expected = play(straight, stream[40:])
    for _ in range(2):
        restored = ExpertPanel(ALL, shared)
        restored.restore(state)
        assert play(restored, stream[40:]) == expected


def test_answers_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import hashlib, test_panel as t\n"
        "panel = t.ExpertPanel(t.ALL, t.encoder())\n"
        "print(hashlib.sha256(b''.join(t.play(panel, t.closes(80)))).hexdigest())\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_one_that_raises_abstains_is_counted_and_the_others_go_on(odd: ExpertPanel) -> None:
    assert odd.predict(row(1.0), GROUPS).p.tolist() == [0.5, 0.75]
    assert repr(odd.predict(row(7.0), GROUPS).p.tolist()) == repr([0.5, math.nan])
    # The error's message, which holds an address, is not part of it.
    assert odd.failures == {"odd": (1, "OverflowError")}
    assert odd.predict(row(1.0), GROUPS).p.tolist() == [0.5, 0.75]


def test_one_that_answers_nan_or_fails_while_learning_starts_afresh(odd: ExpertPanel) -> None:
    assert math.isnan(odd.predict(row(3.0), GROUPS).p[1])
    assert odd["odd"].learned == 0
    teach(odd, row(1.0), True)
    assert math.isnan(odd.predict(row(1.0), GROUPS).p[1])
    teach(odd, row(13.0), True)
    assert odd["odd"].learned == 0
    assert odd["base_rate"].closes == 4
    assert odd.failures == {"odd": (2, "ZeroDivisionError")}
    state = pickle.loads(pickle.dumps(odd.state()["failures"]))
    assert state == odd.state()["failures"]


def test_one_that_takes_rows_starts_afresh_too_when_it_has_overflowed() -> None:
    specs = [ExpertSpec("wild", "logistic", {"l2": 1e6}), ExpertSpec("lightgbm", "lightgbm")]
    panel = ExpertPanel(specs, encoder())
    for features, won in closes(400):
        panel.predict(features, GROUPS)
        teach(panel, features, won)
    count, how = panel.failures["wild"]
    assert how == "NaN"
    assert 0 < count < 200
    assert panel["wild"].closes < 400
    assert "lightgbm" not in panel.failures


def test_those_that_forecast_returns_and_stops_are_asked_for_them_too() -> None:
    panel = ExpertPanel(ALL, encoder())
    assert panel.voters == 1
    stream = closes(40)
    first = panel.predict(stream[0][0], GROUPS)
    assert (len(first.votes), repr(first.returns), repr(first.stops)) == (1, "[nan]", "[nan]")
    for features, won in stream:
        votes = panel.predict(features, GROUPS).votes
        panel.learn(features, won, 3.0 if won else -1.0, not won, votes, GROUPS)
    said = panel.predict(stream[0][0], GROUPS)
    assert -1.0 < said.returns[0] < 3.0
    assert 0.0 < said.stops[0] < 1.0
    own = panel["forest"].predict_row(stream[0][0])
    assert (own[1], own[2]) == (said.returns[0], said.stops[0])


def test_a_groups_rate_is_asked_and_taught_by_the_signals_groups() -> None:
    panel = ExpertPanel(ALL, encoder())
    other = GROUPS | {"symbol": "XAUUSD"}
    for _ in range(2):
        panel.learn(row(0.0), True, 1.0, None, ((math.nan, math.nan),), GROUPS)
    rate = panel["symbol"].predict_proba_one(GROUPS)[True]
    assert panel.predict(row(0.0), GROUPS).p[-1] == rate
    assert math.isnan(panel.predict(row(0.0), other).p[-1])
    assert panel.failures == {}


def test_an_expert_that_is_reset_has_forgotten_everything() -> None:
    panel = ExpertPanel(ALL, encoder())
    stream = closes(60)
    play(panel, stream)
    for spec in ALL:
        panel.reset(spec.name)
    fresh = ExpertPanel(ALL, encoder())
    assert play(panel, stream) == play(fresh, stream)


@pytest.mark.parametrize(
    "model",
    [
        "oracle",
        "os.path",
        "subprocess:Popen",
        "sklearn.svm.SVC",
        "riverx.tree.X",
        "river",
        "river.tree.Nothing",
        "river.nowhere.X",
        "river.datasets:Phishing",
        "river.linear_model.LinearRegression",
    ],
)
def test_what_is_no_river_classifier_is_refused_with_the_mend(model: str) -> None:
    with pytest.raises(
        ExpertError, match=r"expert `mine`: there is no model .*; use one of base_rate"
    ):
        build(ExpertSpec("mine", model))


def test_wrong_parameters_and_names_given_twice_are_refused() -> None:
    with pytest.raises(ExpertError, match=r"expert `f`: forest can't be made with .*leaves"):
        build(ExpertSpec("f", "forest", {"leaves": 3}))
    with pytest.raises(ExpertError, match="same name"):
        ExpertPanel([ExpertSpec("a", "bayes"), ExpertSpec("a", "logistic")], encoder())


def test_every_expert_that_draws_random_numbers_has_a_seed() -> None:
    assert build(ExpertSpec("f", "forest"), seed=5).seed == 5
    assert build(ExpertSpec("f", "forest", {"seed": 9}), seed=5).seed == 9
    assert build(ExpertSpec("t", TREE), seed=5).seed == 5


def test_the_base_rate_says_the_same_in_rivers_form() -> None:
    by_row, by_dict = BaseRate(), BaseRate()
    for features, won in closes(20):
        p = by_row.predict_proba_row(features)
        assert by_dict.predict_proba_one({}) == {False: 1.0 - p, True: p}
        assert by_dict.predict_one({}) == (p > 0.5)
        by_row.learn_row(features, won)
        by_dict.learn_one({}, won)
    assert by_row.state() == by_dict.state()
    assert by_row.clone().state() == BaseRate().state()
