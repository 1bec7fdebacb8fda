"""The journal of a search: an Optuna study in one file, of which this process is the one writer.

A trial's settings depend on the trials told and drawn before it, on the seed and on its number,
and on nothing that a killed run could lose.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from engine.config import ConfigError
from engine.evaluation.search_space import Number

RANDOM_TRIALS = 8
"""Drawn before TPE has a model."""

_BEGINNING = b'{"op_code"'
_BLOCKS = "blocks"
_ABOUT = "about"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial that is told.

    Parameters
    ----------
    number
        0 is the configuration that the search began with.
    settings
        By their dotted names under ``core``.
    blocks
        The mean log loss of each block that it ran, nats.
    stopped
        Whether those aren't all blocks.
    """

    number: int
    settings: dict[str, Number]
    blocks: list[float]
    stopped: bool

    @property
    def log_loss(self) -> float:
        """The mean over the blocks that it ran."""
        return float(np.mean(self.blocks))


def best_of(trials: Sequence[TrialResult]) -> TrialResult:
    """The lowest log loss among the trials that ran to their end; of equals the first."""
    return min((t for t in trials if not t.stopped), key=lambda t: (t.log_loss, t.number))


class Journal:
    """The trials of one search. Made by `open_journal`.

    Parameters
    ----------
    study
        Of Optuna's, on a storage that nobody else writes.
    space
        The settings that are searched.
    seed
        Of the draws.
    """

    def __init__(
        self, study: optuna.Study, space: Mapping[str, BaseDistribution], seed: int
    ) -> None:
        self._study = study
        self._space = dict(space)
        self._seed = seed

    @property
    def told(self) -> list[TrialResult]:
        """The trials that are done, by their number."""
        return [_result(t) for t in self._of(TrialState.COMPLETE, TrialState.PRUNED)]

    def begin(self, settings: dict[str, Number], blocks: Sequence[float]) -> None:
        """Tell the first trial, which is known before the search; once only."""
        if not self._study.trials:
            self._study.add_trial(
                create_trial(
                    value=float(np.mean(blocks)),
                    params=settings,
                    distributions=self._space,
                    user_attrs={_BLOCKS: list(blocks)},
                )
            )

    def draw(self) -> Trial:
        """The next trial."""
        self._study.sampler = self._sampler(len(self._study.trials))
        return self._study.ask(self._space)

    def draw_again(self) -> list[Trial]:
        """Those that were drawn before, and nobody saw their end."""
        found = []
        for trial in self._of(TrialState.RUNNING):
            self._study.sampler = self._sampler(trial.number)
            again = Trial(self._study, trial._trial_id)
            for name, distribution in self._space.items():
                again._suggest(name, distribution)  # what was drawn stays as it was
            found.append(again)
        return found

    def tell(self, trial: Trial, blocks: Sequence[float], stopped: bool) -> None:
        """A trial is done."""
        trial.set_user_attr(_BLOCKS, list(blocks))
        running = np.cumsum(blocks) / np.arange(1, len(blocks) + 1)
        for step, loss in enumerate(running.tolist(), 1):
            trial.report(loss, step)
        if stopped:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, float(np.mean(blocks)))

    def _of(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _sampler(self, number: int) -> TPESampler:
        own = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        return TPESampler(seed=own, n_startup_trials=RANDOM_TRIALS, constant_liar=True)


def _result(trial: FrozenTrial) -> TrialResult:
    stopped = trial.state == TrialState.PRUNED
    blocks = cast(list[float], trial.user_attrs[_BLOCKS])
    return TrialResult(trial.number, dict(trial.params), blocks, stopped)


@contextmanager
def open_journal(
    path: Path, about: str, space: Mapping[str, BaseDistribution], seed: int
) -> Iterator[Journal]:
    """The search kept in `path`, or a new one there; nobody else may write it meanwhile.

    `about` is a digest of all that the trials depend on. Raises `ConfigError` when the file holds
    another search or something else, or when another process is at work on it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _owned(path):
        try:
            storage = JournalStorage(JournalFileBackend(str(path), cast(None, _NoLock())))
            # The first whole line is the study's own.
            open_study = optuna.load_study if path.stat().st_size else optuna.create_study
            study = open_study(storage=storage, study_name="closeloop")
        except (ValueError, KeyError, TypeError) as error:
            raise _not_ours(path) from error
        was = study.user_attrs.get(_ABOUT)
        if was is None:
            study.set_user_attr(_ABOUT, about)
        elif was != about:
            raise ConfigError(
                f"the search in {path} was made with another tape, configuration, --holdout or "
                "--seed, or another closeloop; give those again, name another file with --study, "
                "or remove it"
            )
        yield Journal(study, space, seed)


@contextmanager
def _owned(path: Path) -> Iterator[None]:
    """The file to ourselves, without the half line that a killed run may have left."""
    try:
        file = path.open("a+b")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}; name another file") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another `closeloop tune` is at work on {path}; wait for it, or name another "
                "file with --study"
            ) from None
        file.seek(0)
        data = file.read()
        if data and not data.startswith(_BEGINNING):
            raise _not_ours(path)
        os.truncate(path, data.rfind(b"\n") + 1)
        yield


def _not_ours(path: Path) -> ConfigError:
    return ConfigError(f"{path} holds no search that can be read; name another file with --study")


class _NoLock:
    """The journal's lock: none, as the file is owned whole. Optuna's own outlives a killed run."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
