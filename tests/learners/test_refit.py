import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.booster import Scorer
from learners.gate import Gate
from learners.refit import RefitJob, RefitParams, fit, split

FAST = RefitParams(rounds=10, min_data_in_leaf=20)


def job(closes: int = 600, signal: float = 2.0, hold: float = 3.0, seed: int = 0) -> RefitJob:
    """A signal a second, each trade held for `hold` of them; the first column says how it ends."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(closes, 6)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = math.nan
    won = signal * np.nan_to_num(rows[:, 0]) + rng.logistic(size=closes) > 0.0
    opened = np.arange(float(closes))
    return RefitJob("r", rows, won, opened, opened + hold, holdout=100, params=FAST)


def test_a_challenger_that_learned_something_is_accepted_with_the_reason() -> None:
    refit = fit(job())
    assert refit.accepted
    assert refit.text is not None
    assert refit.digest == sha256(refit.text.encode()).hexdigest()
    assert refit.challenger_log_loss is not None
    assert refit.base_rate_log_loss is not None
    assert refit.challenger_log_loss < refit.base_rate_log_loss - 0.05
    assert refit.champion_log_loss is None
    assert refit.reason == (
        f"The challenger's log loss {refit.challenger_log_loss:.4f} on {refit.held_out} held-out "
        f"closes is no worse than the base rate's {refit.base_rate_log_loss:.4f} "
        f"{refit.reason[refit.reason.index('(') :]}"
    )


def up_to(sample: RefitJob, closes: int) -> RefitJob:
    """The job of some closes before."""
    arrays = ("rows", "won", "opened", "closed")
    return replace(sample, **{name: getattr(sample, name)[:closes] for name in arrays})


def test_a_challenger_worse_than_its_champion_allows_is_refused_and_kept() -> None:
    champion = fit(up_to(job(2000), 1900)).text
    good = fit(replace(job(2000), champion=champion, unseen=100, gate=Gate(tolerance=0.02)))
    assert good.accepted
    assert good.champion_log_loss == pytest.approx(good.challenger_log_loss, abs=0.02)
    poor = replace(FAST, rounds=1, max_rounds=1)
    worse = replace(job(2000), champion=champion, unseen=100, params=poor)
    refused = fit(worse)
    assert not refused.accepted
    assert refused.text is not None
    assert "is worse than the champion's" in refused.reason
    assert fit(replace(worse, gate=Gate(tolerance=1.0, guarded=()))).accepted


def test_closes_that_the_champion_was_fitted_on_do_not_speak_for_it() -> None:
    sample = job(2000)
    champion = fit(up_to(sample, 1960)).text
    won = sample.won.copy()
    won[-40:] = ~won[-40:]  # all that came since proves the champion wrong
    turned = replace(sample, won=won, champion=champion)
    honest, flattered = fit(replace(turned, unseen=40)), fit(replace(turned, unseen=None))
    assert honest.champion_log_loss > flattered.champion_log_loss
    assert "on 40 held-out closes" in honest.reason
    assert "the base rate's" in fit(replace(turned, unseen=0)).reason


def test_what_is_installed_is_fitted_on_the_newest_closes_too() -> None:
    sample = job()
    won = sample.won.copy()
    won[-50:] = ~won[-50:]
    assert fit(replace(sample, won=won)).text != fit(sample).text
    assert fit(sample).held_out >= 90


def rounds(text: str | None) -> int:
    return (text or "").count("Tree=")


def test_it_has_more_rounds_where_there_is_more_to_learn() -> None:
    grows = replace(FAST, max_rounds=60, patience=5)
    noise = [fit(replace(job(signal=0.0, seed=s), params=grows)) for s in range(5)]
    plenty = fit(replace(job(3000, signal=6.0), params=grows))
    assert sorted(rounds(refit.text) for refit in noise)[2] == 10
    assert rounds(plenty.text) > 20


def test_returns_are_fitted_beside_wins_and_cut() -> None:
    sample = job(2000)
    sized = np.nan_to_num(sample.rows[:, 1].astype(np.float64))
    wild = sized.copy()
    wild[5] = 1e9
    refit = fit(replace(sample, sized=sized))
    score = Scorer(refit.returns_text or "")
    said = np.array([score(row) for row in sample.rows])
    assert np.corrcoef(said, sized)[0, 1] > 0.7
    assert abs(Scorer(fit(replace(sample, sized=wild)).returns_text or "")(sample.rows[5])) < 4.0
    assert fit(sample).returns_text is None


def test_a_first_challenger_that_is_clearly_worse_than_the_base_rate_is_refused() -> None:
    turned = job(1000)
    won = turned.won.copy()
    won[-200:] = ~won[-200:]
    refit = fit(replace(turned, won=won, holdout=200))
    assert not refit.accepted
    assert "is worse than the base rate's" in refit.reason


def test_a_champion_that_cannot_be_read_gives_way() -> None:
    refit = fit(replace(job(), champion="nonsense"))
    assert refit.accepted
    assert refit.champion_log_loss == pytest.approx(-math.log(0.001))


@settings(max_examples=200)
@given(
    st.integers(5, 300),
    st.integers(1, 100),
    st.integers(0, 2**32),
    st.sampled_from([1.0, 20.0, 1000.0]),
)
def test_nothing_that_was_open_at_the_first_held_out_signal_trains(
    closes: int, holdout: int, seed: int, mean_hold: float
) -> None:
    rng = np.random.default_rng(seed)
    opened = rng.uniform(0, closes, closes)
    closed = opened + rng.exponential(mean_hold, closes)
    order = np.argsort(closed)
    sample = RefitJob(
        "r",
        np.zeros((closes, 1), np.float32),
        np.zeros(closes, bool),
        opened[order],
        closed[order],
        holdout=holdout,
    )
    train, held = split(sample)
    at_most = min(holdout, closes // 5)
    assert at_most - at_most // 20 <= len(held) <= at_most
    assert set(held) <= set(range(closes - at_most, closes))
    assert len(train) == 0 or sample.closed[train].max() < sample.opened[held].min()
    purged = sorted(set(range(closes - at_most)) - set(train))
    assert (sample.closed[purged] >= sample.opened[held].min()).all()


def test_one_very_long_trade_does_not_purge_the_window() -> None:
    sample = job()
    opened = sample.opened.copy()
    opened[-1] = 0.0
    train, held = split(replace(sample, opened=opened))
    assert len(train) > 480
    assert 599 not in held


def test_labels_of_purged_rows_leave_the_judgement_untouched() -> None:
    sample = job(hold=50.0)
    train, held = split(sample)
    won = sample.won.copy()
    purged = np.setdiff1d(np.arange(600), np.concatenate([train, held]))
    assert len(purged) >= 50
    won[purged] = ~won[purged]
    judged = fit(replace(sample, won=won)).challenger_log_loss
    assert judged == fit(sample).challenger_log_loss


@pytest.mark.parametrize("closes", [0, 1, 4, 5, 30, 50])
def test_a_window_that_is_too_small_gives_no_challenger_and_no_exception(closes: int) -> None:
    refit = fit(job(closes))
    assert not refit.accepted
    assert refit.text is None
    assert "at least 40 are needed" in refit.reason


@pytest.mark.parametrize("won", [True, False])
def test_a_window_of_one_class_gives_no_challenger_and_no_exception(won: bool) -> None:
    refit = fit(replace(job(), won=np.full(600, won)))
    assert not refit.accepted
    assert ("is a win." if won else "is a loss.") in refit.reason


def test_rows_of_nothing_but_missing_values_are_no_exception() -> None:
    sample = job()
    refit = fit(replace(sample, rows=np.full_like(sample.rows, math.nan)))
    assert refit.text is not None


def test_a_job_gives_the_same_refit_in_every_process() -> None:
    here = Path(__file__).parents[2]
    program = (
        "import pickle, sys; from learners.refit import fit;"
        "sys.stdout.buffer.write(pickle.dumps(fit(pickle.load(sys.stdin.buffer))))"
    )
    sample = job()
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(here), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"},
        input=pickle.dumps(sample),
        capture_output=True,
        check=True,
    )
    assert pickle.loads(other.stdout) == fit(sample)


def test_another_seed_gives_another_challenger() -> None:
    assert fit(job()).digest != fit(replace(job(), seed=2)).digest
