"""Fuzzing, the long form: the decoders, the core under any interleaving, and hostile events.

Three parts, each seeded. Broken bytes go through every decoder (`tests/fuzz/targets.py`); a
stateful machine drives a core that is snapshotted and restored at will beside a twin that never is
(`tests/fuzz/machine.py`); and events that aim at memory go through a core with the default
configuration (`tests/fuzz/hostile.py`). A find is anything but a decoder's own error, a case of
more than ten seconds, books that don't balance, digests that differ, or memory that still grows by
more than a twentieth when all that is bounded has reached its bound.

    python bench/fuzz.py --cases 100000 --json fuzz.json

Exit status 0 only when nothing was found.
"""

import gc
import os
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from time import perf_counter
from typing import Annotated

import typer
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from bench.machine import resident_bytes
from bench.results import JsonOption, Results, progress, run
from engine.core import Core
from engine.core_config import CoreConfig, RefitConfig
from engine.fitting import InlineFitter
from learners import RefitParams, warm_up
from streams import read_entry
from tests.fuzz.accounts import Books
from tests.fuzz.hostile import Hostile
from tests.fuzz.machine import CoreMachine
from tests.fuzz.mutation import corpus, mutated
from tests.fuzz.targets import TARGETS

Tick = Callable[[int], object]

HANG_S = 10.0
MOST_GROWTH = 0.05
STEPS = 50
"""Steps of the machine in one life of a core."""
_FINDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Part:
    """What one part did, and what it found."""

    cases: int
    figures: dict[str, object]
    finds: list[dict[str, str]]


class Hang(Exception):
    """A case took longer than `HANG_S`."""


@contextmanager
def watched() -> Iterator[None]:
    """Raise `Hang` in a case that takes too long."""
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hung(*_: object) -> None:
    raise Hang(f"a case took more than {HANG_S:g} s")


def fuzz_decoders(cases: int, chosen: int, tick: Tick) -> Part:
    """Broken bytes through every decoder, in turn."""
    rng, seeds, slowest = random.Random(chosen), corpus(), 0.0
    finds: list[dict[str, str]] = []
    done: Counter[str] = Counter()
    names = list(TARGETS)
    for number in range(cases):
        name = names[number % len(names)]
        data = mutated(rng, seeds[name])
        started = perf_counter()
        try:
            with watched():
                TARGETS[name](data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
            why = traceback.format_exception_only(error)[-1].strip()
            finds.append({"target": name, "error": why, "data": data.hex()})
        slowest = max(slowest, perf_counter() - started)
        done[name] += 1
        tick(1)
    return Part(cases, {"by_target": dict(done), "slowest_ms": 1e3 * slowest}, finds)


def fuzz_core(cases: int, chosen: int, tick: Tick) -> Part:
    """Lives of a core, each of up to `STEPS` steps; `cases` counts entries and restores."""
    done: Counter[str] = Counter()
    finds: list[dict[str, str]] = []

    class Counted(CoreMachine):
        def __init__(self) -> None:
            super().__init__()
            done["lives"] += 1

        def apply(self, data: bytes) -> None:
            with watched():
                super().apply(data)
            done["cases"] += 1
            tick(1)

        def restore(self) -> None:
            with watched():
                super().restore()
            done["restores"] += 1
            done["cases"] += 1
            tick(1)

    turn = 0
    while done["cases"] < cases and len(finds) < _FINDS_SHOWN:
        turn += 1
        chosen_settings = settings(
            max_examples=max(1, min(200, (cases - done["cases"]) // STEPS)),
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        try:
            run_state_machine_as_test(
                seed(chosen * 1_000_003 + turn)(Counted), settings=chosen_settings
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
            lines = [*traceback.format_exception_only(error), *getattr(error, "__notes__", [])]
            finds.append({"error": "".join(lines)[-4_000:]})
    return Part(done["cases"], dict(done), finds)


def endure(events: int, size: int, chosen: int, tick: Tick) -> Part:
    """Hostile events through one core, and its memory after each tenth of them."""
    # Refits run in this process here, so they are small.
    config = CoreConfig(refit=RefitConfig(window=2_000, params=RefitParams(rounds=5)))
    core, books = Core(config, InlineFitter()), Books()
    warm_up()
    finds: list[dict[str, str]] = []
    source = enumerate(Hostile(chosen, size), 1)
    tenth = max(1, events // 10)
    resident: list[int] = []
    slowest = 0.0
    for _ in range(10):
        for number, data in islice(source, tenth):
            started = perf_counter()
            with watched():
                books.enter(core.apply(read_entry(f"0-{number}", data)))
            slowest = max(slowest, perf_counter() - started)
            tick(1)
        gc.collect()
        resident.append(resident_bytes(os.getpid()))
        try:
            books.balance(core)
        except AssertionError:
            finds.append({"error": traceback.format_exc()})
    # Three tenths at a time: what a refit takes for a moment comes and goes.
    growth = sum(resident[7:]) / sum(resident[4:7]) - 1
    if growth > MOST_GROWTH:
        finds.append({"error": f"memory grew by {growth:.1%} from the middle to the end"})
    figures = {
        "resident_mb": [round(size / 2**20, 1) for size in resident],
        "growth": growth,
        "slowest_ms": 1e3 * slowest,
        "counts": dict(core.counts),
    }
    return Part(10 * tenth, figures, finds)


def main(
    cases: Annotated[
        int, typer.Option(min=100, help="Cases in all; half for the decoders, half for the core.")
    ] = 100_000,
    hostile: Annotated[int, typer.Option(min=0, help="Hostile events; 0: none.")] = 200_000,
    size: Annotated[int, typer.Option(min=4_000, help="Their size, at most, in bytes.")] = 8_000,
    chosen: Annotated[int, typer.Option("--seed", help="Of all that is drawn.")] = 1,
    json_out: JsonOption = None,
) -> None:
    """Fuzz the decoders and the core; say what was found."""
    signal.signal(signal.SIGALRM, _hung)
    results = Results("fuzz", json_out)
    parts: dict[str, Part] = {}
    with progress() as bars:

        def bar(name: str, total: int) -> Tick:
            task = bars.add_task(name, total=total)
            return lambda steps: bars.advance(task, steps)

        started = perf_counter()
        half = cases // 2
        if hostile:
            parts["hostile events"] = endure(hostile, size, chosen, bar("hostile events", hostile))
        parts["decoders"] = fuzz_decoders(cases - half, chosen, bar("decoders", cases - half))
        parts["core"] = fuzz_core(half, chosen, bar("core", half))
        seconds = perf_counter() - started
    rows = [[name, part.cases, len(part.finds)] for name, part in parts.items()]
    results.table("fuzzing", ["", "cases", "finds"], rows)
    core = parts["core"].figures
    results.note(f"the core lived {core['lives']} times and was restored {core['restores']} times")
    if hostile:
        figures = parts["hostile events"].figures
        results.note(
            f"resident memory after each tenth of the hostile events: {figures['resident_mb']} MB,"
            f" from the middle to the end {figures['growth']:+.1%}; the slowest event took"
            f" {figures['slowest_ms']:.0f} ms"
        )
    for name, part in parts.items():
        for find in part.finds[:_FINDS_SHOWN]:
            results.note(f"{name}: {find}"[:1_000])
    found = sum(len(part.finds) for part in parts.values())
    plain = {name: asdict(part) for name, part in parts.items()}
    results.add({"seed": chosen, "seconds": seconds, "parts": plain, "found": found})
    results.note(f"{'FOUND SOMETHING' if found else 'nothing found'} in {seconds:.0f} s")
    results.write()
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    run(main)
