"""Decisions live: a real Redis, and a bot, a worker and a consumer in processes of their own.

    python bench/live.py [TAPE] [--refits-and-snapshots] [--json OUT]

Beside the engine's worker (`closeloop run`, default settings) stands an echo worker that only reads
batches and commits a canned decision for each signal through the same transport (`bench/echo.py`):
what it takes is the server's, the wire's and the machine's. For the throughput there is also one
as Redis' manual would have it, that reads through a consumer group. They are measured in turn in
one run, round after round; compare them with each other, not with another day's numbers.

flat out
    The bot publishes as fast as it can while the worker serves and the consumer receives. Events a
    second from the first signal published to the last decision received.
backlog
    The tape's events are in the stream before the worker starts. Events a second from the first
    batch of decisions that the consumer receives to the last.
latency
    Signals at a fixed pace, each with the closes that came before it on the tape, so there are
    about twice as many events. From when a signal was *due*, not from when the bot got round to
    it, to the consumer's receipt of its decision: a stall is counted for every signal that it
    delays. Ratios are medians over the rounds; percentiles are over all rounds together.
refits and snapshots
    With `--refits-and-snapshots`: 500 signals a second until 20 refits are done and 20 snapshots
    taken; the worst decision counts.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from time import sleep
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from numpy.typing import NDArray

from bench.cores import warm_up
from bench.processes import (
    CLOSELOOP,
    ECHO,
    GROUP_ECHO,
    Publish,
    Receive,
    Received,
    Sent,
    Servant,
    Worker,
    servant,
)
from bench.results import BenchError, JsonOption, Results, TapeArgument, progress, run
from bench.servers import own_keys, served, server_version
from bench.tapes import endless, opened, slots
from engine.core_config import RefitConfig
from streams import START, Connection, Keys, Tape

Figures = dict[str, Any]
Latencies = NDArray[np.float64]
COMMANDS = {"echo": ECHO, "group echo": GROUP_ECHO, "closeloop": CLOSELOOP}
LATENCY_OF = ("echo", "closeloop")
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9, "worst": 100.0}
WARM_UP_SIGNALS, WARM_UP_PACED, WARM_UP_RATE = 300, 300, 100.0
SETTLE_S = 1.0
"""Pause between measurements, for what one has left running (a refit, a snapshot) to end."""
STRESS_RATE = 500.0
STRESS_COUNT = 20
SNAPSHOT_EVERY = 1_000


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measurement needs."""

    connection: Connection
    address: str
    folder: Path
    bot: Servant[Sent]
    consumer: Servant[Received]


class Side:
    """A worker at its shard, with a tape of its own that never ends.

    Parameters
    ----------
    bench
        The server, the bot and the consumer.
    kind
        A key of `COMMANDS`.
    keys
        The shard's.
    tape
        Fed lap after lap.
    settings
        The worker's, as `Worker` takes them.
    """

    def __init__(
        self,
        bench: Bench,
        kind: str,
        keys: Keys,
        tape: Tape,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.kind = kind
        self.keys = keys
        self._bench = bench
        self._settings = settings
        self._slots = slots(endless(tape))
        self._after = START.encode()
        self._worker: Worker | None = None

    def start(self) -> None:
        """Start the worker."""
        bench = self._bench
        folder = bench.folder / self.keys.prefix
        command = COMMANDS[self.kind]
        self._worker = Worker(command, bench.address, self.keys, folder, self._settings)

    def warm_up(self) -> None:
        """Start the worker, and have it past whatever a worker does at first."""
        self.start()
        self.latencies(WARM_UP_SIGNALS, math.inf)
        self.latencies(WARM_UP_PACED, WARM_UP_RATE)

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()

    def latencies(self, signals: int, rate: float) -> Latencies:
        """Milliseconds from due to received, of `signals` signals at `rate` a second."""
        sent = list(islice(self._slots, signals))
        self._bench.consumer.begin(Receive(self.keys.decisions, self._after, signals))
        self._bench.bot.begin(Publish(self.keys.events, sent, rate))
        ids, times = self._received(signals)
        sleep(SETTLE_S)
        published, due = self._bench.bot.result()
        if ids != published:
            raise BenchError(f"{self.kind}: the decisions aren't those of the signals")
        late: Latencies = (np.array(times) - np.array(due)) / 1e6
        return late

    def flat_out(self, events: int) -> float:
        """Events a second over `events` or a few more, published while the worker serves."""
        self.warm_up()
        sent = self._take(events)
        self._bench.consumer.begin(Receive(self.keys.decisions, self._after, len(sent)))
        self._bench.bot.begin(Publish(self.keys.events, sent, math.inf))
        _, times = self._received(len(sent))
        _, due = self._bench.bot.result()
        return sum(map(len, sent)) / (times[-1] - due[0]) * 1e9

    def backlog(self, events: int) -> float:
        """Events a second over `events` or a few more that are there before the worker starts."""
        sent = self._take(events)
        self._bench.bot.begin(Publish(self.keys.events, sent, math.inf))
        ids, _ = self._bench.bot.result()
        self._bench.consumer.begin(Receive(self.keys.decisions, self._after, len(ids)))
        self.start()
        _, times = self._received(len(ids))
        first = times.count(times[0])
        passed = sum(map(len, sent[first:]))
        return passed / (times[-1] - times[0]) * 1e9 if passed else math.nan

    def _take(self, events: int) -> list[list[bytes]]:
        """The next of the tape: `events` or a few more, by signal."""
        sent: list[list[bytes]] = []
        count = 0
        while count < events:
            sent.append(next(self._slots))
            count += len(sent[-1])
        return sent

    def _received(self, count: int) -> Received:
        assert self._worker is not None
        while not self._bench.consumer.ready(1.0):
            self._worker.check()
        ids, times = self._bench.consumer.result()
        if len(ids) != count:
            raise self._worker.failed(f"({self.kind}) made {len(ids)} decisions of {count}")
        self._after = ids[-1]
        return ids, times


@contextmanager
def all_sides(
    bench: Bench,
    tape: Tape,
    settings: Mapping[str, object] | None = None,
    kinds: Sequence[str] = LATENCY_OF,
) -> Iterator[dict[str, Side]]:
    """A worker of each kind, none started yet."""
    with ExitStack() as ends:
        sides: dict[str, Side] = {}
        for kind in kinds:
            keys = ends.enter_context(own_keys(bench.connection))
            side = Side(bench, kind, keys, tape, settings if kind == "closeloop" else None)
            sides[kind] = side
            ends.callback(side.close)
        yield sides


def measure_throughput(
    bench: Bench, tape: Tape, events: int, rounds: int, measure: Callable[[Side, int], float]
) -> Figures:
    """Events a second by `measure`, of each worker, and ours as a part of the echo's."""
    rates: dict[str, list[float]] = {kind: [] for kind in COMMANDS}
    with progress() as bar:
        task = bar.add_task(measure.__name__, total=rounds * len(COMMANDS))
        for number in range(rounds):
            with all_sides(bench, tape, kinds=list(COMMANDS)) as sides:
                for kind in list(sides)[:: -1 if number % 2 else 1]:
                    rates[kind].append(measure(sides[kind], events))
                    sides[kind].close()
                    bar.advance(task)
    return {
        "events": events,
        **{
            kind: {
                "events_per_s": median(found),
                "events_per_s_rounds": found,
                "closeloops_part_of_it": median(
                    a / b for a, b in zip(rates["closeloop"], found, strict=True)
                ),
            }
            for kind, found in rates.items()
        },
    }


def measure_latency(
    bench: Bench, tape: Tape, rates: list[float], seconds: float, rounds: int
) -> list[Figures]:
    """Latencies of both workers at each rate."""
    found: dict[tuple[float, str], list[Latencies]] = {}
    with all_sides(bench, tape) as sides, progress() as bar:
        task = bar.add_task("warming up", total=rounds * len(rates) * len(sides) * seconds)
        for side in sides.values():
            side.warm_up()
        for number in range(rounds):
            for rate in rates:
                for kind in list(sides)[:: -1 if number % 2 else 1]:
                    bar.update(task, description=f"{kind} at {rate:,.0f} signals/s")
                    signals = max(1, int(rate * seconds))
                    taken = sides[kind].latencies(signals, rate)
                    found.setdefault((rate, kind), []).append(taken)
                    bar.advance(task, seconds)
    return [
        {"signals_per_s": rate, **_compared({kind: found[rate, kind] for kind in LATENCY_OF})}
        for rate in rates
    ]


def measure_stress(bench: Bench, tape: Tape, lag: int | None, rounds: int) -> Figures:
    """The worst decisions of both workers while ours refits and takes snapshots."""
    refit = RefitConfig() if lag is None else RefitConfig(lag=lag)
    settings = {"SNAPSHOTS__EVERY": SNAPSHOT_EVERY, "CORE__REFIT__LAG": refit.lag}
    # A close a signal, two events: snapshots come at least as often as refits.
    signals = math.ceil(STRESS_COUNT / rounds) * refit.every
    found: dict[str, list[Latencies]] = {kind: [] for kind in LATENCY_OF}
    refits = snapshots = 0
    with all_sides(bench, tape, settings) as sides, progress() as bar:
        task = bar.add_task("warming up", total=rounds * len(sides))
        for side in sides.values():
            side.warm_up()
        ours = sides["closeloop"].keys
        for number in range(rounds):
            for kind in list(sides)[:: -1 if number % 2 else 1]:
                bar.update(task, description=f"{kind}, refits and snapshots")
                before = _under_way(bench.connection, ours)
                found[kind].append(sides[kind].latencies(signals, STRESS_RATE))
                after = _under_way(bench.connection, ours)
                if kind == "closeloop":
                    refits += after[0] - before[0]
                    snapshots += after[1] - before[1]
                bar.advance(task)
    compared = _compared(found)
    return {
        "signals_per_s": STRESS_RATE,
        "refits": refits,
        "snapshots": snapshots,
        "refit_lag": refit.lag,
        **compared,
        "worst_over_the_echo_ms": compared["closeloop"]["worst"] - compared["echo"]["worst"],
    }


def _under_way(connection: Connection, keys: Keys) -> tuple[int, int]:
    """Refits done and snapshots announced so far."""
    redis: Any = connection.redis
    codes = [orjson.loads(fields[b"e"])["code"] for _, fields in redis.xrange(keys.alerts)]
    refits = codes.count("refit_installed") + codes.count("refit_rejected")
    return refits, redis.xlen(keys.snapshots)


def _compared(found: Mapping[str, list[Latencies]]) -> Figures:
    """Percentiles in milliseconds over all rounds, and ours over the echo's, round by round."""
    figures: Figures = {}
    for kind, rounds in found.items():
        pooled = np.concatenate(rounds)
        values = np.percentile(pooled, list(PERCENTILES.values())).tolist()
        figures[kind] = {"signals": len(pooled), **dict(zip(PERCENTILES, values, strict=True))}
    for name in ("p50", "p99"):
        pairs = zip(found["closeloop"], found["echo"], strict=True)
        q = PERCENTILES[name]
        ratios = [float(np.percentile(a, q) / np.percentile(b, q)) for a, b in pairs]
        figures[f"{name}_ratio"] = median(ratios)
    return figures


def show_latency(results: Results, title: str, measured: list[Figures]) -> None:
    """Latencies as a table."""
    rows: list[list[object]] = []
    for figures in measured:
        for kind in LATENCY_OF:
            one = figures[kind]
            name = f"{kind} at {figures['signals_per_s']:,.0f}/s"
            rows.append([name, one["signals"], *(one[percentile] for percentile in PERCENTILES)])
        ratios = [f"x{figures[f'{name}_ratio']:.2f}" for name in ("p50", "p99")]
        rows.append(["  closeloop over echo", None, *ratios, None, None])
    columns = ["", "signals", "p50, ms", "p99, ms", "p99.9, ms", "worst, ms"]
    results.table(title, columns, rows)


def main(
    tape: TapeArgument = None,
    address: Annotated[
        str | None, typer.Option(help="redis://… or unix://….", show_default="a server of its own")
    ] = None,
    events: Annotated[int, typer.Option(min=0, help="Events flat out; 0: skip.")] = 50_000,
    rates: Annotated[str, typer.Option(help="Signals a second, by commas.")] = "100,500,2000",
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each latency measurement.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 3,
    refits_and_snapshots: Annotated[
        bool, typer.Option("--refits-and-snapshots", help="Also the worst decision during them.")
    ] = False,
    lag: Annotated[
        int | None,
        typer.Option(min=1, help="Closes that a refit has, in that run.", show_default="default"),
    ] = None,
    json_out: JsonOption = None,
) -> None:
    """Decisions live: throughput and latency on a real Redis, beside an echo worker."""
    results = Results("live", json_out)
    paces = [float(rate) for rate in rates.split(",") if rate]
    with ExitStack() as stack:
        bar = stack.enter_context(progress())
        bar.add_task("warming up", total=None)
        events_tape, name = stack.enter_context(opened(tape))
        connection, folder = stack.enter_context(served(address))
        where = address or connection.address
        bot = stack.enter_context(servant(where, "bot"))
        consumer = stack.enter_context(servant(where, "consumer"))
        warm_up()
        bar.stop()
        bench = Bench(connection, where, folder, bot, consumer)
        server = server_version(connection)
        results.add({"tape": name, "server": server, "rounds": rounds, "seconds": seconds})
        if events:
            rows: list[list[object]] = []
            for measure in (Side.flat_out, Side.backlog):
                flat = measure_throughput(bench, events_tape, events, rounds, measure)
                results.add({measure.__name__: flat})
                name = measure.__name__.replace("_", " ")
                for kind in COMMANDS:
                    one = flat[kind]
                    share = f"{one['closeloops_part_of_it']:.3f}"
                    rows.append([f"{name}: {kind}", one["events_per_s"], share])
            results.table(f"throughput, {server}", ["", "events/s", "closeloop's part"], rows)
        if paces:
            measured = measure_latency(bench, events_tape, paces, seconds, rounds)
            results.add({"latency_ms": measured})
            show_latency(results, "from due to received", measured)
        if refits_and_snapshots:
            stress = measure_stress(bench, events_tape, lag, rounds)
            results.add({"refits_and_snapshots": stress})
            title = f"during {stress['refits']} refits and {stress['snapshots']} snapshots"
            show_latency(results, title, [stress])
            results.note(f"worst over the echo's: {stress['worst_over_the_echo_ms']:.1f} ms")
    results.write()


if __name__ == "__main__":
    run(main)
