"""A run: faults one after the other while the tape is published, and the verdict at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.chaos.checks import Verdict
from tests.chaos.faults import Fault, Missed
from tests.chaos.processes import Launcher, Stuck
from tests.chaos.record import Gap
from tests.chaos.scene import Scene, lines_of

RESERVED = 60
"""Events a fault that are left for the faults themselves."""


@dataclass(slots=True)
class Outcome:
    """What a run gave.

    Parameters
    ----------
    injected
        Faults brought about: group, name and how many seconds each took with what it was held to.
    failures
        What went wrong so badly that the run couldn't be judged, or a fault be brought about.
    """

    verdict: Verdict
    injected: list[tuple[str, str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    published: int = 0
    bot_errors: int = 0
    lost_by_redis: int = 0
    starts: int = 0
    growth_bytes: int = 0

    @property
    def holds(self) -> bool:
        return self.verdict.holds and not self.failures


def run(
    faults: list[Fault],
    lines: list[bytes],
    seed: int,
    launcher: Launcher,
    progress: Callable[[Fault], None] = lambda fault: None,
    folder: Path | None = None,
) -> Outcome:
    """Publish `lines` while `faults` happen, then judge.

    `folder`, else a temporary one, gets all files of all processes.
    """
    started = perf_counter()
    with TemporaryDirectory(prefix="closeloop-chaos-") as scratch:
        scene = Scene(folder or Path(scratch), lines_of(lines), seed, launcher)
        outcome = Outcome(scene.verdict)
        starts = launcher.starts
        try:
            scene.running()
            notes = 0
            for number, fault in enumerate(faults):
                progress(fault)
                before = perf_counter()
                left = len(faults) - number
                # Faults let events flow too, some of them many.
                scene.flow(max(0, (len(lines) - scene.bot.limit) // left - RESERVED))
                try:
                    fault.inject(scene)
                except Missed as missed:
                    outcome.failures.append(f"{fault.group}, {fault.name}: {missed}")
                else:
                    took = perf_counter() - before
                    outcome.injected.append((fault.group, fault.name, took))
                scene.require_resources()
                for note in scene.verdict.notes[notes:]:
                    outcome.failures.append(f"{fault.name}: {note}")
                notes = len(scene.verdict.notes)
            scene.bot.allow(len(lines))
            for note in scene.judge().notes[notes:]:
                outcome.failures.append(f"at the end: {note}")
        except (Stuck, Gap) as stuck:
            name = faults[len(outcome.injected)].name if outcome.injected else ""
            outcome.failures.append(f"after {len(outcome.injected)} faults, at {name}: {stuck}")
        finally:
            outcome.published = scene.bot.cursor
            outcome.bot_errors = scene.bot.errors
            outcome.lost_by_redis = scene.lost
            outcome.growth_bytes = scene.growth
            outcome.starts = launcher.starts - starts
            scene.close()
    outcome.seconds = perf_counter() - started
    return outcome
