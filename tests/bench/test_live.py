"""The live benches on a real server, with real processes, for moments only."""

from collections.abc import Iterator
from itertools import islice
from math import inf
from pathlib import Path

import numpy as np
import pytest

from bench import live
from bench.growth import grow_core, grow_live, show
from bench.processes import CLOSELOOP, ECHO, Publish, Receive, Worker, servant
from bench.results import BenchError, Results
from bench.servers import own_keys
from bench.tapes import endless, slots
from streams import Tape, connect
from tests.bench.short_tapes import short_tape


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    return Tape(short_tape(tmp_path, 150))


@pytest.fixture
def bench(
    redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[live.Bench]:
    monkeypatch.setattr(live, "SETTLE_S", 0.0)
    monkeypatch.setattr(live, "WARM_UP_SIGNALS", 20)
    monkeypatch.setattr(live, "WARM_UP_PACED", 10)
    with (
        connect(redis_server) as connection,
        servant(redis_server, "bot") as bot,
        servant(redis_server, "consumer") as consumer,
    ):
        yield live.Bench(connection, redis_server, tmp_path, bot, consumer)


def test_both_workers_latencies_are_measured_from_outside(bench, tape):
    (at,) = live.measure_latency(bench, tape, [200.0], 0.25, 1)
    assert at["signals_per_s"] == 200.0
    for kind in ("echo", "closeloop"):
        assert at[kind]["signals"] == 50
        assert 0 < at[kind]["p50"] <= at[kind]["p99"] <= at[kind]["p999"] <= at[kind]["worst"]
    assert at["p50_ratio"] == pytest.approx(at["closeloop"]["p50"] / at["echo"]["p50"], rel=1e-6)


@pytest.mark.parametrize("measure", [live.Side.flat_out, live.Side.backlog])
def test_a_workers_throughput_is_over_all_that_was_published(bench, tape, measure, monkeypatch):
    monkeypatch.setattr(live, "WARM_UP_SIGNALS", 20)
    monkeypatch.setattr(live, "WARM_UP_PACED", 10)
    monkeypatch.setattr(live, "SETTLE_S", 0.0)
    with own_keys(bench.connection) as keys:
        side = live.Side(bench, "echo", keys, tape)
        try:
            assert measure(side, 3_000) > 100
        finally:
            side.close()
        assert bench.connection.redis.hget(keys.checkpoint, "entries") >= b"3000"


def test_a_bot_that_can_not_keep_up_does_not_move_the_schedule(bench, tape):
    entries = list(islice(slots(endless(tape)), 400))
    with own_keys(bench.connection) as keys:
        bench.bot.begin(Publish(keys.events, entries, 1e9))
        ids, due = bench.bot.result()
        assert bench.connection.redis.xlen(keys.events) == sum(map(len, entries))
    assert ids == sorted(ids, key=lambda i: tuple(map(int, i.split(b"-"))))
    assert np.diff(due).tolist() == [1] * 399


def test_a_consumer_notes_when_it_received_what(bench):
    with own_keys(bench.connection) as keys:
        bench.consumer.begin(Receive(keys.decisions, b"0-0", 3))
        wanted = [bench.connection.redis.xadd(keys.decisions, {"e": "x"}) for _ in range(3)]
        ids, times = bench.consumer.result()
    assert ids == wanted
    assert times == sorted(times)


def test_keys_of_a_bench_are_gone_afterwards(bench):
    with own_keys(bench.connection) as keys:
        bench.connection.redis.xadd(keys.events, {"e": "x"})
        bench.connection.redis.set(keys.lease, "x")
    assert bench.connection.redis.keys(f"{keys.prefix}*") == []


def test_growth_is_measured_through_a_worker(bench, tape, tmp_path):
    with own_keys(bench.connection) as keys:
        worker = Worker(CLOSELOOP, bench.address, keys, tmp_path / "worker")
        try:
            tenths = grow_live(bench.connection, keys, worker, endless(tape), 2_000, id)
        finally:
            worker.close()
    assert [tenth.events for tenth in tenths] == [200] * 10
    assert all(tenth.resident_mb > 10 and tenth.events_per_s > 0 for tenth in tenths)


def test_a_worker_that_has_ended_says_why(bench, tmp_path):
    with own_keys(bench.connection) as keys:
        bench.connection.redis.set(keys.checkpoint, "not a hash")
        worker = Worker(ECHO, bench.address, keys, tmp_path / "worker")
        try:
            worker._process.wait(60)
            with pytest.raises(BenchError, match=r"ended by itself(.|\n)*WRONGTYPE"):
                worker.check()
        finally:
            worker.close()


def test_the_last_tenth_is_held_against_the_second(tape, capsys):
    counted: list[int] = []
    tenths, in_pairs = grow_core(tape, 1_000, False, counted.append)
    assert [tenth.events for tenth in tenths] == [100] * 10
    assert sum(counted) == 1_000
    results = Results("growth", None)
    show(results, tenths, "core", in_pairs)
    assert results.figures["cost_in_pairs"] == in_pairs > 0
    ratio = tenths[-1].us_per_event / tenths[1].us_per_event
    assert results.figures["cost_last_over_second"] == ratio
    assert f"x{ratio:.3f}" in capsys.readouterr().out


def test_flat_out_is_an_infinite_rate(bench, tape):
    with own_keys(bench.connection) as keys:
        bench.bot.begin(Publish(keys.events, list(islice(slots(endless(tape)), 20)), inf))
        _, due = bench.bot.result()
    assert len(set(due)) == 1
