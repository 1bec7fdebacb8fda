"""Clocks around the engine's functions."""

from time import perf_counter_ns

from bench.cores import EncodingCore, configured
from bench.stages import StageClock, clocked
from bench.tapes import generated
from engine.core import Core
from engine.fitting import InlineFitter
from streams import encode, read_entry


def busy(nanoseconds: int) -> None:
    until = perf_counter_ns() + nanoseconds
    while perf_counter_ns() < until:
        pass


def test_a_stage_has_its_own_time_without_that_of_the_stages_inside():
    clock = StageClock()
    inner = clock.around("inner", lambda: busy(4_000_000))

    def work() -> None:
        busy(1_000_000)
        inner()

    clock.around("outer", work)()
    assert clock.calls == {"inner": 1, "outer": 1}
    assert clock.ns["inner"] >= 4_000_000
    assert 900_000 <= clock.ns["outer"] < clock.ns["inner"]


def test_reading_gives_every_item_and_times_each():
    clock = StageClock()
    assert list(clock.reading("read", range(5))) == [0, 1, 2, 3, 4]
    assert clock.calls["read"] == 6  # the last one finds nothing


def test_the_engine_with_its_clocks_on_decides_the_same():
    config = configured(refits=False)
    entries = [read_entry(f"0-{n}", encode(event)) for n, event in enumerate(generated(150), 1)]
    clock = StageClock()
    with clocked(clock, config) as missing:
        core = EncodingCore(config, InlineFitter())
        for entry in entries:
            core.apply(entry)
    plain = Core(config, InlineFitter())
    for entry in entries:
        plain.apply(entry)
    assert core.decisions_digest == plain.decisions_digest
    assert clock.calls["core, the rest"] == len(entries)
    assert missing == []


def test_the_clocks_are_off_again_afterwards():
    clock = StageClock()
    config = configured(refits=False)
    apply = Core.apply
    with clocked(clock, config):
        assert Core.apply is not apply
    assert Core.apply is apply
