"""`closeloop tune`: settings searched on the first part of a tape, judged on the untouched last.

The core is causal, so one run through the whole tape holds its run through the first part: both
the settings given and the best found are judged by going through all of it, and what is told of
the last part is what a user would have got who had tuned at the border and gone on.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.core import Core
from engine.core_config import CoreConfig
from engine.evaluation import bootstrap
from engine.evaluation.prequential import Outcomes, run
from engine.evaluation.scores import losses
from engine.evaluation.search import search
from engine.evaluation.search_space import SPACE, with_settings
from engine.evaluation.study import TrialResult, best_of
from engine.evaluation.trials import first_part
from engine.fitting import InlineFitter
from streams import Tape, TapeError

FEWEST_CLOSES = 500
"""A tape with fewer can't be tuned on."""
FEWEST_JUDGED = 100
"""Fewer in the last part judge nothing."""

Progress = Callable[[str, float], None]
"""Gets what is being done, and how much of it is done, from 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """What a search came to.

    Parameters
    ----------
    given, tuned
        The configuration that the search began with, and the best trial's.
    trials
        All of them; the first is `given`.
    best
        The trial that is `tuned`.
    closes
        Of the first part, which trials were compared on.
    given_outcomes, tuned_outcomes
        Of the last part: the same closes, opened after the first part's end.
    difference
        The mean of tuned minus given log loss over them, nats.
    """

    given: CoreConfig
    tuned: CoreConfig
    trials: list[TrialResult]
    best: TrialResult
    closes: int
    given_outcomes: Outcomes
    tuned_outcomes: Outcomes
    difference: bootstrap.Estimate

    @property
    def helped(self) -> bool:
        """Whether the tuned settings were better on the last part beyond chance."""
        return self.difference.high is not None and self.difference.high < 0.0

    @property
    def advised(self) -> CoreConfig:
        """The configuration to run with."""
        return self.tuned if self.helped else self.given


def tune(
    given: CoreConfig,
    tapes: Sequence[Path],
    trials: int,
    jobs: int,
    study_file: Path,
    holdout: float = 0.3,
    seed: int = 1,
    progress: Progress = lambda what, done: None,
) -> Tuning:
    """Search on the first part of the tapes and judge on the last.

    Parameters
    ----------
    given
        Where the search begins.
    trials, jobs
        How many in all, with the one that is `given`; how many side by side.
    study_file
        The trials' journal; one of the same search is gone on with.
    holdout
        The share of closes in the last part.
    seed
        Of the search. The figures depend on it, on `given` and on the tapes alone.

    Raises
    ------
    TapeError
        When the tapes hold too little.
    ConfigError
        When the study file can't be used.
    """
    judge = _Judge(tapes, progress)
    before = judge(given, "the settings given")
    _require_enough(before.outcomes, tapes)
    closes = int(len(before.outcomes) * (1.0 - holdout))
    judged = last_part(before.outcomes, closes)
    _require_both(before.outcomes, closes, judged, holdout)
    part = first_part(tapes, closes)
    results = search(
        given,
        part.losses(before.outcomes),
        part,
        trials,
        jobs,
        seed,
        study_file,
        _about(given, before.digest, closes, seed),
        lambda done, best: progress(f"{done} of {trials} trials, best {best:.5f}", done / trials),
    )
    best = best_of(results)
    tuned = with_settings(given, best.settings) if best.number else given
    after = judge(tuned, "the best trial") if best.number else before
    one, other = before.outcomes.select(judged), after.outcomes.select(judged)
    behind = losses(other.probability, other.won) - losses(one.probability, one.won)
    return Tuning(given, tuned, results, best, closes, one, other, bootstrap.mean(behind))


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    outcomes: Outcomes
    digest: str  # over all decisions


class _Judge:
    """Runs a configuration through the whole tape."""

    def __init__(self, tapes: Sequence[Path], progress: Progress) -> None:
        self._tapes = tapes
        self._progress = progress

    def __call__(self, config: CoreConfig, what: str) -> _Judged:
        tape = Tape(*self._tapes)
        done = run(
            Core(config, InlineFitter()),
            tape,
            lambda _: self._progress(f"judging {what}", tape.progress),
        )
        return _Judged(done.outcomes, done.core.decisions_digest)


def last_part(outcomes: Outcomes, closes: int) -> NDArray[np.int64]:
    """The closes after the first `closes`, purged of trades that were open at the border."""
    border = outcomes.closed[:closes].max()
    last = np.arange(closes, len(outcomes))
    return np.asarray(last[outcomes.opened[last] >= border])


def _require_enough(outcomes: Outcomes, tapes: Sequence[Path]) -> None:
    where, count = ", ".join(map(str, tapes)), len(outcomes)
    if count < FEWEST_CLOSES:
        raise TapeError(
            f"{where}: {count} closes of signals in it, at least {FEWEST_CLOSES} are needed to "
            "tune; name more tapes, or run with the defaults until there are more"
        )


def _require_both(
    outcomes: Outcomes, closes: int, judged: NDArray[np.int64], holdout: float
) -> None:
    if len(judged) < FEWEST_JUDGED:
        raise TapeError(
            f"--holdout {holdout:g} leaves {len(judged)} closes to judge by that were opened after "
            f"the first part's end, at least {FEWEST_JUDGED} are needed; give a larger one"
        )
    parts = {"first": outcomes.won[:closes], "last": outcomes.won[judged]}
    for name, won in parts.items():
        if won.all() or not won.any():
            what = "a win" if won.all() else "a loss"
            raise TapeError(
                f"each of the {len(won)} closes in the {name} part is {what}: there is nothing to "
                "tell apart; check return_pct, or give another --holdout"
            )


def _about(given: CoreConfig, decisions: str, closes: int, seed: int) -> str:
    """A digest of all that a study's trials depend on; the decisions stand for the tape."""
    facts = [given.digest, decisions, closes, seed, [repr(setting) for setting in SPACE]]
    return hashlib.sha256(orjson.dumps(facts)).hexdigest()
