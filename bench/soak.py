"""A long run of a live worker: does anything that it holds grow?

    python bench/soak.py [TAPE] [--events 1000000] [--json OUT]

A worker (`closeloop run`, with refits and snapshots) serves a real server of its own, while a bot
publishes the tape lap after lap, never more than 5,000 events ahead of the worker. From outside,
every 1,000 events, the bench looks at what the worker, its children and the server hold. The run is
cut into tenths, and the last is held against the second. It holds when

- resident memory of the worker, that of its children, their open files and threads, and the
  server's memory are on average at most a twentieth above the second tenth's;
- no stream is ever longer than its settings say.

In the first tenth all that is bounded fills up. In a run of a million events the core's settings
are the defaults: their windows and memories are full after 100,000. Retention is not: the default
200,000 entries a stream would be there only in the fifth tenth, so 20,000 are kept. In a shorter
run everything is smaller in proportion. Open files and threads are measured on Linux only.

Exit status 0 only when it holds.
"""

import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean
from typing import Annotated, Any

import typer

from bench.footprint import footprint
from bench.growth import BEHIND, TENTHS, Tenth, grow_live
from bench.processes import BATCH, CLOSELOOP, Worker
from bench.results import JsonOption, Results, TapeArgument, progress, run
from bench.servers import own_keys, served, server_version
from bench.tapes import endless, opened
from engine.config import SnapshotConfig
from streams import Connection, Keys, RedisTransport

MOST_GROWTH = 1.05
SLACK = 250
"""Entries beyond its bound that an output stream may have: the server trims whole nodes of it."""
FLAT = ("resident_mb", "children_mb", "files", "threads", "server_mb")
"""What must not grow."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The bounds of a run of so many events."""

    events: int

    @property
    def retain(self) -> int:
        """Entries kept of each stream."""
        return max(1_000, self.events // 50)

    @property
    def every(self) -> int:
        """Events between snapshots: as many as are kept reach as far back as what is retained."""
        return self.retain // SnapshotConfig().keep

    @property
    def batch(self) -> int:
        """Events in a commit; a snapshot can be taken after each."""
        return min(BATCH, self.every // 2)

    @property
    def longest_input(self) -> int:
        """Committed entries that the input may have.

        It is trimmed to the oldest snapshot kept, whenever one is written; events go on meanwhile.
        """
        return 2 * self.retain + BEHIND

    @property
    def longest_output(self) -> int:
        """Entries that an output stream may have."""
        return self.retain + SLACK

    def settings(self) -> dict[str, object]:
        """The worker's."""
        window = min(8_000, max(200, self.events // 125))
        return {
            "STREAM__MAX_OUTPUTS": self.retain,
            "SNAPSHOTS__EVERY": self.every,
            "SNAPSHOTS__RETAIN": self.retain,
            "CORE__LEDGER__REMEMBER": min(50_000, max(100, self.events // 20)),
            "CORE__REFIT__WINDOW": window,
            "CORE__REFIT__EVERY": window // 16,
            "CORE__REFIT__LAG": window // 20,
            "CORE__REFIT__HOLDOUT": window // 16,
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """What is held at one moment, or on average over a tenth; of the streams' lengths, the most.

    Parameters
    ----------
    resident_mb, children_mb
        Resident memory of the worker, and of its children together.
    files, threads
        Of all of them; None where that isn't known.
    server_mb
        Memory that the server says it uses.
    input, output
        Committed entries of the input, and entries of the longest output stream.
    """

    resident_mb: float
    children_mb: float
    files: float | None
    threads: float | None
    server_mb: float
    input: int
    output: int


class Watch:
    """Looks at a worker and its server from outside."""

    def __init__(self, connection: Connection, keys: Keys, worker: Worker) -> None:
        self._redis: Any = connection.redis
        self._transport = RedisTransport(connection, keys)
        self._outputs = (keys.decisions, keys.outcomes, keys.alerts, keys.dead, keys.snapshots)
        self._worker = worker
        self._seen: list[tuple[int, Sample]] = []
        self._events = 0

    def look(self, events: int) -> None:
        """Look, so many events later."""
        self._events += events
        held = footprint(self._worker.pid)
        lag = self._transport.lag()  # before the length, so that what is committed is at most that
        sample = Sample(
            held.resident / 1e6,
            held.children_resident / 1e6,
            held.files,
            held.threads,
            self._redis.info("memory")["used_memory"] / 1e6,
            self._transport.length() - lag,
            max(self._redis.xlen(key) for key in self._outputs),
        )
        self._seen.append((self._events, sample))

    def tenths(self) -> list[Sample]:
        """One sample for each tenth."""
        bounds = [self._events * number // TENTHS for number in range(TENTHS + 1)]
        return [
            _one([sample for at, sample in self._seen if after < at <= until])
            for after, until in pairwise(bounds)
        ]


def _one(samples: list[Sample]) -> Sample:
    known = samples[0].files is not None
    means = {
        name: fmean(getattr(sample, name) for sample in samples)
        for name in FLAT
        if known or name not in ("files", "threads")
    }
    longest = {name: max(getattr(s, name) for s in samples) for name in ("input", "output")}
    return Sample(**({"files": None, "threads": None} | means | longest))


def growth(tenths: list[Sample]) -> dict[str, float]:
    """The last tenth over the second, of what is known."""
    found = {}
    for name in FLAT:
        second, last = (getattr(tenths[number], name) for number in (1, -1))
        if second:
            found[name] = last / second
    return found


def broken(tenths: list[Sample], scale: Scale) -> list[str]:
    """What doesn't hold, for a person."""
    found = [
        f"{name} grew to {ratio:.3f} times the second tenth's; at most {MOST_GROWTH} is right"
        for name, ratio in growth(tenths).items()
        if ratio > MOST_GROWTH
    ]
    for name, bound in (("input", scale.longest_input), ("output", scale.longest_output)):
        longest = max(getattr(tenth, name) for tenth in tenths)
        if longest > bound:
            found.append(f"the {name} had {longest:,} entries; at most {bound:,} are right")
    return found


def show(results: Results, paces: list[Tenth], tenths: list[Sample], title: str) -> None:
    """The tenths as a table, and the last against the second."""
    columns = ["tenth", "events/s", "worker, MB", "children, MB", "files", "threads"]
    columns += ["server, MB", "input", "output"]
    rows: list[list[object]] = [
        [f"{number}.", pace.events_per_s, *asdict(tenth).values()]
        for number, (pace, tenth) in enumerate(zip(paces, tenths, strict=True), 1)
    ]
    ratios = growth(tenths)
    shown = [f"x{ratios[name]:.3f}" if name in ratios else None for name in FLAT]
    rows.append(["last over second", None, *shown, None, None])
    results.table(title, columns, rows)


def main(
    tape: TapeArgument = None,
    events: Annotated[int, typer.Option(min=1_000, help="Events in all.")] = 1_000_000,
    json_out: JsonOption = None,
) -> None:
    """Does anything grow that a live worker holds? Memory, files, threads, the server's memory."""
    results, scale = Results("soak", json_out), Scale(events)
    with (
        opened(tape) as (found, name),
        progress() as bar,
        served(None) as (connection, folder),
        own_keys(connection) as keys,
    ):
        task = bar.add_task(f"{events:,} events", total=events)
        worker = Worker(
            CLOSELOOP, connection.address, keys, folder / "worker", scale.settings(), scale.batch
        )
        watch = Watch(connection, keys, worker)

        def advance(count: int) -> None:
            watch.look(count)
            bar.advance(task, count)

        try:
            paces = grow_live(connection, keys, worker, endless(found), events, advance)
        finally:
            worker.close()
        server = server_version(connection)
    tenths = watch.tenths()
    faults = broken(tenths, scale)
    results.add({"tape": name, "events": events, "server": server, "settings": scale.settings()})
    results.add({"tenths": tenths, "last_over_second": growth(tenths)})
    results.add({"longest_input": scale.longest_input, "longest_output": scale.longest_output})
    results.add({"broken": faults, "holds": not faults})
    show(results, paces, tenths, f"worker and {server}, {events:,} events of {name}")
    for fault in faults or ["nothing grows"]:
        results.note(fault)
    results.write()
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    run(main)
