"""`closeloop compare`: the experts, their mixture and other people's learners on the same closes.

The rows: of the closes past the first tenth, those on which everybody spoke who speaks on most of
them. Whoever speaks more rarely (an expert of one symbol, say) is judged on those rows where it
spoke, and held against the mixture on the same. Peers know the label of a close exactly when the
engine does (`peer_runs`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.champions import Fitter
from engine.core import Core
from engine.core_config import CoreConfig
from engine.evaluation import bootstrap
from engine.evaluation.bootstrap import Estimate
from engine.evaluation.peer_runs import Course, PeerRun, course
from engine.evaluation.prequential import Run, run
from engine.evaluation.scores import (
    accuracy,
    auc,
    brier,
    calibrated_ece,
    ece,
    log_loss,
    losses,
)
from engine.report import SKIPPED_SHARE
from streams import Entry, Output, Signal
from streams.tape import Line

MIXTURE = "mixture"
"""The published probability, in tables and JSON."""
MOSTLY = 0.5
"""Who speaks on this share of the closes must have spoken on every row."""

NOTHING = Estimate(None)

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What the engine did on a tape, and what its peers need to do the same.

    Parameters
    ----------
    run
        Of the whole tape.
    known
        Which of its closes peers can learn: those whose signal came first, shape (closes,).
    course
        Over those that are known.
    events, seconds
        How many lines it was, and how long the engine took, decoding included.
    """

    run: Run
    known: Bools
    course: Course
    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table; what isn't known is None.

    Parameters
    ----------
    kind
        engine (the mixture), expert or peer.
    spoke
        On which share of the closes past the first tenth it gave a probability.
    rows
        On how many it is judged.
    difference
        Its log loss minus the mixture's on those rows, nats a close, with the 95 % interval.
    us_per_event
        Microseconds an event: of the whole engine, or of the peer's own calls.
    why_not
        Why there is nothing to judge.
    """

    name: str
    kind: str
    spoke: float
    rows: int
    log_loss: float | None = None
    difference: Estimate = NOTHING
    brier: float | None = None
    auc: float | None = None
    ece: float | None = None
    accuracy: float | None = None
    us_per_event: float | None = None
    why_not: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Everybody on the same closes.

    Parameters
    ----------
    contenders
        The best first, those without a log loss last.
    closes
        Of the tape that peers could learn.
    rows
        How many of them are judged.
    ece_by_chance
        What the ECE of the mixture would be, 19 times in 20, if it were perfectly calibrated.
    above
        Each contender's log loss minus the mixture's, a row each, shape (rows,); NaN where it did
        not speak.
    """

    contenders: list[Contender]
    closes: int
    rows: int
    ece_by_chance: float | None
    above: dict[str, Floats]

    def __getitem__(self, name: str) -> Contender:
        return next(each for each in self.contenders if each.name == name)

    def of(self, kind: str) -> list[Contender]:
        """Those of a kind that have a log loss, the best first."""
        return [each for each in self.contenders if each.kind == kind and each.log_loss is not None]


class _RowKeepingCore(Core):
    """A core that also keeps the row of each signal that waits for its close."""

    def __init__(self, config: CoreConfig, fitter: Fitter) -> None:
        super().__init__(config, fitter)
        self.rows: dict[str, Floats] = {}

    def apply(self, entry: Entry) -> list[Output]:
        """As the core's."""
        outputs = super().apply(entry)
        if isinstance(entry.event, Signal):
            opened = self.ledger.open.get(entry.event.signal_id)
            if opened is not None:
                self.rows[opened.signal_id] = opened.row
        return outputs


def observe(
    config: CoreConfig,
    fitter: Fitter,
    lines: Iterable[Line],
    progress: Callable[[int], None] = lambda events: None,
) -> Observed:
    """The engine over a tape, with what peers need."""
    core = _RowKeepingCore(config, fitter)
    began = perf_counter()
    seen = run(core, lines, progress)
    seconds = perf_counter() - began
    outcomes = seen.outcomes
    # A close that was there before its signal is learned with it: peers would learn what they ask.
    known = outcomes.decided_at < outcomes.learned_at
    rows = [core.rows[name] for name in outcomes.signal_id[known].tolist()]
    over = course(rows, outcomes.won[known], outcomes.decided_at[known], outcomes.learned_at[known])
    return Observed(seen, known, over, core.counts["events"], seconds)


def compared(
    observed: Observed,
    peers: Mapping[str, PeerRun],
    seed: int = bootstrap.SEED,
    resamples: int = bootstrap.RESAMPLES,
) -> Comparison:
    """Judge everybody.

    Parameters
    ----------
    peers
        Over ``observed.course``.
    seed, resamples
        Of the bootstrap.
    """
    outcomes = observed.run.outcomes.select(observed.known)
    late = slice(int(len(outcomes) * SKIPPED_SHARE), None)
    won = outcomes.won[late]
    given = {MIXTURE: outcomes.probability[late]}
    given |= {name: p[late] for name, p in outcomes.experts.items()}
    given |= {name: ran.probability[late] for name, ran in peers.items() if ran.why_not is None}
    spoke = {name: float(np.isfinite(p).mean()) if len(p) else 0.0 for name, p in given.items()}
    shared = np.ones(len(won), np.bool_)
    for name, p in given.items():
        if spoke[name] >= MOSTLY:
            shared &= np.isfinite(p)
    won = won[shared]
    given = {name: p[shared] for name, p in given.items()}
    ours = losses(given[MIXTURE], won)
    above = {name: losses(p, won) - ours for name, p in given.items() if name != MIXTURE}
    differences = _differences(above, resamples, seed)
    events = observed.events or 1
    contenders = [
        Contender(name, "peer", 0.0, 0, why_not=ran.why_not)
        for name, ran in peers.items()
        if ran.why_not is not None
    ]
    for name, p in given.items():
        kind = "engine" if name == MIXTURE else "peer" if name in peers else "expert"
        seconds = observed.seconds if name == MIXTURE else None
        if name in peers:
            seconds = peers[name].seconds
        judged = np.isfinite(p)
        q, y = p[judged], won[judged]
        contenders.append(
            Contender(
                name,
                kind,
                spoke[name],
                len(q),
                log_loss(q, y),
                differences.get(name, NOTHING),
                brier(q, y),
                auc(q, y),
                ece(q, y),
                accuracy(q >= 0.5, y),
                None if seconds is None else 1e6 * seconds / events,
                None if len(q) else "abstained on all rows",
            )
        )
    contenders.sort(key=_place)
    return Comparison(
        contenders,
        len(outcomes),
        len(won),
        calibrated_ece(given[MIXTURE], seed=seed),
        above,
    )


def _place(contender: Contender) -> tuple[bool, float, str]:
    loss = contender.log_loss
    return loss is None, 0.0 if loss is None else loss, contender.name


def _differences(above: dict[str, Floats], count: int, seed: int) -> dict[str, Estimate]:
    """Each one's mean, with intervals from the same resamples for all."""
    names = list(above)
    closes = len(next(iter(above.values()), ()))
    if not closes:
        return {}
    table = np.stack([above[name] for name in names], axis=1)
    spoke = np.isfinite(table)
    table = np.where(spoke, table, 0.0)

    def statistic(rows: NDArray[np.int64]) -> dict[str, float | None]:
        # How often each row was drawn: the mean is a product then, and rows aren't copied.
        times = np.bincount(rows, minlength=closes).astype(np.float64)
        counts = times @ spoke
        sums = times @ table
        return {
            name: float(total / n) if n else None
            for name, total, n in zip(names, sums, counts, strict=True)
        }

    block = bootstrap.block_length(*(table[:, i] for i in range(len(names)) if spoke[:, i].all()))
    return bootstrap.estimates(statistic, closes, block, count, seed)
