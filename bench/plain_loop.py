"""What a user would write instead: River's forest and a LightGBM refit now and then, in a loop.

River's `ARFClassifier` of ten trees learns each close; LightGBM is refit every 500 closes on the
newest 8,000, with the engine's own refit parameters; their probabilities are averaged. No wire, no
ledger bounds, no mixture, no drift monitors, no recovery. Only what its learners take is counted:
scoring and learning, fitting and `Booster.predict`. Turning events into their inputs is free.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import nan
from time import perf_counter_ns

import lightgbm
import numpy as np
from numpy.typing import NDArray
from river.forest import ARFClassifier

from engine.core_config import RefitConfig
from engine.evaluation.peers import lightgbm_params
from engine.report import SKIPPED_SHARE, log_loss
from streams import Close, Signal
from streams.tape import Line

TREES = 10
LOWEST, HIGHEST = 0.001, 0.999
"""Its probabilities are judged within the bounds that the engine's experts have."""
REFIT = RefitConfig()


@dataclass(slots=True)
class PlainRun:
    """What came of a run.

    Parameters
    ----------
    events
        Lines read.
    ns
        Nanoseconds taken by each of its learners' calls.
    probability, won
        Of each close learned.
    """

    events: int = 0
    ns: dict[str, int] = field(default_factory=dict)
    probability: list[float] = field(default_factory=list)
    won: list[bool] = field(default_factory=list)
    refits: int = 0

    @property
    def seconds(self) -> float:
        """What the learners took."""
        return sum(self.ns.values()) / 1e9

    @property
    def log_loss(self) -> float | None:
        """As a replay reports it: without the first tenth of the closes."""
        start = int(len(self.won) * SKIPPED_SHARE)
        p = np.clip(np.array(self.probability[start:]), LOWEST, HIGHEST)
        return log_loss(p, np.array(self.won[start:], np.bool_))


class PlainLoop:
    """The loop's two learners, timed."""

    def __init__(self, refits: bool = True, refit: RefitConfig = REFIT) -> None:
        self.run = PlainRun(ns=dict.fromkeys(("forest predict", "forest learn"), 0))
        if refits:
            self.run.ns |= dict.fromkeys(("LightGBM predict", "LightGBM fit"), 0)
        self._refits = refits
        self._refit = refit
        self._forest = ARFClassifier(n_models=TREES, seed=1)
        self._booster: lightgbm.Booster | None = None
        self._columns: dict[str, int] = {}
        self._open: dict[str, tuple[dict[str, float], float]] = {}
        self._window: deque[tuple[dict[str, float], bool]] = deque(maxlen=refit.window)
        self._closes = 0

    def signal(self, signal: Signal) -> None:
        """Score a signal and keep it until its close."""
        x = inputs(signal)
        ns = self.run.ns
        started = perf_counter_ns()
        p = self._forest.predict_proba_one(x).get(True, 0.5)
        ns["forest predict"] += perf_counter_ns() - started
        if self._booster is not None:
            row = self._row(x, self._booster.num_feature())[np.newaxis]
            started = perf_counter_ns()
            q = float(self._booster.predict(row)[0])
            ns["LightGBM predict"] += perf_counter_ns() - started
            p = (p + q) / 2
        self._open[signal.signal_id] = (x, p)

    def close(self, close: Close) -> None:
        """Learn how a signal ended."""
        found = self._open.pop(close.signal_id, None)
        if found is None:
            return
        x, p = found
        won = close.return_pct > 0
        self.run.probability.append(p)
        self.run.won.append(won)
        started = perf_counter_ns()
        self._forest.learn_one(x, won)
        self.run.ns["forest learn"] += perf_counter_ns() - started
        self._closes += 1
        if self._refits:
            for name in x:
                self._columns.setdefault(name, len(self._columns))
            self._window.append((x, won))
            if self._closes % self._refit.every == 0:
                self._fit()

    def _fit(self) -> None:
        rows = np.array([self._row(x, len(self._columns)) for x, _ in self._window], np.float32)
        labels = np.array([won for _, won in self._window], np.float32)
        params = lightgbm_params(self._refit.params)
        started = perf_counter_ns()
        data = lightgbm.Dataset(rows, labels, params=params)
        self._booster = lightgbm.train(params, data, num_boost_round=self._refit.params.rounds)
        self.run.ns["LightGBM fit"] += perf_counter_ns() - started
        self.run.refits += 1

    def _row(self, x: dict[str, float], columns: int) -> NDArray[np.float64]:
        row = np.full(columns, nan)
        for name, value in x.items():
            column = self._columns.get(name, columns)
            if column < columns:
                row[column] = value
        return row


def inputs(signal: Signal) -> dict[str, float]:
    """A signal as River wants it: numbers as they are, categories one-hot, missing left out."""
    x: dict[str, float] = {f"symbol={signal.symbol}": 1.0, f"side={signal.side}": 1.0}
    for name, value in signal.features.items():
        if isinstance(value, str):
            x[f"{name}={value}"] = 1.0
        elif value is not None:
            x[name] = float(value)
    return x


def run_plain(
    lines: Iterable[Line],
    refits: bool,
    progress: Callable[[int], None] = lambda events: None,
) -> PlainRun:
    """The plain loop over a tape's lines."""
    loop = PlainLoop(refits)
    for line in lines:
        event = line.entry().event
        if isinstance(event, Signal):
            loop.signal(event)
        elif isinstance(event, Close):
            loop.close(event)
        loop.run.events += 1
        if loop.run.events % 64 == 0:
            progress(loop.run.events)
    return loop.run
