"""The bad day: what goes wrong does, what it cost adds up, and the bench fails when it should."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest

from bench import bad_day as bench
from bench import bad_day_runs as runs
from bench import bad_days as days
from bench.results import BenchError
from bench.slow_webhook import SIDES, TRY_S, Webhook
from snapshots import state_digest
from streams import Close, Signal
from tests.bench.short_tapes import short_tape
from tests.engine.histories import QUICK

HEALTHY, TROUBLE, AFTER = 400, 300, 100
SIGNALS = HEALTHY + TROUBLE + AFTER + 100


@pytest.fixture(scope="module")
def events():
    return list(days.made(SIGNALS, seed=1))


@pytest.fixture(scope="module")
def healthy(events):
    return runs.Healthy(QUICK, events, days.cut(events, HEALTHY))


@pytest.fixture(scope="module")
def day(events, healthy):
    return bench.day_of(events[healthy.events :], TROUBLE, AFTER)


def spoiled(name, day):
    return bench.troubles("edge")[name](day, random.Random(1))


def closes(events):
    return {event.signal_id: event for event in events if isinstance(event, Close)}


def test_a_day_made_has_trades_that_overlap_and_a_feature_that_tells(events):
    signals = days.signals_of(events)
    assert len(signals) == SIGNALS
    assert len({(s.symbol, s.side) for s in signals}) == 8
    assert days.strongest(events) == "edge"
    open_now = most = 0
    for event in events:
        open_now += 1 if isinstance(event, Signal) else -1
        most = max(most, open_now)
    assert most > 10
    assert open_now == 0


def test_a_day_needs_enough_of_a_tape(events):
    with pytest.raises(BenchError, match="the tape has 900 signals; the day needs more"):
        days.cut(events, SIGNALS)


def test_in_the_wrong_regime_trades_of_the_trouble_bring_the_opposite(day):
    wrong = spoiled(bench.WRONG, day)
    turned = {signal.signal_id for signal in days.signals_of(day.trouble)}
    assert wrong.truth == {n: -v if n in turned else v for n, v in day.truth.items()}
    for part in ("trouble", "after"):
        for name, close in closes(getattr(wrong, part)).items():
            assert close.return_pct == wrong.truth[name]
            assert close.exit_reason == ("target" if close.return_pct > 0 else "stop")
    assert not wrong.misled


@pytest.mark.parametrize("how", bench.POISONS)
def test_a_poison_changes_one_feature_and_only_during_the_trouble(day, how):
    poisoned = spoiled(f"feature {how}", day)
    assert (poisoned.after, poisoned.truth) == (day.after, day.truth)
    assert closes(poisoned.trouble) == closes(day.trouble)
    was, now = (
        [dict(signal.features) for signal in days.signals_of(part.trouble)]
        for part in (day, poisoned)
    )
    before, values = ([features.pop("edge") for features in all_] for all_ in (was, now))
    assert now == was
    if how == "stuck":
        assert len(set(values)) == 1
    elif how == "scaled":
        assert values == [1e6 * value for value in before]
    else:
        assert values != before
        assert Counter(values) == Counter(before)


@pytest.mark.parametrize(("name", "sign"), [("closes turned", -1.0), ("closes absurd", None)])
def test_broken_closes_change_nothing_about_what_trades_bring(day, name, sign):
    broken = spoiled(name, day)
    assert (broken.after, broken.truth, broken.misled) == (day.after, day.truth, True)
    assert days.signals_of(broken.trouble) == days.signals_of(day.trouble)
    for signal_id, close in closes(broken.trouble).items():
        assert close.return_pct == (sign * day.truth[signal_id] if sign else days.WRONG_RETURN)


def test_stuck_closes_all_come_at_once_afterwards(day):
    stuck = spoiled(bench.STUCK, day)
    assert stuck.trouble == days.signals_of(day.trouble)
    held = len(closes(day.trouble))
    assert all(isinstance(event, Close) for event in stuck.after[:held])
    assert Counter(e.signal_id for e in stuck.trouble + stuck.after) == Counter(
        e.signal_id for e in day.trouble + day.after
    )


@pytest.fixture(scope="module")
def found(healthy, day):
    names = (bench.USUAL, bench.WRONG, "closes turned", bench.STUCK)
    return {name: runs.lived(name, healthy, spoiled(name, day)) for name in names}


def test_every_day_replays_to_the_same_decisions_and_state(healthy, day, found):
    assert [each.replays for each in found.values()] == [True] * 4
    assert found["closes turned"].runs["operator"].commands[0] == "rollback"
    # And it is seen when a single event isn't there.
    course = runs.Course(healthy, QUICK, day)
    course.run()
    assert state_digest(healthy.replayed(course.entries).state()) == state_digest(
        course.core.state()
    )
    assert not runs._same(course.core, healthy.replayed(course.entries[:-1]))


def test_stuck_closes_are_noticed_and_the_limit_of_open_trades_is_there_first(found):
    answers = found[bench.STUCK].runs["on"].answers
    assert [answer.what for answer in answers[:2]] == [runs.LIMIT, "late_labels"]
    assert all(answer.during and answer.closes == 0 for answer in answers[:2])
    # The window of the trigger.
    assert answers[1].signals >= 99
    assert found[bench.STUCK].runs["operator"].commands == ["arm"]


def test_equity_is_position_times_what_trades_really_bring(day, found):
    told = found["closes turned"].runs["on"]
    signals = days.signals_of(day.trouble)
    each = [told.positions[s.signal_id] * day.truth[s.signal_id] for s in signals]
    assert told.trouble_pct == pytest.approx(sum(each))
    assert told.lowest_pct == pytest.approx(min(0.0, *np.cumsum(each)))
    assert any(value < 0 for value in each) and any(value > 0 for value in each)


def test_a_perfect_halt_takes_nothing_and_an_engine_that_never_halts_is_never_held_back(found):
    for each in found.values():
        perfect, never = each.runs["perfect"], each.runs["never"]
        assert (perfect.trouble_pct, perfect.lowest_pct, perfect.halted) == (0.0, 0.0, TROUBLE)
        assert perfect.commands == ["halt", "arm"]
        assert never.states == [("ACTIVE", 0)]
        assert not perfect.refused
    assert found[bench.WRONG].runs["on"].reduced > 0
    assert found[bench.WRONG].affected > 0


def test_what_must_hold_is_missed_when_it_does_not(found):
    assert bench.faults({n: found[n] for n in (bench.USUAL, bench.STUCK)}) == []
    calm = found[bench.USUAL]
    unnoticed = runs.Found(bench.WRONG, calm.runs, 0, True)
    late = runs.Found(bench.STUCK, calm.runs, 0, False)
    broken = bench.faults({bench.USUAL: calm, bench.WRONG: unnoticed, bench.STUCK: late})
    assert broken == [
        "closes stuck: a replay comes to something else",
        "wrong regime: nobody noticed",
        "closes stuck: `late_labels` didn't fire",
    ]


def webhook(more=0.0, rounds=8):
    rng = np.random.default_rng(1)
    taken = {side: [rng.gamma(4.0, 0.5, 400) for _ in range(rounds)] for side in SIDES}
    taken["with"] = [found + more for found in taken["with"]]
    return Webhook(taken, 1, 1.0, 0.0, 1)


def test_a_delay_is_told_from_noise():
    assert not webhook().delays
    assert webhook(more=1.0).delays
    stalled = webhook(rounds=1)
    assert not stalled.delays
    stalled.rounds["with"][0][7] = 1e3 * TRY_S + 1.0
    assert stalled.delays


def ran(folder, *options):
    out = folder / "figures.json"
    done = subprocess.run(
        [sys.executable, Path(bench.__file__), *options, "--json", out],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, orjson.loads(out.read_bytes()) if out.exists() else None


def test_the_bench_runs_a_day_of_a_tape_and_a_webhook_that_never_answers(tmp_path):
    tape = short_tape(tmp_path, 700)
    done, figures = ran(
        tmp_path,
        *("--tape", tape, "--only", "closes stuck", "--healthy", "320"),
        *("--trouble", "150", "--after", "20", "--rounds", "1", "--seconds", "0.3"),
    )
    assert done.returncode == (1 if figures["broken"] else 0), done.stdout + done.stderr
    assert list(figures["days"]) == [bench.USUAL, bench.STUCK]
    assert all(each["replays"] for each in figures["days"].values())
    assert "late_labels" in figures["days"][bench.STUCK]["noticed_by"]
    hooked = figures["webhook"]
    assert hooked["requests"] > 0 and hooked["undelivered"] > 0 and hooked["fired"] > 0
    assert hooked["sent"] == 0
    # Tables stand in a terminal of 80 columns.
    table = [line for line in done.stdout.splitlines() if line[:1] in "┏┃│└"]
    assert max(map(len, table)) <= 80


def test_a_trouble_that_is_none_is_told_in_a_line(tmp_path):
    done, figures = ran(tmp_path, "--only", "rain", "--rounds", "0", "--healthy", "300")
    assert (done.returncode, figures) == (1, None)
    assert "there is no trouble 'rain'; there are: undisturbed, wrong regime" in done.stderr
