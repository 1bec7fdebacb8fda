"""Trials of `closeloop tune`: the first part of a tape through a core, in processes of their own.

A trial tells its loss block by block and asks each time whether to go on, so that the searching
process alone decides and alone writes. What a trial finds depends on its configuration and the tape
and on nothing else.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import log
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import numpy as np

from engine.core import Core
from engine.core_config import CoreConfig
from engine.evaluation.prequential import Outcomes
from engine.evaluation.scores import SKIPPED_SHARE, losses
from engine.fitting import InlineFitter
from engine.heap import quiet_heap
from learners import warm_up
from streams import Outcome, Tape

BLOCKS = 20
"""How often a trial is looked at: after each of so many runs of closes."""


class TrialDied(Exception):
    """A trial's process ended without an answer."""


@dataclass(frozen=True, slots=True)
class Part:
    """The first part of a tape, and the blocks in it.

    Parameters
    ----------
    tapes
        The files.
    ends
        After how many closes each block ends; the first entry is where the first one begins.
    """

    tapes: tuple[Path, ...]
    ends: tuple[int, ...]

    def losses(self, outcomes: Outcomes) -> list[float]:
        """The blocks' mean log losses, nats, of a run that went through the part, or further."""
        each = losses(outcomes.probability, outcomes.won)
        return [float(each[a:b].mean()) for a, b in zip(self.ends, self.ends[1:], strict=False)]


def first_part(tapes: Sequence[Path], closes: int) -> Part:
    """The part of a tape up to its `closes`-th close. The first tenth is learned, not counted."""
    ends = np.linspace(int(closes * SKIPPED_SHARE), closes, BLOCKS + 1).astype(int)
    return Part(tuple(tapes), tuple(ends.tolist()))


def evaluate(config: CoreConfig, part: Part, go_on: Callable[[float], bool]) -> None:
    """Run a core through `part`; `go_on` hears each block's mean log loss and may end it."""
    core = Core(config, InlineFitter())
    count, total, block = 0, 0.0, 1
    with quiet_heap():
        for line in Tape(*part.tapes):
            for output in core.apply(line.entry()):
                if not isinstance(output, Outcome):
                    continue
                count += 1
                if count > part.ends[0]:
                    total -= log(output.probability if output.won else 1.0 - output.probability)
                if count == part.ends[block]:
                    if not go_on(total / (count - part.ends[block - 1])):
                        return
                    total, block = 0.0, block + 1
                    if block == len(part.ends):
                        return


class Crew:
    """Processes that each run one trial at a time.

    Parameters
    ----------
    part
        What each trial runs through.
    jobs
        How many processes.
    """

    def __init__(self, part: Part, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._members: dict[Connection, BaseProcess] = {}
        self.free: list[Connection] = []
        """The links to those that have nothing to do."""
        for _ in range(jobs):
            link, far_end = context.Pipe()
            process = context.Process(target=_serve, args=(far_end, part), daemon=True)
            process.start()
            # Only the child holds the far end, so that either side sees the other's death.
            far_end.close()
            self._members[link] = process
            self.free.append(link)

    def start(self, config: CoreConfig) -> Connection:
        """Give a trial to one that is free; returns the link it answers on."""
        link = self.free.pop()
        link.send(config.model_dump_json())
        return link

    def heard(self, links: Sequence[Connection]) -> Iterator[tuple[Connection, float]]:
        """Wait; then each link that has a block's loss, to be answered by whether to go on.

        Raises `TrialDied`.
        """
        for link in wait(links):
            assert isinstance(link, Connection)
            try:
                yield link, cast(float, link.recv())
            except (EOFError, OSError) as error:
                pid = self._members[link].pid
                raise TrialDied(f"the process of a trial, {pid}, has ended") from error

    def close(self) -> None:
        """End all processes."""
        for link, process in self._members.items():
            process.kill()
            process.join()
            link.close()


@contextmanager
def crew(part: Part, jobs: int) -> Iterator[Crew]:
    """A crew whose processes end with the block."""
    opened = Crew(part, jobs)
    try:
        yield opened
    finally:
        opened.close()


def _serve(link: Connection, part: Part) -> None:
    """A process: one trial after the other, until the parent is gone."""
    # Ctrl-C on the terminal reaches the parent too, and that one ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()

    def go_on(loss: float) -> bool:
        link.send(loss)
        return bool(link.recv())

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            evaluate(CoreConfig.model_validate_json(link.recv()), part, go_on)
