"""The bars of quality: each is met by what is good and missed by what isn't."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from bench import quality_bars as bars
from bench import quality_tapes as tapes
from engine.evaluation.prequential import Outcomes
from streams import Close, Signal, Tape
from tests.bench.short_tapes import short_tape

BENCH = Path(__file__).parents[2] / "bench" / "quality.py"
CLOSES = 4_000


def outcomes(p, won, experts=None, taken=None, returns=None, interval=None):
    """Outcomes of signals that were each closed before the next came."""
    n = len(p)
    nothing, text = np.full(n, np.nan), np.full(n, "")
    columns = {each.name: nothing for each in dataclasses.fields(Outcomes)[:-1]}
    columns |= dict.fromkeys(("symbol", "side", "strategy", "session", "regime", "baseline"), text)
    columns |= {
        "signal_id": np.arange(n).astype(np.str_),
        "decided_at": 2 * np.arange(n),
        "learned_at": 2 * np.arange(n) + 1,
        "probability": p,
        "won": won,
        "return_pct": np.where(won, 1.0, -1.0) if returns is None else returns,
        "action": np.where(p > 0.5 if taken is None else taken, "take", "skip"),
    }
    if interval is not None:
        columns |= {"return_low": interval[0], "return_high": interval[1]}
    return Outcomes(**columns, experts=experts or {})


@pytest.fixture
def known():
    """True probabilities, and labels drawn from them."""
    rng = np.random.default_rng(1)
    p = rng.uniform(0.2, 0.8, CLOSES)
    return p, rng.random(CLOSES) < p


def met(found):
    return [each.met for each in found]


def test_who_knows_the_truth_meets_the_bars_of_log_loss_and_calibration(known):
    p, won = known
    rows = outcomes(p, won, {"half": np.full(CLOSES, 0.5)})
    assert met(bars.loss_bars("t", rows, below_base_rate=True)) == [True, True, True]
    assert bars.calibration_bar("t", rows, 1).met


def test_who_is_behind_an_expert_or_too_sure_misses_them(known):
    p, won = known
    sure = np.clip(0.5 + 3.0 * (p - 0.5), 0.01, 0.99)
    rows = outcomes(sure, won, {"truth": p})
    assert met(bars.loss_bars("t", rows, below_base_rate=True)) == [False, False, False]
    assert bars.calibration_bar("t", rows, 1).met is False


def test_an_expert_is_judged_where_it_spoke_and_the_mixture_on_the_same(known):
    p, won = known
    late = np.where(np.arange(CLOSES) < CLOSES // 4, np.nan, p)
    ours = np.where(np.isnan(late), 0.5, p)
    (expert, *_) = bars.loss_bars("t", outcomes(ours, won, {"late": late}), False)
    assert expert.figures["behind"] == {"late": pytest.approx(0.0)}
    assert expert.met


def test_an_expert_that_hardly_spoke_is_no_measure(known):
    p, won = known
    lucky = np.where(np.arange(CLOSES) > CLOSES - 50, np.where(won, 0.99, 0.01), np.nan)
    rows = outcomes(p, won, {"half": np.full(CLOSES, 0.5), "lucky": lucky})
    assert bars.loss_bars("t", rows, False)[0].figures["behind"].keys() == {"half"}


@pytest.mark.parametrize(("width", "is_met"), [(1.6449, True), (1.0, False), (3.0, False)])
def test_intervals_must_neither_miss_too_often_nor_too_rarely(known, width, is_met):
    p, won = known
    returns = np.random.default_rng(2).normal(size=CLOSES)
    interval = (np.full(CLOSES, -width), np.full(CLOSES, width))
    found = bars.interval_bars("t", outcomes(p, won, returns=returns, interval=interval))
    assert [each.met for each in found] == [is_met, None]


def test_taking_the_better_trades_meets_the_bar_and_taking_any_does_not(known):
    p, won = known
    better = bars.trading_bars("t", outcomes(p, won, taken=p > 0.6), True, 1)
    assert met(better) == [True, True]
    coin = np.random.default_rng(3).random(CLOSES) < 0.7
    assert met(bars.trading_bars("t", outcomes(p, won, taken=coin), True, 1)) == [False, False]
    assert met(bars.trading_bars("t", outcomes(p, won, taken=coin), False, 1)) == [None, None]


def test_where_there_is_nothing_to_know_the_base_rate_passes_and_a_claim_fails():
    rng = np.random.default_rng(4)
    won = rng.random(CLOSES) < 0.5
    wins = np.concatenate([[0], np.cumsum(won)[:-1]])
    base = (wins + 1) / (np.arange(CLOSES) + 2)
    nothing = outcomes(base, won, taken=np.zeros(CLOSES, np.bool_))
    assert met(bars.nothing_bars("noise", [nothing] * 3, 1)) == [True, True]
    peeking = outcomes(base, won, taken=won)
    assert met(bars.nothing_bars("noise", [nothing, nothing, peeking], 1)) == [True, False]
    guessing = outcomes(np.where(rng.random(CLOSES) < 0.5, 0.4, 0.6), won)
    assert met(bars.nothing_bars("noise", [guessing], 1))[0] is False


def test_recovery_counts_from_the_drift_until_a_whole_window_is_back():
    losses = np.full(10_000, 0.3)
    losses[5_000:5_400] = 0.6
    # Of the window's 100, four may still be twice as bad: five are 5 % but for rounding.
    assert bars.closes_to_recover(losses, 5_000) == 400 + bars.WINDOW - 4
    slow = np.where(np.arange(10_000) >= 5_000, 0.6, 0.3)
    assert bars.closes_to_recover(slow, 5_000) is None
    assert met(bars.recovery_bars("sea", [5_000], losses, slow)) == [True]
    assert met(bars.recovery_bars("sea", [5_000], slow, losses)) == [False]
    assert met(bars.recovery_bars("sea", [5_000], losses, losses)) == [False]


def test_a_permuted_tape_has_the_same_events_and_outcomes_but_not_together(tmp_path):
    tape = short_tape(tmp_path, 300)
    before = [line.entry().event for line in Tape(tape)]
    after = [line.entry().event for line in Tape(tapes.permuted(tape, None, 1, tmp_path))]
    frame = [(e.signal_id, e.ts) for e in before]
    assert [(e.signal_id, e.ts) for e in after] == frame
    assert [e for e in after if isinstance(e, Signal)] == [
        e for e in before if isinstance(e, Signal)
    ]
    one, other = ([e.return_pct for e in es if isinstance(e, Close)] for es in (before, after))
    assert one != other
    assert sorted(one) == sorted(other)
    assert (
        tapes.permuted(tape, None, 1, tmp_path).read_bytes()
        != tapes.permuted(tape, None, 2, tmp_path).read_bytes()
    )


def test_sea_drifts_between_its_four_concepts_and_its_truth_is_true(tmp_path):
    path, truth = tapes.sea(4_000, 1, tmp_path)
    events = [line.entry().event for line in Tape(path)]
    signals = [e for e in events if isinstance(e, Signal)]
    won = np.array([e.return_pct > 0 for e in events if isinstance(e, Close)])
    assert set(truth) == {0.1, 0.9}
    true = np.array(truth) > 0.5
    assert (won == true).mean() == pytest.approx(0.9, abs=0.02)
    sums = np.array([e.features["attrib1"] + e.features["attrib2"] for e in signals])
    for concept, threshold in enumerate(tapes.SEA_THRESHOLDS):
        part = slice(1_000 * concept, 1_000 * (concept + 1))
        np.testing.assert_array_equal(true[part], sums[part] > threshold)


def test_a_tape_is_found_by_its_name_near_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(tapes, "_ROOT", tmp_path / "repository")
    folder = tmp_path / "data" / "tapes"
    folder.mkdir(parents=True)
    (folder / "fx.jsonl.gz").touch()
    assert tapes.found("fx") == {"fx": folder / "fx.jsonl.gz"}
    with pytest.raises(tapes.BenchError, match="weather"):
        tapes.found("fx,weather")


def test_the_bench_exits_with_1_exactly_when_a_bar_is_missed(tmp_path):
    tape = short_tape(tmp_path, 700)
    out = tmp_path / "out.json"
    command = [sys.executable, BENCH, "--tapes", tape, "--no-peers", "--limit", "1400"]
    done = subprocess.run(
        [*command, "--json", out], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    figures = orjson.loads(out.read_bytes())
    missed = [bar for bar in figures["bars"] if bar["met"] is False]
    assert done.returncode == bool(missed), done.stderr
    assert {"noise", tape.name.partition(".")[0]} <= {bar["tape"] for bar in figures["bars"]}
    assert "quality" in done.stdout
