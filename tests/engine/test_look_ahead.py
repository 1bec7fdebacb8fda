"""No look-ahead: whatever comes after a decision, the decision stays as it was, to the byte."""

import random
from collections.abc import Callable
from datetime import timedelta
from functools import cache

import pytest
from msgspec.structs import replace

from engine.core_config import CoreConfig, ExpertConfig, LedgerConfig, RefitConfig
from learners import RefitParams
from streams import Close, Decision, Outcome, Signal, encode
from tests.engine.histories import QUICK, entries, history, new_core, run

Event = Signal | Close
CONFIG: CoreConfig = QUICK.model_copy(
    update={
        "experts": {
            **QUICK.experts,
            "symbol": ExpertConfig(kind="group_rate", params={"by": "symbol", "min_closes": 5}),
            "forest": ExpertConfig(kind="forest", params={"n_models": 2}),
        },
        "ledger": LedgerConfig(park_minutes=30),
        "refit": RefitConfig(
            every=40, lag=7, window=120, holdout=20,
            params=RefitParams(rounds=3, min_data_in_leaf=5),
        ),
    }
)  # fmt: skip
SIGNALS = 180


def early() -> list[Event]:
    """A history in which every ninth close comes before its own signal, and waits for it."""
    events: list[Event] = list(history(SIGNALS))
    for i in range(4, SIGNALS, 9):
        ended = next(e for e in events if isinstance(e, Close) and e.signal_id == f"s{i}")
        events.remove(ended)
        at = next(n for n, e in enumerate(events) if e.signal_id == f"s{i}")
        events.insert(max(at - 3, 0), ended)
    return events


EVENTS = early()
POINTS = range(25, len(EVENTS), 37)


def decided(events: list[Event]) -> list[bytes]:
    """The decisions as they are published. They are encoded at the end: nothing changes them."""
    outputs = run(new_core(CONFIG), entries(*events))
    return [encode(output) for output in outputs if isinstance(output, Decision)]


@cache
def known() -> list[bytes]:
    return decided(EVENTS)


def test_the_history_has_refits_and_closes_that_wait():
    core = new_core(CONFIG)
    outputs = run(core, entries(*EVENTS))
    assert core.model.champions.refits["installed"] >= 2
    assert len({o.model.champion for o in outputs if isinstance(o, Decision)}) > 2
    assert sum(isinstance(o, Outcome) for o in outputs) == SIGNALS
    assert core.counts["orphan_closes"] == 0


def other_features(events: list[Event]) -> list[Event]:
    def other(value: float | bool | str | None) -> float | bool | str | None:
        if isinstance(value, bool):
            return not value
        return -9.0 * value if isinstance(value, float) else "elsewhere" if value else value

    return [
        replace(e, features={name: other(v) for name, v in e.features.items()} | {"new": 1.0})
        if isinstance(e, Signal)
        else e
        for e in events
    ]


def other_returns(events: list[Event]) -> list[Event]:
    return [
        replace(e, return_pct=-7.0 * e.return_pct, exit_reason=None) if isinstance(e, Close) else e
        for e in events
    ]


def other_order(events: list[Event]) -> list[Event]:
    return random.Random(1).sample(events, len(events))


def fewer(events: list[Event]) -> list[Event]:
    return events[1::2]


def years_later(events: list[Event]) -> list[Event]:
    return [replace(e, ts=e.ts + timedelta(days=800)) for e in events]


def nothing(events: list[Event]) -> list[Event]:
    return []


CHANGES: list[Callable[[list[Event]], list[Event]]] = [
    other_features, other_returns, other_order, fewer, years_later, nothing,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_nothing_that_comes_after_a_decision_changes_it(change):
    changed = 0
    for point in POINTS:
        future = change(EVENTS[point:])
        made = decided(EVENTS[:point] + future)
        count = sum(isinstance(e, Signal) for e in EVENTS[:point])
        assert made[:count] == known()[:count], point
        changed += made[count:] != known()[count : len(made)]
    # It was a change that the engine does see, from then on.
    assert changed > len(POINTS) // 2 or change is nothing


def learned_before(signal_id: str) -> int:
    """How many signals are decided until this one's close is learned."""
    count = 0
    for output in run(new_core(CONFIG), entries(*EVENTS)):
        if isinstance(output, Outcome) and output.signal_id == signal_id:
            return count
        count += isinstance(output, Decision)
    raise AssertionError(signal_id)


@pytest.mark.parametrize("signal_id", ["s4", "s67", "s121", "s20", "s90", "s150"])
@pytest.mark.parametrize("return_pct", [-40.0, 40.0])
def test_how_a_trade_ends_changes_no_decision_before_its_close_is_learned(signal_id, return_pct):
    events = [
        replace(e, return_pct=return_pct, exit_reason=None)
        if isinstance(e, Close) and e.signal_id == signal_id
        else e
        for e in EVENTS
    ]
    own = next(
        n
        for n, e in enumerate([e for e in EVENTS if isinstance(e, Signal)], 1)
        if e.signal_id == signal_id
    )
    until = learned_before(signal_id)
    # Its own decision is among them, also where its close came first.
    assert until >= own
    made = decided(events)
    assert made[:until] == known()[:until]
    assert made[until:] != known()[until:]


def test_some_of_those_closes_came_before_their_signals():
    places = {(e.type, e.signal_id): n for n, e in enumerate(EVENTS)}
    names = {signal_id for kind, signal_id in places if kind == "close"}
    first = {name for name in names if places["close", name] < places["signal", name]}
    assert {"s4", "s67", "s121"} <= first
    assert not {"s20", "s90", "s150"} & first
