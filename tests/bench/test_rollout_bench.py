"""The rollout's bench: it tells equal arms from better ones, and fails when a bar is missed."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import pytest

from bench import rollout as bench
from streams import Outcome

SCRIPT = Path(bench.__file__)


@pytest.mark.parametrize("name", list(bench.SHAPES))
def test_made_returns_have_the_mean_and_spread_of_fx(name):
    returns, days, took = bench.made(bench.SHAPES[name])(np.random.default_rng(1), 60_000)
    assert returns.mean() == pytest.approx(bench.MEAN_PCT, abs=0.02)
    assert returns.std() == pytest.approx(bench.SPREAD_PCT, rel=0.1)
    assert took is None
    assert np.bincount(days).tolist() == [bench.A_DAY] * 5_000


def outcome(day, hour, value, taken):
    ts = datetime(2026, 1, day, hour, tzinfo=UTC)
    return Outcome(
        signal_id=f"{day}-{hour}", ts=ts, opened=ts, symbol="X", side="long", probability=0.5,
        action="take" if taken else "skip", expected_return_pct=0.0, risk=0.5, size_multiplier=1.0,
        won=value > 0, return_pct=value, executed=True, experts={}, update=0,
    )  # fmt: skip


def test_days_of_a_tape_stay_together_and_what_was_taken_is_no_better():
    # The n-th day has n + 1 closes, of which the last is taken; the first is left out.
    seen = [
        outcome(day, hour, float(day) + 7.0 * (hour == day), hour == day)
        for day in range(1, 20)
        for hour in range(day + 1)
    ]
    draw = bench.resampled([outcome(31, hour, 99.0, False) for hour in range(23)] + seen)
    returns, days, took = draw(np.random.default_rng(1), 60_000)
    assert len(returns) == len(days) == len(took) == 60_000
    assert returns.max() < 90.0
    for day in range(20):
        assert took[days == day].tolist() == [False] * ((days == day).sum() - 1) + [True]
    assert returns[took].mean() == pytest.approx(returns.mean(), abs=0.2)


def course(edge, mode="canary", picks="all", closes=3_000, seed=1):
    draw = bench.made(bench.normal)
    return bench.simulate(bench.World("normal", draw, mode, picks, edge), closes, seed)


@pytest.mark.parametrize(("mode", "picks"), [("canary", "all"), ("shadow", "signals")])
def test_a_large_edge_comes_to_live_and_nothing_comes_nowhere(mode, picks):
    found = course(1.0, mode, picks)
    assert found.first is not None
    # Four stages from shadow, three from canary, each of a hundred closes.
    assert found.first + 200 < found.live < 3_000
    assert course(0.0, mode, picks) == bench.Course()


def test_a_large_loss_is_demoted():
    found = course(-1.0)
    assert (found.first, found.live) == (None, None)
    assert found.demoted < 3_000


def test_closes_that_never_came_are_the_latest():
    assert bench.after([5, None, 1, 3, 4], 0.5) == 4.0
    assert bench.after([5, None, 1, 3, 4], 0.9) is None


def ran(folder, *options):
    out = folder / "figures.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--rollouts", "10", "--closes", "1500", *options, "--json", out],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr, orjson.loads(out.read_bytes())


def test_the_bench_says_how_often_it_erred_and_how_long_it_took(tmp_path):
    status, said, figures = ran(tmp_path, "--edge-closes", "1500")
    # Far too few closes for so small an edge.
    assert status == 1
    assert "equal arms" in said and "a true edge" in said
    assert all(row["met"] for row in figures["equal"])
    assert {row["wrong"] for row in figures["equal"]} <= {0.0}
    assert [row["met"] for row in figures["edge"]] == [False, False, None]
    assert figures["cost_us"] > 0.0
    assert 0.0 <= figures["single_interval"] <= 1.0


def test_bars_are_met_or_missed_by_what_is_seen():
    draw = bench.made(bench.normal)
    right, wrong = bench.Course(), bench.Course(demoted=7)
    equal = bench.World("normal", draw)
    assert bench.equal_figures(equal, [right] * 95 + [wrong] * 5)["met"] is True
    assert bench.equal_figures(equal, [right] * 94 + [wrong] * 6)["met"] is False
    better = bench.World("normal", draw, edge=0.1)
    promoted = bench.Course(first=10, live=20)
    assert bench.edge_figures(better, [promoted] * 80 + [right] * 20)["met"] is True
    assert bench.edge_figures(better, [promoted] * 79 + [right] * 21)["met"] is False
