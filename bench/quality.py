"""The quality that closeloop promises, bar by bar: asked, seen, met.

    python bench/quality.py [--tapes fx,weather,sea] [--seed N] [--no-peers] [--json OUT]

The tapes are looked for in a folder `tapes` near the repository; paths do as well. On every tape:
log loss against the best expert and the running base rate, calibration, coverage. On fx: what
taking added, prequentially and over walk-forward windows. On weather and sea: every peer of
`closeloop compare`. Made here, from the seed: fx with its outcomes dealt out anew and pure noise,
on which nothing may be claimed; and SEA with its four concepts, for the closes that the engine and
River's ARF need after each abrupt drift. There the true probability of each signal is known, so the
log loss is the expected one, without the noise of the labels.

Exit status 1 when a bar isn't met. What was not run says so and counts for nothing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress, TaskID

from bench import quality_tapes as tapes_of
from bench.quality_bars import (
    Bar,
    Floats,
    calibration_bar,
    interval_bars,
    judged,
    loss_bars,
    nothing_bars,
    peer_bars,
    recovery_bars,
    trading_bars,
)
from bench.results import JsonOption, Results, progress, run
from engine.core import Core
from engine.core_config import CoreConfig
from engine.evaluation.compare import Observed, compared, observe
from engine.evaluation.evaluate import STEP_SHARE, TRAIN_SHARE
from engine.evaluation.peer_runs import PeerRun, run_peers
from engine.evaluation.peers import PEERS
from engine.evaluation.prequential import Outcomes
from engine.evaluation.walk_forward import pooled, walk_forward, windows
from engine.fitting import InlineFitter
from learners import warm_up
from streams import Tape

TRADED = "fx"
"""The tape whose trades have bars."""
WITH_PEERS = ("weather", "sea")
NOTHING_SEEDS = 3
"""Tapes of each kind on which there is nothing to know."""


class Bench:
    """One run: its seed, its limits and its progress."""

    def __init__(self, seed: int, limit: int | None, peers: bool, bar: Progress) -> None:
        self.config = CoreConfig(seed=seed)
        self.seed = seed
        self.limit = limit
        self.peers = peers
        self._bar = bar

    def observed(self, name: str, path: Path) -> Observed:
        """The engine over a tape."""
        tape = Tape(path)
        with self._task(f"{name}: the engine") as task:
            return observe(
                self.config,
                InlineFitter(),
                islice(tape, self.limit),
                lambda events: self._bar.update(
                    task, completed=events / self.limit if self.limit else tape.progress
                ),
            )

    def tape_bars(self, name: str, path: Path) -> list[Bar]:
        """All bars of a tape that is there."""
        seen = self.observed(name, path)
        outcomes = seen.run.outcomes
        bars = loss_bars(name, outcomes, below_base_rate=name == TRADED)
        bars.append(calibration_bar(name, outcomes, self.seed))
        bars += interval_bars(name, outcomes)
        bars += trading_bars(name, judged(outcomes), name == TRADED, self.seed)
        if name == TRADED:
            forward = self._walk_forward(name, path, outcomes)
            bars += trading_bars(f"{name}, walk-forward", forward, True, self.seed)
        if name in WITH_PEERS:
            bars += self._peer_bars(name, seen)
        return bars

    def nothing_bars(self, permuted: Path | None, folder: Path) -> list[Bar]:
        """Tapes on which there is nothing to know."""
        seeds = range(self.seed, self.seed + NOTHING_SEEDS)
        signals = min(tapes_of.NOISE_SIGNALS, (self.limit or 2**62) // 2)
        kinds = {"noise": [tapes_of.noise(signals, seed, folder) for seed in seeds]}
        if permuted is not None:
            kinds[f"{TRADED}, permuted"] = [
                tapes_of.permuted(permuted, self.limit, seed, folder) for seed in seeds
            ]
        bars = []
        for kind, paths in kinds.items():
            runs = [self.observed(kind, path).run.outcomes for path in paths]
            bars += nothing_bars(kind, runs, self.seed)
        return bars

    def drift_bars(self, folder: Path) -> list[Bar]:
        """SEA with its drifts."""
        name = "sea, made with drifts"
        concepts = len(tapes_of.SEA_THRESHOLDS)
        signals = min(concepts * tapes_of.SEA_CONCEPT, (self.limit or 2**62) // 2)
        drifts = [signals * i // concepts for i in range(1, concepts)]
        if not self.peers:
            return [Bar(name, "back to its level before river_arf", "not run", None)]
        path, true = tapes_of.sea(signals, self.seed, folder)
        seen = self.observed(name, path)
        arf = self._ran(name, seen, ["river_arf"])["river_arf"]
        closes = seen.run.outcomes.signal_id
        truth = np.array(true)[np.char.lstrip(closes, "s").astype(np.int64)]

        def expected(p: Floats) -> Floats:
            return np.asarray(-(truth * np.log(p) + (1.0 - truth) * np.log(1.0 - p)))

        # The ARF knows nothing until its first close.
        theirs = expected(np.nan_to_num(arf.probability, nan=0.5))
        return recovery_bars(name, drifts, expected(seen.run.outcomes.probability), theirs)

    def _walk_forward(self, name: str, path: Path, outcomes: Outcomes) -> Outcomes:
        lines = list(islice(Tape(path), self.limit))
        closes = len(outcomes)
        chosen = windows(outcomes.learned_at, int(closes * TRAIN_SHARE), int(closes * STEP_SHARE))
        total = sum(window.end - window.start for window in chosen)
        with self._task(f"{name}: walk-forward") as task:
            found = walk_forward(
                lambda: Core(self.config, InlineFitter()),
                lines,
                chosen,
                lambda done: self._bar.update(task, completed=done / total),
            )
        return pooled(found)[0]

    def _peer_bars(self, name: str, seen: Observed) -> list[Bar]:
        if not self.peers:
            return [Bar(name, "log loss below every peer's", "not run", None)]
        return peer_bars(name, compared(seen, self._ran(name, seen, list(PEERS)), self.seed))

    def _ran(self, tape: str, seen: Observed, names: list[str]) -> dict[str, PeerRun]:
        tasks = {
            name: self._bar.add_task(f"{tape}: {name}", total=len(seen.course.steps))
            for name in names
        }
        try:
            return run_peers(
                names,
                seen.course,
                self.seed,
                min(2, len(names)),
                lambda name, done: self._bar.update(tasks[name], completed=done),
            )
        finally:
            for task in tasks.values():
                self._bar.remove_task(task)

    @contextmanager
    def _task(self, what: str) -> Iterator[TaskID]:
        task = self._bar.add_task(what, total=1.0)
        try:
            yield task
        finally:
            self._bar.remove_task(task)


def main(
    tapes: Annotated[
        str | None,
        typer.Option(help="Names or paths.", metavar="A,B", show_default="fx,weather,sea"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the engine and all that is made.")] = 42,
    limit: Annotated[
        int | None, typer.Option(min=1_000, help="Events at most of each.", show_default="all")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Run the peers; most of the time is theirs.")] = True,
    made: Annotated[bool, typer.Option(help="Run the tapes made here as well.")] = True,
    json_out: JsonOption = None,
) -> None:
    """The quality that closeloop promises, bar by bar: asked, seen, met."""
    results = Results("quality", json_out)
    found = tapes_of.found(tapes)
    bars: list[Bar] = []
    with progress() as bar, TemporaryDirectory(prefix="closeloop-quality-") as folder:
        warming = bar.add_task("warming up", total=None)
        warm_up()
        bar.remove_task(warming)
        bench = Bench(seed, limit, peers, bar)
        for name, path in found.items():
            bars += bench.tape_bars(name, path)
        if made:
            bars += bench.nothing_bars(found.get(TRADED), Path(folder))
            bars += bench.drift_bars(Path(folder))
    show(results, bars)
    results.add({"seed": seed, "limit": limit, "tapes": {n: p.name for n, p in found.items()}})
    results.add({"bars": [as_json(each) for each in bars]})
    results.write()
    if any(each.met is False for each in bars):
        sys.exit(1)


def show(results: Results, bars: list[Bar]) -> None:
    """The table, and how many are met."""
    answers = {True: "yes", False: "NO", None: "–"}
    rows = [(each.tape, each.bar, each.seen, answers[each.met]) for each in bars]
    results.table("quality", ["tape", "bar", "seen", "met"], rows)
    met = sum(each.met is True for each in bars)
    missed = sum(each.met is False for each in bars)
    left = len(bars) - met - missed
    results.note(f"{met} met, {missed} not met, {left} not run or for information")


def as_json(bar: Bar) -> dict[str, object]:
    """A bar for JSON."""
    return {
        "tape": bar.tape,
        "bar": bar.bar,
        "seen": bar.seen,
        "met": bar.met,
        "figures": dict(bar.figures),
    }


if __name__ == "__main__":
    run(main)
