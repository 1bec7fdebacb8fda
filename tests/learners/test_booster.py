import gc
import math

import lightgbm
import numpy as np
import pytest

from learners.booster import Booster, ModelTextError, Scorer


@pytest.fixture(scope="module")
def text() -> str:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 5)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = math.nan
    won = np.nan_to_num(rows[:, 0]) * np.nan_to_num(rows[:, 4], nan=-0.5) > 0
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return str(lightgbm.train(params, lightgbm.Dataset(rows, won), 20).model_to_string())


def test_scores_equal_lightgbms_own_to_the_last_bit(text: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1000, 5)) * 10.0 ** rng.integers(-20, 19, (1000, 5))
    rows[rng.random(rows.shape) < 0.2] = math.nan
    rows[rng.random(rows.shape) < 0.1] = 0.0
    score = Scorer(text)
    assert score.columns == 5
    expected = lightgbm.Booster(model_str=text).predict(rows.astype(np.float32), num_threads=1)
    assert [score(row) for row in rows] == expected.tolist()


def test_shorter_rows_are_padded_and_longer_ones_cut(text: str) -> None:
    score = Scorer(text)
    score(np.full(5, 9.0))
    full = np.array([0.5, -1.0, math.nan, math.nan, math.nan])
    assert score(full[:2]) == score(full)
    assert score(np.array([*full, 7.0])) == score(full)


def test_the_champion_abstains_until_it_is_installed(text: str) -> None:
    booster = Booster()
    row = np.zeros(5)
    assert math.isnan(booster.predict_proba_row(row))
    assert booster.predict_proba_one({0: 1.0}) == {}
    booster.learn_row(row, True)
    booster.install(text, "refit-500")
    assert booster.predict_proba_row(row) == Scorer(text)(row)
    assert (booster.refit, booster.text) == ("refit-500", text)


def test_in_rivers_form_features_are_named_by_their_column(text: str) -> None:
    booster = Booster()
    booster.install(text, "refit-500")
    row = np.array([0.5, math.nan, -2.0, math.nan, math.nan])
    p = booster.predict_proba_row(row)
    assert booster.predict_proba_one({0: 0.5, 2: -2.0, "rsi": 3.0}) == {False: 1.0 - p, True: p}


def test_a_restored_champion_gives_the_same_scores(text: str) -> None:
    booster = Booster()
    assert booster.digest is None
    booster.install(text, "refit-500")
    restored = Booster()
    restored.restore(booster.state())
    assert restored.state() == booster.state()
    assert restored.digest == booster.digest
    row = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert restored.predict_proba_row(row) == booster.predict_proba_row(row)
    restored.restore(Booster().state())
    assert math.isnan(restored.predict_proba_row(row))


@pytest.mark.parametrize("broken", ["", "nonsense", "tree\nversion=v4\n"])
def test_text_that_is_no_model_is_refused_and_the_champion_stays(text: str, broken: str) -> None:
    booster = Booster()
    booster.install(text, "refit-500")
    with pytest.raises(ModelTextError, match="LightGBM"):
        booster.install(broken, "refit-1000")
    assert (booster.refit, booster.text) == ("refit-500", text)


def test_scorers_come_and_go_without_touching_each_other(text: str) -> None:
    row = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    kept = Scorer(text)
    expected = kept(row)
    for _ in range(50):
        assert Scorer(text)(row) == expected
    gc.collect()
    assert kept(row) == expected
