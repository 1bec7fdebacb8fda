"""Faults by the hundred against the real worker and a real Redis, and what they left of the truth.

    python bench/chaos.py --seed 1 --faults 300 --tape fx.jsonl.gz --events 20000 --json chaos.json

A bot publishes the tape while a seeded schedule of faults kills, pauses, cuts and corrupts what it
can reach: worker, server, network, disk. `docs/faults.md` says what is done and what is checked.
Exit status 0 only when every check holds and every fault was brought about.
"""

import sys
from collections import defaultdict
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1]))

import typer

from bench.results import JsonOption, Results, progress
from bench.tapes import opened
from tests.chaos.checks import CHECKS
from tests.chaos.processes import Launcher
from tests.chaos.run import run
from tests.chaos.schedule import schedule


def main(
    seed: Annotated[int, typer.Option(help="Of the schedule, the instants and the bot.")] = 1,
    faults: Annotated[int, typer.Option(min=1, help="How many.")] = 300,
    tape: Annotated[
        Path | None,
        typer.Option(help="Events as .jsonl, .gz or .zst.", show_default="a generated tape"),
    ] = None,
    events: Annotated[int, typer.Option(min=100, help="The first N of the tape.")] = 20_000,
    only: Annotated[
        str, typer.Option(help="Draw only faults whose group or name holds this.")
    ] = "",
    json_out: JsonOption = None,
) -> None:
    """Inject faults, check what is left, and say how it went."""
    results = Results("chaos", json_out)
    planned = schedule(faults, seed, only)
    with opened(tape, signals=events // 2) as (lines, name):
        published = [line.data for line in islice(lines, events)]
    with progress() as bar, closing(Launcher()) as launcher:
        task = bar.add_task("injecting faults", total=len(planned))
        outcome = run(planned, published, seed, launcher, lambda _: bar.advance(task))

    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for group, kind, took in outcome.injected:
        seconds[group, kind].append(took)
    kinds = sorted(seconds.items())
    results.table(
        f"{len(outcome.injected)} faults, seed {seed}, tape {name}",
        ["where", "what", "count", "median s", "worst s"],
        [[*kind, len(took), median(took), max(took)] for kind, took in kinds],
    )
    verdict = outcome.verdict
    checks = {check: verdict.wrong[check] for check in CHECKS} | dict(verdict.wrong)
    results.table("wrong", ["", "count"], [[check, count] for check, count in checks.items()])
    figures = {
        "seed": seed,
        "tape": name,
        "faults": len(outcome.injected),
        "by_kind": {f"{group}: {kind}": len(took) for (group, kind), took in kinds},
        "entries": verdict.entries,
        "decisions": verdict.decisions,
        "outcomes": verdict.outcomes,
        "dead": verdict.dead,
        "alerts": verdict.alerts,
        "worker_starts": outcome.starts,
        "bot_errors": outcome.bot_errors,
        "entries_lost_by_redis": outcome.lost_by_redis,
        "worker_memory_growth_mb": outcome.growth_bytes / 1e6,
        "seconds": outcome.seconds,
    }
    plain = [[key, value] for key, value in figures.items() if not isinstance(value, dict)]
    results.table("figures", ["", "value"], plain)
    for failure in outcome.failures:
        results.note(failure)
    holds = outcome.holds and len(outcome.injected) == faults
    results.note("everything holds" if holds else "SOMETHING DOES NOT HOLD")
    results.add(figures | {"wrong": checks, "failures": outcome.failures, "holds": holds})
    results.write()
    raise typer.Exit(0 if holds else 1)


if __name__ == "__main__":
    typer.run(main)
