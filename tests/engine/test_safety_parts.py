"""The guard's small parts: cool-downs, what is done in the end, times of day, windows, the gate."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from drift.shares import ACCURACY, BEHIND, MISCALIBRATION, Figure, ShareMonitors
from engine.core_config import RefitConfig
from engine.policy import Verdict
from engine.safety.answer import answer, limited
from engine.safety.daily import DailySummary
from engine.safety.equity import Equity
from engine.safety.settings import BotConfig, SafetyConfig, TriggersConfig
from engine.safety.switch import KillSwitch
from engine.safety.timetable import Timetable
from engine.safety.triggers import Trade
from learners import Order
from learners.gate import Gate, metrics
from tests.engine.histories import at

TAKEN = Verdict("take", 0.8, 0.08, ("kelly_size",), 1.0)


def switch(**triggers: dict[str, object]) -> KillSwitch:
    return KillSwitch(SafetyConfig(triggers=TriggersConfig.model_validate(triggers)))


def lost(minutes: float, won: bool = False) -> Trade:
    return Trade(at(minutes), 60.0, 0.5, won, True, True, 0.0, 1.0)


# The switch


def test_what_cools_down_is_over_by_itself_and_firing_again_begins_it_anew():
    one = switch(consecutive_losses={"cool_down_minutes": 60.0})
    for minute in (0, 1, 2):
        one.closed(lost(minute), at(minute))
    assert one.state_now == "REDUCING"
    assert one.closed(lost(30), at(30)) == []  # a fourth loss: the hour begins anew
    assert one.tick(at(62)) == []
    assert one.state_now == "REDUCING"
    (over,) = one.tick(at(90))
    assert (over.state, over.severity, one.state_now) == ("resolved", "warning", "ACTIVE")
    one.closed(lost(91), at(91))
    assert one.state_now == "ACTIVE"  # the count began anew


def test_without_a_cool_down_only_a_person_lifts_it():
    one = switch(consecutive_losses={"cool_down_minutes": None, "target": "HALTED"})
    for minute in (0, 1, 2):
        one.closed(lost(minute), at(minute))
    assert one.tick(at(10**6)) == []
    assert one.state_now == "HALTED"
    assert one.arm() == ["consecutive_losses"]
    assert one.state_now == "ACTIVE"
    assert one.arm() is None


def test_the_most_restrained_of_all_that_fires_counts():
    one = switch()
    for minute in (0, 1, 2):
        one.closed(lost(minute), at(minute))
    assert one.halt(at(3))
    assert not one.halt(at(4))
    assert one.state_now == "HALTED"
    assert one.arm() == ["consecutive_losses", "operator"]


def test_a_warning_is_over_when_its_figure_is_and_leaves_the_engine_as_it_is():
    one = switch()
    (fired,) = one.measured("snapshot_age", 61.0, at(0))
    assert (fired.state, fired.severity, one.state_now) == ("firing", "warning", "ACTIVE")
    assert one.arm() is None
    (over,) = one.measured("snapshot_age", 1.0, at(1))
    assert over.state == "resolved"


def test_a_trigger_that_is_off_never_fires():
    one = switch(consecutive_losses={"enabled": False}, latency={"enabled": False})
    for minute in range(10):
        assert one.closed(lost(minute), at(minute)) == []
    with pytest.raises(LookupError, match="nothing here looks at 'latency'; known: snapshot_age"):
        one.measured("latency", 1e9, at(0))


def test_what_a_triggers_table_leaves_out_is_as_by_default():
    config = TriggersConfig.model_validate({"drawdown": {"threshold": 5.0}})
    assert config.drawdown.threshold == 5.0
    assert (
        config.drawdown.model_dump() | {"threshold": 10.0} == TriggersConfig().drawdown.model_dump()
    )
    with pytest.raises(ValidationError, match="no_such"):
        TriggersConfig.model_validate({"no_such": {"threshold": 1.0}})


# What is done in the end


@given(
    st.floats(0.001, 1.0),
    st.one_of(st.none(), st.floats(0.0001, 0.5)),
    st.floats(0.01, 1.0),
    st.one_of(st.none(), st.floats(0.1, 100.0)),
)
def test_no_size_is_ever_above_a_bots_limits(size, position, max_size, max_position_pct):
    bot = BotConfig(max_size=max_size, max_position_pct=max_position_pct)
    done = limited(Verdict("take", size, position, ("kelly_size",), 1.0), bot, 0)
    assert done.size_multiplier <= min(size, max_size)
    if position is not None and max_position_pct is not None:
        assert done.kelly_fraction <= max_position_pct / 100.0 * (1 + 1e-12)
    assert (done.reasons[-1] == "bot_limit") == (done.size_multiplier < size)


@pytest.mark.parametrize(
    ("arm", "mode", "share", "state", "action", "size", "reasons", "propensity"),
    [
        ("model", "live", 1.0, "ACTIVE", "take", 0.8, ("kelly_size",), 1.0),
        ("model", "live", 1.0, "REDUCING", "reduce_size", 0.4, ("kelly_size", "reducing"), 1.0),
        ("model", "live", 1.0, "HALTED", "skip", 0.0, ("halted",), 0.0),
        ("baseline", "shadow", 0.0, "ACTIVE", "skip", 0.0, ("shadow",), 0.0),
        ("baseline", "canary", 0.25, "ACTIVE", "skip", 0.0, ("baseline_arm",), 0.25),
        ("model", "canary", 0.25, "ACTIVE", "take", 0.8, ("kelly_size",), 0.25),
        ("baseline", "canary", 0.25, "HALTED", "skip", 0.0, ("halted",), 0.0),
    ],
)
def test_the_switch_has_the_last_word_then_the_arm_then_the_model(
    arm, mode, share, state, action, size, reasons, propensity
):
    found = answer(TAKEN, arm, mode, share, state, "skip", "take", None, 0, SafetyConfig())
    assert (found.done.action, found.done.size_multiplier, found.done.reasons) == (
        action, size, reasons,
    )  # fmt: skip
    assert found.done.propensity == propensity
    assert found.arm == (None if state == "HALTED" else arm)
    assert found.advised.action != "skip"


# Times of day


def test_refits_are_due_daily_and_weekly_in_full_once_however_many_were_missed():
    table = Timetable("02:00", "Sunday 03:00")
    friday = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert table.due(friday) == []
    assert table.due(friday + timedelta(hours=13, minutes=59)) == []
    assert table.due(friday + timedelta(hours=14)) == [Order("daily")]
    assert table.due(friday + timedelta(hours=14)) == []
    assert table.due(datetime(2026, 1, 4, 3, tzinfo=UTC)) == [
        Order("daily"), Order("weekly", full=True),
    ]  # fmt: skip
    assert table.due(datetime(2026, 3, 1, tzinfo=UTC)) == [
        Order("daily"), Order("weekly", full=True),
    ]  # fmt: skip


@given(
    st.lists(st.integers(0, 60 * 24 * 30), min_size=1, max_size=60).map(sorted),
    st.integers(0, 60),
)
def test_a_restored_timetable_goes_on_the_same_and_each_is_due_once_a_day(minutes, cut):
    straight, stopped, again = (Timetable("02:00", "Monday 00:00") for _ in range(3))
    whole = [straight.due(at(m)) for m in minutes]
    first = [stopped.due(at(m)) for m in minutes[:cut]]
    again.restore(stopped.state())
    assert first + [again.due(at(m)) for m in minutes[cut:]] == whole
    daily = [m for m, due in zip(minutes, whole, strict=True) if Order("daily") in due]
    two_hours = timedelta(hours=2)
    days = [(at(m) - two_hours).date() for m in daily]
    assert all(a < b for a, b in pairwise(days))


@pytest.mark.parametrize(
    ("name", "value"),
    [("daily_at", "25:00"), ("weekly_at", "Someday 03:00"), ("weekly_at", "03:00")],
)
def test_a_time_that_is_none_is_refused_with_how_to_write_it(name, value):
    with pytest.raises(ValidationError, match="write it as"):
        RefitConfig(**{name: value})


# Windows


@given(st.lists(st.floats(-5, 5), max_size=60), st.integers(1, 20))
def test_the_drawdown_is_that_of_the_window(gains, window):
    equity = Equity(window)
    curve = [0.0]
    for gain in gains:
        equity.add(gain)
        curve.append(curve[-1] + gain)
        expected = max(curve[-window - 1 :]) - curve[-1]
        assert equity.drawdown == pytest.approx(expected, abs=1e-9)
    again = Equity(window)
    again.restore(**equity.state())
    again.add(-1.0)
    equity.add(-1.0)
    assert again.drawdown == equity.drawdown


@settings(deadline=None)  # the kernel may be compiled meanwhile
@given(
    st.lists(st.tuples(st.floats(0.01, 0.99), *[st.booleans()] * 3), max_size=60),
    st.integers(1, 20),
    st.integers(0, 60),
)
def test_shares_are_those_of_their_windows_and_go_on_the_same_when_restored(closes, window, cut):
    figures = [Figure(kind, window + kind, 0.5) for kind in (ACCURACY, BEHIND, MISCALIBRATION)]
    straight, stopped, again = (ShareMonitors(figures) for _ in range(3))
    whole = [straight.update(*close) for close in closes]
    first = [stopped.update(*close) for close in closes[:cut]]
    again.restore(stopped.state())
    assert first + [again.update(*close) for close in closes[cut:]] == whole
    newest = closes[-window:]
    assert straight.sums(0)[0] == sum((p > 0.5) == won for p, won, _, _ in newest)
    newest = closes[-window - 1 :]
    assert straight.sums(1) == [
        sum(taken for *_, taken, _ in newest), sum(taken and won for _, won, taken, _ in newest),
        sum(echoed for *_, echoed in newest), sum(echoed and won for _, won, _, echoed in newest),
    ]  # fmt: skip
    newest = closes[-window - 2 :]
    assert straight.sums(2)[0] == pytest.approx(sum(p for p, *_ in newest))


# The gate and the day


def test_the_gate_asks_each_guarded_metric_and_floor():
    champion = {"log_loss": 0.60, "brier": 0.20, "auc": 0.70, "accuracy": 0.60}
    gate = Gate(guard=0.1, floors={"f1": 0.65}, min_closes=20)
    fine = champion | {"f1": 0.65}
    assert gate.refusal(fine, champion, 20) is None
    assert "too few" in gate.refusal(fine, champion, 19)
    assert "below the floor of 0.65" in gate.refusal(fine | {"f1": 0.64}, champion, 20)
    for name, good, bad in (
        ("log_loss", 0.6599, 0.661), ("brier", 0.2199, 0.221), ("auc", 0.631, 0.629),
        ("accuracy", 0.541, 0.539),
    ):  # fmt: skip
        assert gate.refusal(fine | {name: good}, champion, 20) is None
        assert f"its {name}" in gate.refusal(fine | {name: bad}, champion, 20)
    assert gate.refusal(fine | {"auc": 0.1}, {}, 20) is None  # no champion, nothing to hold it to


def test_metrics_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    import numpy as np

    rng = np.random.default_rng(1)
    p = np.clip(rng.random(200).round(2), 0.01, 0.99)
    won = rng.random(200) < p
    found = metrics(p, won)
    assert found["auc"] == pytest.approx(sklearn.roc_auc_score(won, p))
    assert found["f1"] == pytest.approx(sklearn.f1_score(won, p >= 0.5))
    assert found["brier"] == pytest.approx(sklearn.brier_score_loss(won, p))
    assert found["log_loss"] == pytest.approx(sklearn.log_loss(won, p))
    assert "auc" not in metrics(p, np.ones(200, np.bool_))


def test_the_daily_summary_says_what_came_of_the_day():
    day = DailySummary()
    assert day.turn(at(0), "ACTIVE") is None
    day.decided(True)
    day.decided(False)
    day.closed(Trade(at(1), 60.0, 0.5, True, True, True, 0.25, 1.0))
    assert day.turn(at(60), "ACTIVE") is None
    told = day.turn(at(24 * 60), "ACTIVE")
    assert told is not None
    assert told.always
    assert told.message == (
        "2026-01-05: 2 signals, 1 taken; 1 closes, 100.0% won; 1 of 1 taken trades won,"
        " +0.250 % of equity; log loss 0.6931; ACTIVE"
    )
    assert day.turn(at(0), "ACTIVE") is None  # event time went back
    assert day.turn(at(3 * 24 * 60), "ACTIVE") is None  # nothing happened


def test_a_clock_years_ahead_ends_neither_summaries_nor_refits_once_it_is_found_out():
    day, table = DailySummary(), Timetable("02:00", None)
    years = 3 * 365 * 24 * 60
    for minutes in (0, years, 60):
        day.turn(at(minutes), "ACTIVE")
        table.due(at(minutes))
    day.decided(True)
    told = day.turn(at(24 * 60), "ACTIVE")
    assert told is not None
    assert told.subject == "2026-01-05"
    assert table.due(at(24 * 60)) == [Order("daily")]
