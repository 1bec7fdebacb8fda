"""The example bot: what it publishes is valid, in order, and knows nothing of the future."""

import importlib.util
import os
import signal
import threading
from collections import Counter
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams import Client, Close, Keys, Signal, connect, decode, encode

PATH = Path(__file__).parents[2] / "examples" / "bot.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_bot", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bot = _load()
HOURLY = bot.load("hourly")
DAILY = bot.load("daily")
ALL_HOURLY = bot.events(HOURLY)


def _first(bars, count):
    """The bars as they were known when `count` of them had ended."""
    columns = (getattr(bars, field.name)[:count] for field in fields(bars)[1:])
    return bot.Bars(bars.symbol, *columns)


@pytest.fixture(scope="module")
def all_events() -> list[Signal | Close]:
    return bot.events(DAILY, HOURLY)


def test_there_are_enough_signals_for_a_demo_of_both_sides_and_every_rule(all_events):
    signals = [event for event in all_events if isinstance(event, Signal)]
    kinds = Counter((s.symbol, s.strategy, s.side) for s in signals)
    assert len(signals) > 10_000
    assert len(kinds) == 16
    assert min(kinds.values()) > 100


def test_every_event_survives_the_wire(all_events):
    assert [decode(encode(event)) for event in all_events] == all_events


def test_events_come_in_event_time_order_and_closes_before_signals_of_the_same_time(all_events):
    order = [(event.ts, isinstance(event, Signal)) for event in all_events]
    assert sorted(order) == order


def test_every_signal_has_its_own_name(all_events):
    names = [event.signal_id for event in all_events if isinstance(event, Signal)]
    assert len(set(names)) == len(names)


def test_every_close_comes_once_and_later_than_its_signal(all_events):
    opened = {}
    for event in all_events:
        if isinstance(event, Signal):
            opened[event.signal_id] = event.ts
        else:
            assert event.ts > opened.pop(event.signal_id)
    # Only the trades that the bars' end cuts off stay open.
    assert len(opened) < 2 * bot.MAX_BARS


def test_features_hold_numbers_a_bool_and_a_category(all_events):
    signals = [event for event in all_events if isinstance(event, Signal)]
    assert {tuple(s.features) for s in signals} == {tuple(signals[0].features)}
    assert {type(s.features["uptrend"]) for s in signals} == {bool}
    sessions = {s.features["session"] for s in signals}
    assert sessions == {"day", "morning", "midday", "afternoon"}


def test_new_york_times_become_utc_in_winter_and_in_summer():
    at = dict(zip((e.isoformat() for e in DAILY.ends), DAILY.starts, strict=True))
    assert at["2024-01-16T21:00:00+00:00"].isoformat() == "2024-01-16T14:30:00+00:00"
    assert at["2024-07-16T20:00:00+00:00"].isoformat() == "2024-07-16T13:30:00+00:00"


def test_an_hourly_bar_never_ends_after_the_closing_bell():
    lengths = {end - start for start, end in zip(HOURLY.starts, HOURLY.ends, strict=True)}
    assert lengths == {timedelta(hours=1), timedelta(minutes=30)}
    assert all(a <= b for a, b in zip(HOURLY.ends[:-1], HOURLY.starts[1:], strict=True))


@settings(max_examples=20, deadline=None)
@example(bot.WARM_UP + 1)
@example(1_500)
@example(3_400)
@given(st.integers(min_value=bot.WARM_UP, max_value=len(HOURLY.ends)))
def test_what_comes_later_changes_no_event(count):
    now = HOURLY.ends[count - 1]
    assert bot.events(_first(HOURLY, count)) == [e for e in ALL_HOURLY if e.ts <= now]


def test_the_same_bars_give_the_same_bytes(all_events):
    again = bot.events(bot.load("daily"), bot.load("hourly"))
    assert [encode(e) for e in again] == [encode(e) for e in all_events]


def _trade(side, *bars):
    """How a trade ends over `bars` (open, high, low, close), at an ATR of 10."""
    start = DAILY.starts[0]
    ends = [start + timedelta(days=i, hours=1) for i in range(len(bars) + 1)]
    starts = [end - timedelta(hours=1) for end in ends]
    rows = [(100.0, 100.0, 100.0, 100.0), *bars]
    columns = bot.np.array([(*row, 1.0) for row in rows]).T
    signal = Signal(signal_id="s", ts=ends[0], symbol="X", side=side, features={})
    return bot.trade(bot.Bars("X", starts, ends, *columns), 0, signal, 10.0)


def test_a_bar_that_touches_both_stops_the_trade_out():
    close = _trade("long", (100, 130, 80, 120))
    assert (close.exit_reason, close.exit_price, close.mfe_pct) == ("stop", 85, 0)
    assert close.return_pct == pytest.approx(-15 - bot.COST_PCT)


def test_a_target_pays_net_of_costs_either_way():
    assert _trade("long", (100, 121, 95, 99)).return_pct == pytest.approx(20 - bot.COST_PCT)
    assert _trade("short", (100, 105, 79, 99)).return_pct == pytest.approx(20 - bot.COST_PCT)


def test_a_gap_beyond_the_stop_is_paid_in_full():
    assert _trade("long", (100, 101, 99, 100), (70, 72, 69, 71)).exit_price == 70
    assert _trade("short", (100, 101, 99, 100), (130, 131, 129, 130)).exit_price == 130


def test_the_entry_is_at_the_next_bars_open():
    close = _trade("long", (110, 111, 94, 100))
    assert (close.exit_reason, close.exit_price) == ("stop", 95)


def test_a_trade_that_goes_nowhere_ends_after_24_bars():
    flat = [(100, 101, 99, 100.5)] * 23 + [(100, 104, 98, 100.5)] * 2
    close = _trade("short", *flat)
    assert close.exit_reason == "timeout"
    assert close.return_pct == pytest.approx(-0.5 - bot.COST_PCT)
    assert (close.mfe_pct, close.mae_pct) == (2, 4)
    assert close.hold_minutes == 23 * 24 * 60 + 60


def test_a_trade_that_has_not_ended_has_no_close():
    assert _trade("long") is None
    assert _trade("long", (100, 101, 99, 100)) is None


def test_what_a_broken_connection_may_have_lost_is_sent_again(tmp_path):
    address = f"embedded://{tmp_path}"
    batch = ALL_HOURLY[:3]
    with Client(address) as client:
        os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
        publishing = threading.Thread(target=bot.publish, args=(client, batch))
        publishing.start()
        with connect(address) as again:
            publishing.join(30)
            entries = again.redis.xrange(Keys().events)
    assert [decode(fields[b"e"]) for _, fields in entries] == batch
