"""One prequential pass: every close is judged by what was said when its signal came, then learned.

The core is the one that serves live; nothing about a run here differs from a run there.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from engine.core import Core
from engine.heap import BATCHES, quiet_heap, tidy
from learners.conformal import ProbabilityInterval
from streams import Alert, Decision, Outcome, Signal
from streams.tape import Line

PROGRESS_EVERY = 256
WEIGHT_SAMPLES = 500
"""At most so many moments at which the mixture's weights are kept."""

SESSION_NAMES = ("session", "market_context.session")
"""Category features that name the trading session; the first one there counts."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Texts = NDArray[np.str_]
Lines = NDArray[np.int64]
Rows = NDArray[np.bool_] | NDArray[np.int64] | slice


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Columns over closes in the order in which they were learned; each of shape (closes,).

    Parameters
    ----------
    signal_id
        Of the signal.
    opened, closed
        When the signal and its close were, seconds since 1970.
    decided_at, learned_at
        On which line of those given to `run`, from 0, the signal was decided and its close learned:
        what was learned on a line before `decided_at` was known to the decision, nothing else.
    symbol, side, strategy, session, regime
        What a close can be grouped by; '' where unknown. The session is the signal's category
        feature of that name.
    probability, expected_return_pct, risk, size_multiplier
        As published in the decision.
    return_pct
        What came of it, percent, net of costs.
    propensity
        The chance that a signal like this is taken at any size; NaN: not published.
    probability_low, probability_high, return_low, return_high
        The published intervals; NaN: not published.
    won, executed
        Whether the return was above zero; whether it was traded, not tracked on paper.
    stopped
        1 when the stop was hit, 0 when not, NaN when the close doesn't say.
    action, baseline
        What was decided; what the bot's own rules would have done, '' when it didn't say.
    experts
        Each expert's probability, NaN where it abstained.
    """

    signal_id: Texts
    opened: Floats
    closed: Floats
    decided_at: Lines
    learned_at: Lines
    symbol: Texts
    side: Texts
    strategy: Texts
    session: Texts
    regime: Texts
    probability: Floats
    expected_return_pct: Floats
    risk: Floats
    size_multiplier: Floats
    return_pct: Floats
    propensity: Floats
    probability_low: Floats
    probability_high: Floats
    return_low: Floats
    return_high: Floats
    won: Bools
    executed: Bools
    stopped: Floats
    action: Texts
    baseline: Texts
    experts: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.won)

    @property
    def taken(self) -> Bools:
        """Which the engine would trade, at any size."""
        return np.asarray(self.action != "skip")

    def select(self, rows: Rows) -> "Outcomes":
        """The closes of `rows`: a mask, indices or a slice."""
        columns = {each.name: getattr(self, each.name)[rows] for each in fields(self)[:-1]}
        return Outcomes(**columns, experts={name: p[rows] for name, p in self.experts.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """Columns over decisions in their order, each of shape (decisions,): closes or not.

    Parameters
    ----------
    probability, expected_return_pct, propensity
        As published; the propensity is NaN where it wasn't.
    taken
        Which the engine would trade, at any size.
    outcome
        The row of its close in `Outcomes`; -1 while there is none.
    """

    probability: Floats
    expected_return_pct: Floats
    propensity: Floats
    taken: Bools
    outcome: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.taken)

    def select(self, rows: Rows) -> "Decisions":
        """The decisions of `rows`: a mask, indices or a slice."""
        return Decisions(*(getattr(self, each.name)[rows] for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to the model after so many closes."""

    close: int
    kind: str
    subject: str


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What came of one pass.

    Parameters
    ----------
    outcomes
        One a close.
    decisions
        All, with those that no close has come for.
    weights_at, weights, names
        After how many closes the mixture's weights were looked at, shape (times,); the weights,
        shape (times, experts); the experts' names.
    marks
        Drifts, refits and whatever else the engine alerted to, but for signals that expired.
    core
        In its final state.
    """

    outcomes: Outcomes
    decisions: Decisions
    weights_at: NDArray[np.int64]
    weights: Floats
    names: list[str]
    marks: list[Mark]
    core: Core


def run(
    core: Core,
    lines: Iterable[Line],
    progress: Callable[[int], None] = lambda events: None,
) -> Run:
    """Apply every line to `core` and keep what came of it.

    Parameters
    ----------
    core
        New, or trained; it goes on from where it is, and is left in its final state.
    lines
        Of a tape.
    progress
        Called now and then with the number of events so far.
    """
    record = _Record()
    with quiet_heap():
        for count, line in enumerate(lines):
            entry = line.entry()
            outputs = core.apply(entry)
            if outputs:
                record.take_in(core, count, entry.event, outputs)
            if count % PROGRESS_EVERY == 0:
                progress(count)
                if count % (PROGRESS_EVERY * BATCHES) == 0:
                    tidy()
    names = list(core.model.mixture.names)
    weights = np.array(list(record.weights.values()), np.float64)
    return Run(
        record.columns(),
        record.decided(),
        np.array(list(record.weights), np.int64),
        weights.reshape(len(record.weights), len(names)),
        names,
        record.marks,
        core,
    )


def running_base_rate(outcomes: Outcomes) -> Floats:
    """The share of wins among the closes learned before each decision, shape (closes,).

    One win and one loss are added, so that it begins at a half (Laplace's rule of succession).
    `outcomes` are those of a whole run of a new core.
    """
    wins = np.concatenate([[0], np.cumsum(outcomes.won)])
    known = np.searchsorted(outcomes.learned_at, outcomes.decided_at)
    return np.asarray((wins[known] + 1.0) / (known + 2.0))


@dataclass(slots=True)
class _Record:
    """What is kept of a run while it goes on."""

    decisions: list[tuple[float, float, float, bool]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    lines: list[tuple[int, int]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    outcome_of: list[int] = field(default_factory=list)
    open: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    weights: dict[int, list[float]] = field(default_factory=dict)
    stride: int = 1

    def take_in(self, core: Core, line: int, event: object, outputs: Iterable[object]) -> None:
        for output in outputs:
            if isinstance(output, Decision):
                assert isinstance(event, Signal)
                self._decision(line, event, output)
            elif isinstance(output, Outcome):
                self._outcome(line, output)
                self._look_at_weights(core)
            elif isinstance(output, Alert):
                if output.code == "signal_expired":
                    self.open.pop(output.subject, None)
                else:
                    self.marks.append(Mark(len(self.outcomes), output.code, output.subject))

    def _decision(self, line: int, event: Signal, said: Decision) -> None:
        features = event.features
        session = next((features[name] for name in SESSION_NAMES if name in features), None)
        name = session if isinstance(session, str) else ""
        self.open[said.signal_id] = (len(self.decisions), line, name)
        self.outcome_of.append(-1)
        propensity = math.nan if said.propensity is None else said.propensity
        self.decisions.append(
            (said.probability, said.expected_return_pct, propensity, said.action != "skip")
        )

    def _outcome(self, line: int, outcome: Outcome) -> None:
        # A core that was trained before has signals open that this run never saw.
        decision, decided_at, session = self.open.pop(outcome.signal_id, (-1, -1, ""))
        if decision >= 0:
            self.outcome_of[decision] = len(self.outcomes)
        self.outcomes.append(outcome)
        self.lines.append((decided_at, line))
        self.sessions.append(session)

    def _look_at_weights(self, core: Core) -> None:
        """Keep the weights every `stride` closes; when that is too many, every other of them."""
        closes = len(self.outcomes)
        if closes % self.stride:
            return
        self.weights[closes] = list(core.model.mixture.weights)
        if len(self.weights) > WEIGHT_SAMPLES:
            self.stride *= 2
            self.weights = {at: w for at, w in self.weights.items() if at % self.stride == 0}

    def decided(self) -> Decisions:
        columns = np.array(self.decisions, np.float64).reshape(-1, 4).T
        probability, expected, propensity, taken = columns
        outcome = np.array(self.outcome_of, np.int64)
        return Decisions(probability, expected, propensity, taken > 0.0, outcome)

    def columns(self) -> Outcomes:
        said = self.outcomes

        def floats(of: Callable[[Outcome], float | None]) -> Floats:
            given = (math.nan if (value := of(each)) is None else value for each in said)
            return np.fromiter(given, np.float64, len(said))

        def texts(of: Callable[[Outcome], str | None]) -> Texts:
            return np.array([of(each) or "" for each in said], np.str_)

        def bools(of: Callable[[Outcome], bool]) -> Bools:
            return np.fromiter((of(each) for each in said), np.bool_, len(said))

        def expert(name: str) -> Floats:
            return floats(lambda outcome: outcome.experts.get(name))

        names = dict.fromkeys(name for each in said for name in each.experts)
        lines = np.array(self.lines, np.int64).reshape(-1, 2)
        return Outcomes(
            signal_id=texts(lambda o: o.signal_id),
            opened=floats(lambda o: o.opened.timestamp()),
            closed=floats(lambda o: o.ts.timestamp()),
            decided_at=lines[:, 0],
            learned_at=lines[:, 1],
            symbol=texts(lambda o: o.symbol),
            side=texts(lambda o: o.side),
            strategy=texts(lambda o: o.strategy),
            session=np.array(self.sessions, np.str_),
            regime=texts(lambda o: o.regime),
            probability=floats(lambda o: o.probability),
            expected_return_pct=floats(lambda o: o.expected_return_pct),
            risk=floats(lambda o: o.risk),
            size_multiplier=floats(lambda o: o.size_multiplier),
            return_pct=floats(lambda o: o.return_pct),
            propensity=floats(lambda o: o.propensity),
            probability_low=floats(lambda o: _side(o.probability_interval, 0)),
            probability_high=floats(lambda o: _side(o.probability_interval, 1)),
            return_low=floats(lambda o: _side(o.return_interval_pct, 0)),
            return_high=floats(lambda o: _side(o.return_interval_pct, 1)),
            won=bools(lambda o: o.won),
            executed=bools(lambda o: o.executed),
            stopped=floats(lambda o: o.stopped),
            action=texts(lambda o: o.action),
            baseline=texts(lambda o: o.baseline),
            experts={name: expert(name) for name in names},
        )


def _side(interval: tuple[float, float] | None, side: int) -> float | None:
    return None if interval is None else interval[side]


def group_coverage(outcomes: Outcomes, skip: int = 0) -> tuple[float | None, int]:
    """How often the share of wins of a group lies within its mean probability interval.

    One trade wins or doesn't, so an interval of a probability is about many: the groups of closes
    are those that `learners.conformal.ProbabilityInterval` makes and counts, from the first close
    on. Those that were full within the first `skip` closes don't count. Beside the share stands how
    many groups there were.
    """
    counter = ProbabilityInterval()
    covered = judged = 0
    columns = (outcomes.probability, outcomes.probability_low, outcomes.probability_high)
    closes = zip(*columns, outcomes.won.tolist(), strict=True)
    for i, (p, low, high, won) in enumerate(closes):
        if i == skip:
            covered, judged = counter.covered, counter.judged
        if low == low:
            counter.learn(float(p), (float(low), float(high)), won)
    groups = counter.judged - judged
    return ((counter.covered - covered) / groups if groups else None), groups
