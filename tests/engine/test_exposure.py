"""Open trades: counted as they come and go, and never otherwise than the ledger has them."""

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import Core
from engine.core_config import CoreConfig, ExpertConfig, LedgerConfig, PolicyConfig, RefitConfig
from engine.exposure import OpenTrades
from engine.policy import Exposure
from streams import Close, Signal
from tests.engine.histories import close, entries, new_core, run, signal

CONFIG = CoreConfig(
    experts={"base_rate": ExpertConfig(kind="base_rate")},
    ledger=LedgerConfig(max_open=9, max_parked=3, remember=50, expire_days=0.02),
    policy=PolicyConfig(warmup_closes=6, max_positions=5, exploration_rate=0.3),
    refit=RefitConfig(enabled=False),
)
SYMBOLS, STRATEGIES, SIDES = ("A", "B"), (None, "a", "b"), ("long", "short")

_names = st.integers(0, 25).map(lambda number: f"s{number}")
_signals = st.builds(
    lambda name, step, symbol, strategy, side, baseline: (
        signal, name, step,
        {"symbol": symbol, "strategy": strategy, "side": side, "baseline": baseline},
    ),
    _names, st.sampled_from([0, 1, 9, 40]), st.sampled_from(SYMBOLS),
    st.sampled_from(STRATEGIES), st.sampled_from(SIDES), st.sampled_from(["take", "take", "skip"]),
)  # fmt: skip
_closes = st.builds(
    lambda name, step, value: (close, name, step, {"return_pct": value}),
    _names, st.sampled_from([0, 1]), st.sampled_from([2.0, -1.0]),
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> list[Signal | Close]:
    """Signals and closes, copies and strays among them, in any order; some wait too long."""
    minute, events = 0, []
    for make, name, step, fields in draw(st.lists(_signals | _closes, max_size=60)):
        minute += step
        events.append(make(name, minute, **fields))
    return events


def recounted(core: Core, symbol: str, strategy: str | None, side: str) -> Exposure:
    taken = [trade for trade in core.ledger.open.values() if trade.action != "skip"]
    alike = [trade for trade in taken if (trade.strategy, trade.side) == (strategy, side)]
    return Exposure(
        len(taken),
        sum(trade.symbol == symbol for trade in taken),
        sum(trade.symbol != symbol for trade in alike),
    )


def balance(core: Core) -> None:
    for symbol, strategy, side in product((*SYMBOLS, "unheard"), STRATEGIES, SIDES):
        asked: Any = signal("x", symbol=symbol, strategy=strategy, side=side)
        assert core.trades.facing(asked) == recounted(core, symbol, strategy, side)


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(0, 60))
def test_the_counts_are_those_of_the_ledger_after_any_history(events, at):
    core = new_core(CONFIG)
    for number, entry in enumerate(entries(*events)):
        core.apply(entry)
        balance(core)
        if number == at:
            restored = new_core(CONFIG)
            # Something else was open in it before.
            run(restored, entries(signal("mine", baseline="take")))
            restored.restore(core.state())
            core = restored
            balance(core)


def test_the_caps_are_held_against_what_is_open():
    core = new_core(CONFIG)
    events = [signal(f"s{i}", i, baseline="take") for i in range(7)]
    events += [close("s2", 7), signal("s7", 8, baseline="take"), signal("s8", 9, baseline="take")]
    decisions = [output for output in run(core, entries(*events)) if output.type == "decision"]
    assert [d.action for d in decisions] == ["take"] * 5 + ["skip"] * 2 + ["take", "skip"]
    told = [d.reasons for d in decisions if d.action == "skip"]
    assert told == [("warming_up", "too_many_positions")] * 3


def test_a_signal_that_was_skipped_is_no_open_trade():
    core = new_core(CONFIG)
    run(core, entries(signal("a", baseline="skip"), signal("b", 1, baseline="skip")))
    assert len(core.ledger.open) == 2
    assert core.trades.facing(signal("x")) == Exposure(0, 0, 0)


def test_what_is_no_longer_open_takes_no_memory():
    trades, core = OpenTrades(), new_core(CONFIG)
    events = [signal(f"s{i}", i, symbol=f"S{i}", baseline="take") for i in range(5)]
    run(core, entries(*events))
    for trade in core.ledger.open.values():
        trades.opened(trade)
    for trade in core.ledger.open.values():
        trades.ended(trade)
    assert not trades._groups
    assert trades.facing(signal("x")) == Exposure(0, 0, 0)
