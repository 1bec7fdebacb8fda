"""The search of `closeloop tune`: Optuna's TPE over settings of the core, trials side by side.

A trial is drawn when the one `AHEAD` before it is told, and trials are told in the order of their
numbers. So each draw knows the same trials however many run at once and whichever ends first, and a
search that was killed goes on to the end it would have had.

A trial is stopped when, block by block, its log loss is above that of the best trial known at its
draw: one-sided Wilcoxon signed-rank test over the blocks so far. It is what Optuna's
`WilcoxonPruner` does, but that one knows whichever trial happened to end first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from optuna.trial import Trial
from scipy.stats import wilcoxon

from engine.config import ConfigError
from engine.core_config import CoreConfig
from engine.evaluation.search_space import configured, with_settings
from engine.evaluation.study import Journal, TrialResult, best_of, open_journal
from engine.evaluation.trials import Part, TrialDied, crew

AHEAD = 4
"""How many trials are drawn before the first of them is told; as many as run, if those are more."""
STOP_BELOW = 0.05
"""The p-value below which a trial is stopped: not before five blocks, whatever they say."""

Progress = Callable[[int, float], None]
"""Gets how many trials are done, and the lowest log loss of them."""


def search(
    base: CoreConfig,
    base_blocks: Sequence[float],
    part: Part,
    trials: int,
    jobs: int,
    seed: int,
    study_file: Path,
    about: str,
    progress: Progress = lambda done, best: None,
) -> list[TrialResult]:
    """Run trials until `trials` are done, the first of them `base` itself.

    Parameters
    ----------
    base
        Where the search begins.
    base_blocks
        Its log loss in each block of `part`.
    part
        What trials run through.
    trials, jobs
        How many in all, those that `study_file` holds among them; how many side by side.
    seed
        Of the draws.
    study_file
        A journal; one that exists is gone on with.
    about
        A digest of all else that the results depend on.

    Raises
    ------
    ConfigError
        When the file can't be used, or a trial's process was killed.
    """
    values = configured(base)
    space = {setting.name: setting.distribution(value) for setting, value in values.items()}
    with open_journal(study_file, about, space, seed) as journal:
        journal.begin({setting.name: value for setting, value in values.items()}, base_blocks)
        _Search(journal, base, part, max(AHEAD, jobs), progress).run(trials, jobs)
        return journal.told


@dataclass(slots=True)
class _Running:
    trial: Trial
    best: list[float]  # the blocks of the best trial known at its draw
    blocks: list[float] = field(default_factory=list)


class _Search:
    """The order of things: who is drawn, who runs, who is told."""

    def __init__(
        self, journal: Journal, base: CoreConfig, part: Part, ahead: int, progress: Progress
    ) -> None:
        self._journal = journal
        self._base = base
        self._part = part
        self._ahead = ahead
        self._progress = progress
        self._told = journal.told
        self._waiting = [self._running(trial) for trial in journal.draw_again()]
        self._drawn = len(self._told) + len(self._waiting)
        self._at_work: dict[Connection, _Running] = {}
        self._finished: dict[int, _Running] = {}

    def run(self, trials: int, jobs: int) -> None:
        """Until `trials` are told."""
        self._draw_up_to(trials)
        self._say()
        if not self._waiting:
            return
        with crew(self._part, min(jobs, len(self._waiting))) as hands:
            try:
                while self._waiting or self._at_work:
                    while hands.free and self._waiting:
                        running = self._waiting.pop(0)
                        config = with_settings(self._base, running.trial.params)
                        self._at_work[hands.start(config)] = running
                    for link, loss in hands.heard(list(self._at_work)):
                        self._hear(link, loss, hands.free)
                    self._tell_in_order(trials)
            except TrialDied as error:
                raise ConfigError(
                    f"{error}: it was killed, or is out of memory; {len(self._told)} trials are "
                    "done: start again alike to go on, perhaps with fewer --jobs"
                ) from None

    def _hear(self, link: Connection, loss: float, free: list[Connection]) -> None:
        running = self._at_work[link]
        running.blocks.append(loss)
        done = self._whole(running) or hopeless(running.blocks, running.best)
        link.send(not done)
        if done:
            self._finished[running.trial.number] = self._at_work.pop(link)
            free.append(link)

    def _tell_in_order(self, trials: int) -> None:
        while (running := self._finished.pop(len(self._told), None)) is not None:
            self._journal.tell(running.trial, running.blocks, not self._whole(running))
            self._told = self._journal.told
            self._draw_up_to(trials)
            self._say()

    def _draw_up_to(self, trials: int) -> None:
        while self._drawn < min(trials, len(self._told) + self._ahead):
            self._waiting.append(self._running(self._journal.draw()))
            self._drawn += 1

    def _running(self, trial: Trial) -> _Running:
        # Those that were told at its draw, also when it is drawn again after a kill.
        known = self._told[: max(trial.number - self._ahead, 0) + 1]
        return _Running(trial, best_of(known).blocks)

    def _whole(self, running: _Running) -> bool:
        return len(running.blocks) == len(self._part.ends) - 1

    def _say(self) -> None:
        self._progress(len(self._told), best_of(self._told).log_loss)


def hopeless(blocks: Sequence[float], best: Sequence[float]) -> bool:
    """Whether a trial is behind the best one in a way that isn't chance."""
    behind = np.array(blocks) - np.array(best[: len(blocks)])
    return bool(behind.any() and wilcoxon(behind, alternative="greater").pvalue < STOP_BELOW)
