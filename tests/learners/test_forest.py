"""The forest: River's contract, its state, missing and late features, outcomes and drift."""

import copy
import math
import pickle
import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest
from river import checks, metrics
from river.base import Classifier, Regressor
from river.datasets import Phishing

from learners.forest import AdaptiveRandomForest, AdaptiveRandomForestReturns, warm_up

Rows = np.ndarray


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    warm_up()


def stream(seed: int, n: int, features: int = 6) -> tuple[Rows, Rows, Rows]:
    """Rows with a tenth missing, whether each won, and its return."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, features))
    wins = rows[:, 0] + rows[:, 1] * rows[:, 2] > 0
    rows[rng.random(rows.shape) < 0.1] = math.nan
    return rows, wins, np.where(wins, 2.0, -1.0) + rng.normal(0, 0.1, n)


def taught(n: int = 1500, seed: int = 1, trees: int = 5) -> AdaptiveRandomForest:
    forest = AdaptiveRandomForest(n_models=trees, seed=seed)
    for row, won, return_pct in zip(*stream(seed, n), strict=True):
        forest.learn_row(row, bool(won), return_pct, float(not won))
    return forest


def assert_same_from_here(a: AdaptiveRandomForest, b: AdaptiveRandomForest, n: int = 600) -> None:
    for row, won, return_pct in zip(*stream(99, n), strict=True):
        assert a.predict_row(row) == b.predict_row(row)
        for forest in (a, b):
            forest.learn_row(row, bool(won), return_pct, float(not won))
    for key, value in a.state().items():
        assert np.array_equal(np.asarray(value), np.asarray(b.state()[key])), key


def rivers_checks(model: Classifier | Regressor) -> Iterator[object]:
    # Only other kinds of estimators are checked on scikit-learn's data, but it is imported for all.
    stand_in = types.ModuleType("sklearn")
    stand_in.datasets = types.ModuleType("sklearn.datasets")  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "sklearn", stand_in)
        patch.setitem(sys.modules, "sklearn.datasets", stand_in.datasets)
        yield from checks.yield_checks(model)


FOREST = AdaptiveRandomForest(n_models=3)
RETURNS = AdaptiveRandomForestReturns(AdaptiveRandomForest(n_models=3))


@pytest.mark.parametrize("check", list(rivers_checks(FOREST)), ids=lambda check: check.__name__)
def test_river_accepts_it_as_a_classifier(check) -> None:  # type: ignore[no-untyped-def]
    check(AdaptiveRandomForest(n_models=3))


@pytest.mark.parametrize("check", list(rivers_checks(RETURNS)), ids=lambda check: check.__name__)
def test_river_accepts_its_returns_as_a_regressor(check) -> None:  # type: ignore[no-untyped-def]
    check(RETURNS.clone())


def test_its_returns_are_those_of_the_forest_they_share() -> None:
    forest = AdaptiveRandomForest(n_models=3)
    returns = AdaptiveRandomForestReturns(forest)
    assert returns.predict_one({"a": 1.0}) == 0.0
    for row, _, return_pct in zip(*stream(1, 500), strict=True):
        returns.learn_one(dict(enumerate(row)), float(return_pct))
    for row in stream(2, 50)[0]:
        p, expected, _ = forest.predict_row(row)
        assert returns.predict_one(dict(enumerate(row))) == expected
        assert forest.predict_proba_one(dict(enumerate(row)))[True] == p


def test_it_is_a_binary_classifier_of_river() -> None:
    forest = AdaptiveRandomForest(n_models=1)
    assert isinstance(forest, Classifier)
    assert not forest._multiclass


def test_restoring_and_going_on_is_the_same_as_never_stopping() -> None:
    forest = taught()
    restored = AdaptiveRandomForest(n_models=5, seed=77)
    restored.restore(forest.state())
    assert_same_from_here(forest, restored)


def test_restoring_over_a_used_forest_leaves_nothing_of_it() -> None:
    forest = taught()
    used = taught(2500, seed=8)
    used.restore(forest.state())
    assert_same_from_here(forest, used)


def test_a_pickled_and_a_deep_copied_forest_go_on_alike() -> None:
    forest = taught()
    assert_same_from_here(pickle.loads(pickle.dumps(forest)), copy.deepcopy(forest))


def test_states_arrays_are_copies() -> None:
    forest = taught()
    before = forest.predict_row(np.zeros(6))
    for value in forest.state().values():
        if isinstance(value, np.ndarray):
            value.fill(1)
    assert forest.predict_row(np.zeros(6)) == before


def test_a_state_of_other_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="bounds"):
        AdaptiveRandomForest(n_models=4).restore(taught().state())


def test_predicting_changes_nothing() -> None:
    a, b = taught(), taught()
    for row in stream(3, 50)[0]:
        a.predict_row(row)
        a.predict_proba_one({"unseen": 1.0})
    assert_same_from_here(a, b)


def test_learning_what_was_just_asked_about_is_as_learning_anything() -> None:
    a, b = taught(), taught()
    for row, won, return_pct in zip(*stream(3, 300), strict=True):
        a.predict_row(row)
        b.predict_row(row)
        b.predict_row(row + 1.0)  # so that b must ask its trees again
        for forest in (a, b):
            forest.learn_row(row, bool(won), return_pct)
    assert_same_from_here(a, b)


def test_the_seed_decides() -> None:
    assert_same_from_here(taught(seed=4), taught(seed=4))
    row = np.zeros(6)
    other = AdaptiveRandomForest(n_models=5, seed=12)
    for r, won, _ in zip(*stream(4, 1500), strict=True):
        other.learn_row(r, bool(won))
    assert other.predict_row(row)[0] != taught(seed=4).predict_row(row)[0]


def test_dicts_and_rows_reach_the_same_trees() -> None:
    by_row, by_dict = (AdaptiveRandomForest(n_models=3) for _ in range(2))
    rows, wins, _ = stream(5, 800)
    for row, won in zip(rows, wins, strict=True):
        x = {f"f{i}": None if math.isnan(v) else float(v) for i, v in enumerate(row)}
        assert by_dict.predict_proba_one(x)[True] == by_row.predict_proba_row(row)
        by_row.learn_row(row, bool(won))
        by_dict.learn_one(x, bool(won))


def test_any_dtype_layout_or_flag_of_a_row_gives_the_same() -> None:
    forest = taught()
    row = np.arange(6, dtype=np.float64)
    read_only = row.copy()
    read_only.flags.writeable = False
    strided = np.arange(12, dtype=np.float64)
    strided[::2] = row
    expected = forest.predict_row(row)
    for same in (row.astype(np.float32), row.astype(int), read_only, strided[::2]):
        assert forest.predict_row(same) == expected


def test_text_is_refused_with_the_features_name() -> None:
    with pytest.raises(TypeError, match="session"):
        AdaptiveRandomForest(n_models=1).learn_one({"session": "Tokyo"}, True)


def test_a_label_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ValueError, match="spam"):
        AdaptiveRandomForest(n_models=1).learn_one({"x": 1.0}, "spam")


def test_features_beyond_the_bound_are_ignored() -> None:
    narrow = AdaptiveRandomForest(n_models=3, max_columns=2)
    cut = AdaptiveRandomForest(n_models=3, max_columns=2)
    for row, won, _ in zip(*stream(6, 300), strict=True):
        narrow.learn_row(row, bool(won))
        cut.learn_row(row[:2], bool(won))
        assert narrow.predict_row(row)[0] == cut.predict_row(row[:2])[0]
    for i in range(4):
        narrow.learn_one({f"n{j}": float(j) for j in range(i)}, True)
    assert 0 < narrow.predict_proba_one({"n9": 1.0})[True] < 1


def test_a_feature_that_appears_late_is_used() -> None:
    rng = np.random.default_rng(7)
    forest = AdaptiveRandomForest(n_models=10)
    for _ in range(300):
        forest.learn_row(rng.normal(size=2), bool(rng.random() < 0.5))
    for _ in range(3000):
        row = rng.normal(size=3)
        forest.learn_row(row, bool(row[2] > 0))
    assert forest.predict_proba_row(np.array([0.0, 0.0, 1.0])) > 0.8
    assert forest.predict_proba_row(np.array([0.0, 0.0, -1.0])) < 0.2


def test_nothing_learned_means_even_odds_and_unknown_outcomes() -> None:
    p, expected, stop = AdaptiveRandomForest(n_models=2).predict_row(np.zeros(3))
    assert p == 0.5
    assert math.isnan(expected)
    assert math.isnan(stop)


def test_returns_and_stops_are_predicted_per_leaf() -> None:
    forest = taught(6000)
    wins, losses = np.array([2.0, 0, 0, 0, 0, 0]), np.array([-2.0, 0, 0, 0, 0, 0])
    p, expected, stop = forest.predict_row(wins)
    assert p > 0.9
    assert expected == pytest.approx(2.0, abs=0.4)
    assert stop < 0.15
    p, expected, stop = forest.predict_row(losses)
    assert p < 0.1
    assert expected == pytest.approx(-1.0, abs=0.4)
    assert stop > 0.85


def test_an_unknown_outcome_leaves_what_is_known_alone() -> None:
    a, b = taught(300), taught(300)
    row = np.zeros(6)
    expected = a.predict_row(row)[1:]
    a.learn_row(row, True)
    assert a.predict_row(row)[1:] == pytest.approx(expected, abs=0.05)
    b.learn_row(row, True, 50.0, 1.0)
    assert b.predict_row(row)[1] > expected[0] + 0.5


def test_a_drift_replaces_trees_and_a_steady_stream_does_not() -> None:
    forest = AdaptiveRandomForest(n_models=5, seed=2)
    rows, wins, _ = stream(9, 6000)
    for row, won in zip(rows[:3000], wins[:3000], strict=True):
        forest.learn_row(row, bool(won))
    assert forest.n_drifts == 0
    for row, won in zip(rows[3000:], ~wins[3000:], strict=True):
        forest.learn_row(row, bool(won))
    assert forest.n_drifts >= 5
    assert forest.n_warnings >= 5
    assert forest.predict_proba_row(np.array([2.0, 0, 0, 0, 0, 0])) < 0.2


def test_votes_frozen_at_the_signal_keep_late_labels_honest() -> None:
    """Trades open together win together: trees that know the others must not look skilled."""
    rng = np.random.default_rng(10)
    naive, frozen = (AdaptiveRandomForest(n_models=5, seed=3) for _ in range(2))
    losses = np.zeros((2, 300))
    for day in range(300):
        rows = np.column_stack([np.full(12, day / 300.0), rng.normal(size=12)])
        won = bool(rng.random() < 0.5)
        asked = [naive.predict_row(row)[0] for row in rows]
        votes = [frozen.predict_with_votes(row) for row in rows]
        for k, p in enumerate((asked[0], votes[0][0][0])):
            losses[k, day] = -math.log(p if won else 1 - p)
        for row, (_, vote) in zip(rows, votes, strict=True):
            naive.learn_row(row, won)
            frozen.learn_row(row, won, votes=vote)
    assert losses[1].mean() < losses[0].mean() - 0.05
    assert losses[1, 100:].mean() < 0.75  # the coin costs 0.693


def test_votes_not_frozen_are_those_of_now() -> None:
    a, b = taught(500), taught(500)
    for row, won, _ in zip(*stream(11, 200), strict=True):
        _, votes = b.predict_with_votes(row)
        a.learn_row(row, bool(won))
        b.learn_row(row, bool(won), votes=votes)
        assert a.predict_row(row) == pytest.approx(b.predict_row(row), rel=1e-9)


def test_the_state_of_thirty_trees_after_noise_stays_under_two_megabytes() -> None:
    rng = np.random.default_rng(12)
    forest = AdaptiveRandomForest()
    for _ in range(6000):
        forest.learn_row(rng.normal(size=33), bool(rng.random() < 0.5), rng.normal(), 0.0)
    size = sum(v.nbytes for v in forest.state().values() if isinstance(v, np.ndarray))
    assert forest.n_nodes > 30 * 200  # as good as full
    assert size < 2_000_000


def test_phishing_is_learned_as_well_as_capymoas_forest_does() -> None:
    """CapyMOA 0.15's forest of 10 trees over 3 seeds: accuracy .905, log loss .245."""
    losses, hits = [], []
    for seed in (1, 2, 3):
        forest, loss, accuracy = AdaptiveRandomForest(10, seed=seed), metrics.LogLoss(), 0
        for x, y in Phishing():
            p = forest.predict_proba_one(x)
            loss.update(y, p)
            accuracy += (p[True] >= 0.5) == y
            forest.learn_one(x, y)
        losses.append(loss.get())
        hits.append(accuracy / 1250)
    assert np.mean(losses) < 0.235
    assert np.mean(hits) > 0.9
