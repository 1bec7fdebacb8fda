"""The whole engine over a tape, against what a user would write, and against a bare echo.

    python bench/replay.py TAPE [--limit N] [--echo] [--json OUT]

What is measured, each several times in turn, medians shown:

engine
    `engine.replay.replay`, as `closeloop replay` runs it, plus the bytes of every output: reading
    the tape, decoding, deciding, learning, drift, refits in a process of their own and the wait
    for those that aren't ready. Everything is counted, its refit process starting up, too.
plain loop
    River's ARF of ten trees and LightGBM refit every 500 closes on 8,000 rows, averaged
    (`bench/plain_loop.py`): only its learners' time is counted. It takes about a millisecond an
    event and gets slower as its trees grow, so it runs on the first `--peer-events` only; the
    engine runs those as well, for log loss over the same closes and for the ratio. The ratio of the
    whole tape takes the plain loop's speed on its short tape, which favours the plain loop.
where the time goes
    A pass of its own with a clock around each stage (`bench/stages.py`); no other number has it.
echo
    With `--echo`: the core alone without refits, against loops that only read batches of a real
    server and publish something canned: as the manuals do, through a consumer group, an answer to
    every event; without a group, an answer to every signal; and through the engine's transport.
"""

import gc
from collections.abc import Callable
from functools import partial
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import typer

from bench.cores import EncodingCore, configured, fitting, warm_up
from bench.echo import bare_echo, group_echo, transport_echo
from bench.plain_loop import PlainRun, run_plain
from bench.processes import BATCH
from bench.results import JsonOption, Results, TapeArgument, progress, run
from bench.servers import own_keys, publish, served, server_version
from bench.stages import StageClock, clocked
from bench.tapes import opened
from engine.replay import replay
from streams import Connection, Keys, Tape

Figures = dict[str, Any]
ECHOES = {
    "echo, group, an answer an event": group_echo,
    "echo, an answer a signal": bare_echo,
    "echo through the transport": transport_echo,
}


def measure_engine(tape: Tape, limit: int | None, refits: bool) -> Figures:
    """The figures of one replay."""
    config = configured(refits)
    with fitting(config) as fitter:
        figures = replay(EncodingCore(config, fitter), islice(tape, limit))
        return figures | {"refit_wait_s": getattr(fitter, "waited_seconds", 0.0)}


def measure_stages(tape: Tape, limit: int | None, refits: bool) -> Figures:
    """Where a replay's time goes, with the clocks on."""
    config = configured(refits)
    clock = StageClock()
    with clocked(clock, config) as missing, fitting(config) as fitter:
        core = EncodingCore(config, fitter)
        started = perf_counter()
        figures = replay(core, clock.reading("read the tape", islice(tape, limit)))
        seconds = perf_counter() - started
    events = int(str(figures["events"]))
    total = sum(clock.ns.values())
    stages = [
        {
            "stage": stage,
            "us_per_event": ns / 1_000 / events,
            "share": ns / total,
            "calls": clock.calls[stage],
            "us_per_call": ns / 1_000 / clock.calls[stage],
        }
        for stage, ns in sorted(clock.ns.items(), key=lambda item: -item[1])
        if clock.calls[stage]
    ]
    return {"stages": stages, "seconds": seconds, "events": events, "not_found": missing}


def measure_echo(
    tape: Tape,
    limit: int | None,
    address: str | None,
    echo: Callable[[Connection, Keys, int, int], None],
) -> tuple[float, str]:
    """Events a second that an echo reaches on what was published before, and on which server."""
    with served(address) as (connection, _), own_keys(connection) as keys:
        count = len(publish(connection, keys.events, (line.data for line in islice(tape, limit))))
        started = perf_counter()
        echo(connection, keys, BATCH, count)
        return count / (perf_counter() - started), server_version(connection)


def in_turn(rounds: int, measures: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Each measure once a round, in an order that turns round every time."""
    found: dict[str, list[Any]] = {name: [] for name in measures}
    with progress() as bar:
        task = bar.add_task("", total=rounds * len(measures))
        for number in range(rounds):
            for name in list(measures)[:: -1 if number % 2 else 1]:
                bar.update(task, description=f"{name}, round {number + 1}")
                gc.collect()
                found[name].append(measures[name]())
                bar.advance(task)
    return found


def compare(
    results: Results, tape: Tape, limit: int | None, refits: bool, peer: int, rounds: int
) -> None:
    """The engine, on the whole tape and, if there is a peer, on the part that the peer runs on."""
    short = min(peer, limit or peer)
    measures: dict[str, Callable[[], Any]] = {
        "engine": lambda: measure_engine(tape, limit, refits),
    }
    if peer:
        measures["engine, short"] = lambda: measure_engine(tape, short, refits)
        measures["plain loop"] = lambda: run_plain(islice(tape, short), refits)
    found = in_turn(rounds, measures)
    whole, rows = found["engine"], [_engine_row("engine", found["engine"])]
    rates = _column(whole, "events_per_s")
    first = whole[0]
    kept = ("events", "log_loss", "base_rate_log_loss", "latency_us", "refits", "decisions_digest")
    figures = {
        **{name: first[name] for name in kept},
        **_rates("", rates),
        "refit_wait_s": median(_column(whole, "refit_wait_s")),
        "same_digest_every_round": len({f["decisions_digest"] for f in whole}) == 1,
    }
    results.add({"engine": figures})
    verdict = ""
    if peer:
        shorts, plain = found["engine, short"], found["plain loop"]
        figures = peer_figures(rates, shorts, plain)
        results.add({"plain_loop": figures})
        rows.append(_engine_row("engine, the peer's part", shorts))
        rows.append(_plain_row("plain loop, its learners only", plain))
        verdict = (
            f"the engine is {figures['ratio_on_the_same_events']:.1f} times as fast on the same"
            f" {figures['events']:,} events, and {figures['ratio_of_the_whole_tape']:.1f} times"
            f" when its speed on all {first['events']:,} is held against them"
        )
    title = f"replay, {'with' if refits else 'without'} refits (medians of {rounds})"
    results.table(title, ["", "events", "events/s", "seconds", "waited, s", "log loss"], rows)
    if verdict:
        results.note(verdict)


def peer_figures(rates: list[float], shorts: list[Figures], plain: list[PlainRun]) -> Figures:
    """The plain loop's figures, beside the engine's on the same events."""
    peers = [run.events / run.seconds for run in plain]
    same = _column(shorts, "events_per_s")
    return {
        "events": plain[0].events,
        **_rates("", peers),
        "log_loss": plain[0].log_loss,
        "refits": plain[0].refits,
        "seconds_by_call": {
            name: median(run.ns[name] / 1e9 for run in plain) for name in plain[0].ns
        },
        **_rates("engine", same),
        "engine_log_loss": shorts[0]["log_loss"],
        "base_rate_log_loss": shorts[0]["base_rate_log_loss"],
        "ratio_on_the_same_events": _median_ratio(same, peers),
        "ratio_of_the_whole_tape": _median_ratio(rates, peers),
    }


def _plain_row(name: str, runs: list[PlainRun]) -> list[object]:
    rates = [run.events / run.seconds for run in runs]
    seconds = median(run.seconds for run in runs)
    return [name, runs[0].events, median(rates), seconds, None, runs[0].log_loss]


def _engine_row(name: str, runs: list[Figures]) -> list[object]:
    return [
        name,
        runs[0]["events"],
        median(_column(runs, "events_per_s")),
        median(_column(runs, "seconds")),
        median(_column(runs, "refit_wait_s")),
        runs[0]["log_loss"],
    ]


def show_stages(results: Results, tape: Tape, limit: int | None, refits: bool) -> None:
    """Where the time goes."""
    with progress() as bar:
        bar.add_task("where the time goes", total=None)
        found = measure_stages(tape, limit, refits)
    results.add({"where": found})
    rows = [
        [s["stage"], f"{s['share']:.1%}", s["us_per_event"], s["calls"], s["us_per_call"]]
        for s in found["stages"]
    ]
    results.table("where the time goes", ["", "share", "us/event", "calls", "us/call"], rows)
    if found["not_found"]:
        results.note(f"not in this engine: {', '.join(found['not_found'])}")


def against_echo(
    results: Results, tape: Tape, limit: int | None, rounds: int, address: str | None
) -> None:
    """The core alone against what the transport leaves room for."""
    core = "core alone, no refits"
    measures: dict[str, Callable[[], Any]] = {
        core: lambda: measure_engine(tape, limit, refits=False)
    }
    for name, echo in ECHOES.items():
        measures[name] = partial(measure_echo, tape, limit, address, echo)
    found = in_turn(rounds, measures)
    cores = _column(found[core], "events_per_s")
    figures: Figures = {**_rates("core", cores)}
    rows: list[list[object]] = [[core, median(cores), None]]
    for name in ECHOES:
        rates = [rate for rate, _ in found[name]]
        server = found[name][0][1]
        ratio = _median_ratio(cores, rates)
        figures[name] = {"server": server, **_rates("", rates), "core_of_it": ratio}
        rows.append([name, median(rates), f"{ratio:.3f}"])
    results.add({"echo": figures})
    title = f"core and echo, {server} (medians of {rounds})"
    results.table(title, ["", "events/s", "the core's part of it"], rows)


def _rates(name: str, rates: list[float]) -> Figures:
    key = f"{name}_events_per_s" if name else "events_per_s"
    return {key: median(rates), f"{key}_rounds": rates}


def _column(runs: list[Figures], name: str) -> list[float]:
    return [run[name] for run in runs]


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Round by round, so that a slow moment of the machine is in both."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def main(
    tape: TapeArgument = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Events at most.", show_default="all")
    ] = None,
    peer: Annotated[bool, typer.Option(help="Run the plain loop beside.")] = True,
    peer_events: Annotated[int, typer.Option(min=100, help="Events of the plain loop.")] = 10_000,
    refits: Annotated[bool, typer.Option(help="LightGBM refits, on both sides.")] = True,
    echo: Annotated[bool, typer.Option(help="Also the core alone against a Redis echo.")] = False,
    stages: Annotated[bool, typer.Option(help="Also where the time goes.")] = True,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 3,
    address: Annotated[
        str | None, typer.Option(help="The echo's server.", show_default="one of its own")
    ] = None,
    json_out: JsonOption = None,
) -> None:
    """The whole engine over a tape, against what a user would write, and against a bare echo."""
    results = Results("replay", json_out)
    with opened(tape) as (events, name):
        results.add({"tape": name, "limit": limit, "rounds": rounds, "refits": refits})
        with progress() as bar:
            bar.add_task("warming up", total=None)
            warm_up()
        compare(results, events, limit, refits, peer_events if peer else 0, rounds)
        if stages:
            show_stages(results, events, limit, refits)
        if echo:
            against_echo(results, events, limit, rounds, address)
    results.write()


if __name__ == "__main__":
    run(main)
