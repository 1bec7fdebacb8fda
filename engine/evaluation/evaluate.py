"""`closeloop evaluate`: what the engine's decisions on a tape were worth, and how sure that is.

One prequential pass of the core that serves live, then walk-forward windows of fresh ones; scores
with block-bootstrap intervals, slices corrected for their number, and what may be said when only
taken trades have closes. As in `replay`, the first tenth of the closes isn't judged.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from engine.config import ConfigError
from engine.core import Core
from engine.evaluation import scores
from engine.evaluation.bootstrap import RESAMPLES, SEED, Estimate, mean
from engine.evaluation.judgement import Judgement, baseline_of, block_of, judge
from engine.evaluation.off_policy import Censored, censored
from engine.evaluation.prequential import Outcomes, Run, group_coverage, run, running_base_rate
from engine.evaluation.slices import Slice, sliced
from engine.evaluation.walk_forward import Judged, pooled, walk_forward, windows
from engine.report import SKIPPED_SHARE
from streams.errors import TapeError
from streams.tape import Tape

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TRAIN_SHARE, STEP_SHARE = 0.25, 0.125
"""What a window is trained and judged on, of all closes, when not given: six windows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to evaluate.

    Parameters
    ----------
    walk_forward
        Whether to do that as well; it takes some twice as long as the prequential pass.
    train, step, embargo
        Closes of a window; see `engine.evaluation.walk_forward`. None: by the tape's length.
    resamples, seed
        Of every bootstrap.
    limit
        Lines of the tape to use; None: all.
    default_baseline
        What a signal that names no baseline counts as, on a tape where others do.
    """

    walk_forward: bool = True
    train: int | None = None
    step: int | None = None
    embargo: int = 0
    resamples: int = RESAMPLES
    seed: int = SEED
    limit: int | None = None
    default_baseline: str = "take"


@dataclass(frozen=True, slots=True, eq=False)
class Judgements:
    """Some closes, judged.

    Parameters
    ----------
    outcomes, base_rate, baseline
        The closes, the running base rate beside each, and which the bot's own rules would have
        taken (None: it names no baseline).
    block
        Mean length of the bootstrap's blocks, closes.
    scores
        Every score with its interval.
    """

    outcomes: Outcomes
    base_rate: Floats
    baseline: Bools | None
    block: float
    scores: Judgement


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All that was found.

    Parameters
    ----------
    run
        The prequential pass.
    warm_up
        Its first closes, not judged.
    prequential, forward
        The judged closes of the pass, and of all windows together; None without walk-forward.
    windows
        One by one.
    slices
        Of the prequential pass.
    calibrated_ece
        The ECE that a perfectly calibrated forecast stays below 19 times in 20.
    probability_held
        Share of the groups of closes of like probability whose share of wins lies within their mean
        published interval; None without intervals.
    return_coverage
        Share of returns inside their published 90 % interval, likewise.
    censored
        Estimates from executed trades alone.
    plan
        With the windows' sizes filled in.
    """

    run: Run
    warm_up: int
    prequential: Judgements
    forward: Judgements | None
    windows: list[Judged]
    slices: list[Slice]
    calibrated_ece: float | None
    probability_held: float | None
    return_coverage: Estimate
    censored: Censored
    plan: Plan


Progress = Callable[[str, float], None]
"""Told the name of a stage and how much of it is done, from 0 to 1."""


def evaluate(
    new_core: Callable[[], Core],
    tape: Tape,
    plan: Plan,
    progress: Progress = lambda stage, done: None,
) -> Evaluation:
    """Evaluate the engine on a tape.

    Parameters
    ----------
    new_core
        Makes an empty core.
    tape
        It is iterated once, and again for each window.
    plan
        How.
    progress
        Told how far it is.

    Raises `TapeError` when the tape has no close that belongs to a signal, `ConfigError` when it
    has too few for the windows that were asked for.
    """

    def tell(events: int) -> None:
        progress("prequential", events / plan.limit if plan.limit else tape.progress)

    passed = run(new_core(), islice(tape, plan.limit), tell)
    closes = len(passed.outcomes)
    if not closes:
        raise TapeError(_nothing(passed))
    warm_up = int(closes * SKIPPED_SHARE)
    kept = slice(warm_up, None)
    base_rate = running_base_rate(passed.outcomes)
    # Before the bootstrap, so that a window too long is told at once.
    plan, judged = _forward(new_core, tape, passed, plan, progress)
    progress("bootstrap", 0.0)
    prequential = _judge(passed.outcomes.select(kept), base_rate[kept], plan)
    progress("bootstrap", 0.4)
    forward = _judge(*pooled(judged), plan) if any(len(w.outcomes) for w in judged) else None
    progress("bootstrap", 0.8)
    outcomes = prequential.outcomes
    looks = sliced(
        outcomes,
        prequential.base_rate,
        prequential.baseline,
        prequential.block,
        plan.resamples,
        plan.seed,
    )
    progress("bootstrap", 0.9)
    offered = passed.decisions.select(slice(int(len(passed.decisions) * SKIPPED_SHARE), None))
    return Evaluation(
        run=passed,
        warm_up=warm_up,
        prequential=prequential,
        forward=forward,
        windows=judged,
        slices=looks,
        calibrated_ece=scores.calibrated_ece(outcomes.probability, seed=plan.seed),
        probability_held=group_coverage(passed.outcomes, warm_up)[0],
        return_coverage=_covered(outcomes, plan),
        censored=censored(offered, passed.outcomes, plan.resamples, plan.seed),
        plan=plan,
    )


def _judge(outcomes: Outcomes, base_rate: Floats, plan: Plan) -> Judgements:
    baseline = baseline_of(outcomes, plan.default_baseline)
    block = block_of(outcomes, base_rate)
    found = judge(outcomes, base_rate, baseline, block, plan.resamples, plan.seed)
    return Judgements(outcomes, base_rate, baseline, block, found)


def _forward(
    new_core: Callable[[], Core],
    tape: Tape,
    passed: Run,
    plan: Plan,
    progress: Progress,
) -> tuple[Plan, list[Judged]]:
    """The plan with its window sizes, and the windows judged."""
    if not plan.walk_forward:
        return plan, []
    learned_at = passed.outcomes.learned_at
    closes = len(learned_at)
    train = int(closes * TRAIN_SHARE) if plan.train is None else plan.train
    step = max(int(closes * STEP_SHARE), 1) if plan.step is None else plan.step
    plan = replace(plan, train=train, step=step)
    try:
        chosen = windows(learned_at, train, step, plan.embargo)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    total = sum(window.end - window.start for window in chosen)
    judged = walk_forward(new_core, tape, chosen, lambda at: progress("walk-forward", at / total))
    return plan, judged


def _covered(outcomes: Outcomes, plan: Plan) -> Estimate:
    low, high = outcomes.return_low, outcomes.return_high
    published = np.isfinite(low) & np.isfinite(high)
    inside = (low <= outcomes.return_pct) & (outcomes.return_pct <= high)
    return mean(inside[published].astype(np.float64), plan.resamples, plan.seed)


def _nothing(passed: Run) -> str:
    counts = passed.core.counts
    return (
        f"no close to judge: the tape has {counts['signals']:,} signals and "
        f"{counts['closes']:,} closes, none of a signal before it, and {counts['dead']:,} lines "
        "that are no event; evaluate a tape with closes, or see `closeloop audit`"
    )
