"""No bot can exhaust the engine: whatever it sends, memory and time stay where they are."""

import gc
import tracemalloc
from itertools import islice
from time import process_time

import orjson
import pytest

from engine.core_config import CoreConfig, ExpertConfig, FeaturesConfig, LedgerConfig, RefitConfig
from learners import RefitParams
from streams import Dead, Decision, dead, encode, read_entry
from streams.events import MAX_DEAD_BYTES, MAX_ENTRY_BYTES
from streams.values import MAX_FEATURES, MAX_NAME, MAX_TEXT
from tests.engine.histories import close, entries, new_core, run, signal
from tests.fuzz.accounts import Books
from tests.fuzz.hostile import Hostile

SMALL = CoreConfig(
    experts={
        kind: ExpertConfig(kind=kind) for kind in ("base_rate", "logistic", "bayes", "forest")
    },
    ledger=LedgerConfig(max_open=40, max_parked=20, remember=100),
    features=FeaturesConfig(max_columns=48, max_categories=4),
    refit=RefitConfig(
        every=30, lag=5, window=60, holdout=12, params=RefitParams(rounds=2, min_data_in_leaf=5)
    ),
)
"""Bounds so low that a second of harm reaches all of them."""


def test_memory_stays_where_it_is_under_hostile_events() -> None:
    core, books = new_core(SMALL), Books()
    source = enumerate(Hostile(size=8_000), 1)

    def memory_after(events: int) -> int:
        for number, data in islice(source, events):
            books.enter(core.apply(read_entry(f"0-{number}", data)))
        books.balance(core)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    memory_after(500)
    tracemalloc.start()
    try:
        # What is older isn't counted: after these, little of it is left.
        memory_after(400)
        before, after = memory_after(200), memory_after(400)
    finally:
        tracemalloc.stop()
    assert after < before + 500_000


def test_a_close_that_waits_takes_no_more_memory_than_its_bytes() -> None:
    core = new_core(SMALL)
    fat = [encode(close(f"c{i}", meta={"n": [{}] * 20_000})) for i in range(20)]
    tracemalloc.start()
    try:
        for number, data in enumerate(fat):
            core.apply(read_entry(f"0-{number}", data))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(core.ledger.parked) == 20
    # Without the bytes themselves, which were there before.
    assert taken < 20 * 5_000


def test_columns_categories_and_symbols_are_bounded() -> None:
    core = new_core(SMALL)
    for i in range(300):
        features = {f"f{i}-{j}": 1.0 for j in range(20)} | {"session": f"value {i}"}
        run(core, entries(signal(f"s{i}", i, symbol=f"S{i}", strategy=f"T{i}", features=features)))
    encoder = core.model.encoder
    assert len(encoder.names) == 48
    assert encoder.left_out > 0
    assert all(len(opened.row) <= 48 for opened in core.ledger.open.values())
    assert core.counts["decisions"] == 300


def plain(**fields: object) -> bytes:
    return orjson.dumps(orjson.loads(encode(signal("a"))) | fields)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (plain(meta={"a": "x" * MAX_ENTRY_BYTES}), f"at most {MAX_ENTRY_BYTES} are read"),
        (plain(features={f"f{i}": 1 for i in range(MAX_FEATURES + 1)}), "at most 256 are read"),
        (plain(features={"x" * (MAX_NAME + 1): 1}), "at most 128 characters"),
        (plain(features={"a": "x" * (MAX_TEXT + 1)}), "at most 256 characters"),
        (plain(signal_id="x" * (MAX_NAME + 1)), "at most 128 characters"),
        (plain(symbol="x" * (MAX_NAME + 1)), "at most 128 characters"),
        (plain()[:-1] + b',"meta":{"a":' + b"[" * 500 + b"]" * 500 + b"}}", "recursion limit"),
        (b"[" * MAX_ENTRY_BYTES, "recursion limit"),
        (plain(meta={"a": 1})[:-2] + b"9" * 60_000 + b"}}", "out of range"),
        (plain(features={f"{i:x}": [] for i in range(6_000)}), "6000 entries; at most 256"),
        (plain(**{f"x{i}": 1 for i in range(5_000)}), "and 4999 more"),
    ],
)
def test_past_a_limit_an_event_is_refused_at_once_and_says_why(data: bytes, reason: str) -> None:
    started = process_time()
    entry = read_entry("0-1", data)
    assert entry.error is not None
    assert reason in entry.error
    assert len(entry.error) < 400
    assert process_time() - started < 0.5


def test_at_its_limits_an_event_is_taken() -> None:
    features = {f"{i:x}".rjust(MAX_NAME, "x"): 1.5 for i in range(MAX_FEATURES)}
    longest = plain(features=features, symbol="S" * MAX_NAME, signal_id="a" * MAX_NAME)
    (decision,) = run(new_core(), entries(longest))
    assert isinstance(decision, Decision)


def test_of_bad_input_no_more_is_kept_than_a_server_takes_back() -> None:
    for data in (b"x" * (3 * MAX_DEAD_BYTES), b"\xff" * (3 * MAX_DEAD_BYTES)):
        entry = read_entry("0-1", data)
        (letter,) = run(new_core(), [entry])
        assert isinstance(letter, Dead)
        assert str(3 * MAX_DEAD_BYTES) in letter.message
        assert len(encode(letter)) < 1.5 * MAX_DEAD_BYTES
    cut = dead("events", "0-1", "invalid", "", "\u20ac".encode() * MAX_DEAD_BYTES)
    assert cut.data is None
    assert cut.data_base64 is not None


def test_extreme_numbers_leave_the_model_with_finite_ones() -> None:
    core = new_core(SMALL)
    extremes = [1e308, -1e308, 5e-324, 0.0, 1e308]
    for i, number in enumerate(extremes * 30):
        features = {"rsi": number, "adx": -number}
        ended = close(f"s{i}", i, return_pct=number)
        run(core, entries(signal(f"s{i}", i, features=features), ended))
    (decision,) = run(core, entries(signal("last", 999)))
    assert isinstance(decision, Decision)
    assert 0.0 <= decision.probability <= 1.0
    assert abs(decision.expected_return_pct) < float("inf")
    assert core.counts["outcomes"] == 150
