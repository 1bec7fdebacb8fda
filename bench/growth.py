"""Does anything grow with the number of events? Cost per event and memory, tenth by tenth.

    python bench/growth.py [TAPE] [--events 1000000] [--live] [--json OUT]

The tape is run lap after lap, each lap later in time and with signal_ids of its own. The run is cut
into tenths; the last is held against the second, since in the first the engine's windows, trees and
memories of ended signals still fill up. A ratio near 1 in both columns says that nothing grows.

core (the default)
    One core in this process: decoding, `Core.apply` and the outputs' bytes, in chunks of 1,000
    events. A tenth's cost is the median of its chunks'. A machine that has got busier in between
    would pass for growth, so at the end the core goes on beside one that has only seen the first
    two tenths, chunk by chunk in turn: the median of the pairs' ratios is the verdict. Memory is
    this process's resident memory, the mean over the tenth.
--live
    A worker (`closeloop run`) at a real server, fed so that it is never far behind. Cost is its CPU
    time per event, and memory its own, without its refit process. Events a second are by the wall
    clock, in which feeding it counts, too. The server's own memory is shown beside: its streams are
    trimmed, so that it stays bounded as well.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import nan
from os import getpid
from statistics import fmean, median
from time import monotonic, perf_counter, sleep
from typing import Annotated, Any

import typer

from bench.cores import EncodingCore, configured, fitting, warm_up
from bench.machine import cpu_seconds, resident_bytes
from bench.processes import CLOSELOOP, PATIENCE_S, Worker
from bench.results import BenchError, JsonOption, Results, TapeArgument, progress, run
from bench.servers import own_keys, publish, served
from bench.tapes import endless, opened
from streams import Connection, Keys, Tape, read_entry

TENTHS = 10
CHUNK = 1_000
BEHIND = 4_000
"""Events that a live worker may be behind before it is fed more."""
PAIRS = 40
START_UP = 100
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Tenth:
    """A tenth of a run.

    Parameters
    ----------
    us_per_event
        What an event costs, microseconds.
    events_per_s
        By the wall clock.
    resident_mb
        Resident memory of the process that runs the core.
    server_mb
        Memory that the server says it uses; None without one.
    """

    events: int
    us_per_event: float
    events_per_s: float
    resident_mb: float
    server_mb: float | None = None


def grow_core(
    tape: Tape, events: int, refits: bool, advance: Callable[[int], None]
) -> tuple[list[Tenth], float]:
    """A core over `events` events; also the cost now over that after the second tenth, in pairs."""
    config = configured(refits)
    tenths: list[Tenth] = []
    line = 0

    def cost(core: EncodingCore, chunk: list[bytes]) -> float:
        started = perf_counter()
        for number, data in enumerate(chunk, line):
            core.apply(read_entry(f"0-{number}", data))
        return perf_counter() - started

    entries = endless(tape)
    with fitting(config) as fitter, fitting(config) as another:
        core = EncodingCore(config, fitter)
        for size in _tenths(events):
            costs: list[float] = []
            memory: list[int] = []
            total = 0.0
            for count in _chunks(size):
                # Made before the clock starts: laps are the bench's work, not the engine's.
                chunk = list(islice(entries, count))
                took = cost(core, chunk)
                line += count
                costs.append(took / count * 1e6)
                memory.append(resident_bytes(getpid()))
                total += took
                advance(count)
            tenths.append(Tenth(size, median(costs), size / total, fmean(memory) / 1e6))
        young = EncodingCore(config, another)
        for number, data in enumerate(islice(endless(tape), sum(_tenths(events)[:2]))):
            young.apply(read_entry(f"0-{number}", data))
        ratios: list[float] = []
        for number in range(min(PAIRS, events // CHUNK)):
            chunk = list(islice(entries, CHUNK))
            turn = (core, young) if number % 2 else (young, core)
            pair = {one: cost(one, chunk) for one in turn}
            line += CHUNK
            ratios.append(pair[core] / pair[young])
    return tenths, median(ratios) if ratios else nan


def grow_live(
    connection: Connection,
    keys: Keys,
    worker: Worker,
    entries: Iterator[bytes],
    events: int,
    advance: Callable[[int], None],
) -> list[Tenth]:
    """A worker over `events` events."""
    redis: Any = connection.redis

    def committed() -> int:
        return int(redis.hget(keys.checkpoint, "entries") or 0)

    def catch_up(behind: int) -> None:
        """Wait until the worker is at most so many events behind."""
        deadline, seen = monotonic() + PATIENCE_S, -1
        while (done := committed()) < sent - behind:
            worker.check()
            if done > seen:
                deadline, seen = monotonic() + PATIENCE_S, done
            elif monotonic() > deadline:
                raise BenchError(f"the worker has stood at {done} events for {PATIENCE_S:.0f} s")
            sleep(_POLL_S)

    # So much before the first tenth, until the worker is up.
    sent = committed() + len(publish(connection, keys.events, islice(entries, START_UP)))
    catch_up(0)
    tenths: list[Tenth] = []
    for size in _tenths(events):
        started, cpu = perf_counter(), cpu_seconds(worker.pid)
        memory: list[int] = []
        for count in _chunks(size):
            publish(connection, keys.events, islice(entries, count))
            sent += count
            catch_up(BEHIND)
            memory.append(resident_bytes(worker.pid))
            advance(count)
        catch_up(0)
        took, used = perf_counter() - started, cpu_seconds(worker.pid) - cpu
        server = redis.info("memory")["used_memory"] / 1e6
        tenths.append(Tenth(size, used / size * 1e6, size / took, fmean(memory) / 1e6, server))
    return tenths


def _tenths(events: int) -> list[int]:
    return [events * (n + 1) // TENTHS - events * n // TENTHS for n in range(TENTHS)]


def _chunks(size: int) -> list[int]:
    return [min(CHUNK, size - start) for start in range(0, size, CHUNK)]


def show(results: Results, tenths: list[Tenth], title: str, in_pairs: float | None) -> None:
    """The tenths as a table, and the last against the second."""
    second, last = tenths[1], tenths[-1]
    # A worker's CPU time comes in hundredths of a second: a very short tenth may have none.
    cost = last.us_per_event / second.us_per_event if second.us_per_event else nan
    memory = last.resident_mb / second.resident_mb
    figures: dict[str, object] = {
        "tenths": tenths,
        "cost_last_over_second": cost,
        "resident_last_over_second": memory,
    }
    columns = ["tenth", "events", "us/event", "events/s", "resident, MB"]
    rows: list[list[object]] = [
        [f"{number}.", t.events, t.us_per_event, t.events_per_s, t.resident_mb]
        for number, t in enumerate(tenths, 1)
    ]
    rows.append(["last over second", None, f"x{cost:.3f}", None, f"x{memory:.3f}"])
    if second.server_mb is not None and last.server_mb is not None:
        server = last.server_mb / second.server_mb
        figures["server_last_over_second"] = server
        columns.append("server, MB")
        for row, tenth in zip(rows, tenths, strict=False):
            row.append(tenth.server_mb)
        rows[-1].append(f"x{server:.3f}")
    if in_pairs is not None:
        figures["cost_in_pairs"] = in_pairs
        rows.append(["the same, in pairs", None, f"x{in_pairs:.3f}", None, None])
    results.add(figures)
    results.table(title, columns, rows)


def main(
    tape: TapeArgument = None,
    events: Annotated[int, typer.Option(min=100, help="Events in all.")] = 1_000_000,
    refits: Annotated[
        bool, typer.Option(help="LightGBM refits in the core; a worker always has them.")
    ] = False,
    live: Annotated[bool, typer.Option("--live", help="Through a worker at a server.")] = False,
    address: Annotated[
        str | None, typer.Option(help="The worker's server.", show_default="one of its own")
    ] = None,
    json_out: JsonOption = None,
) -> None:
    """Does anything grow? Cost per event and memory over many events, tenth by tenth."""
    results = Results("growth", json_out)
    with opened(tape) as (found, name), progress() as bar:
        task = bar.add_task("warming up", total=events)
        warm_up()
        bar.update(task, description=f"{events:,} events")

        def advance(count: int) -> None:
            bar.advance(task, count)

        in_pairs = None
        if live:
            with served(address) as (connection, folder), own_keys(connection) as keys:
                worker = Worker(CLOSELOOP, address or connection.address, keys, folder / "worker")
                try:
                    tenths = grow_live(connection, keys, worker, endless(found), events, advance)
                finally:
                    worker.close()
        else:
            tenths, in_pairs = grow_core(found, events, refits, advance)
    results.add({"tape": name, "events": events, "live": live, "refits": refits or live})
    what = "worker" if live else f"core, {'with' if refits else 'without'} refits"
    show(results, tenths, f"{what}, {events:,} events of {name}", in_pairs)
    results.write()


if __name__ == "__main__":
    run(main)
