"""The learning half of the core: scores a signal, learns from its close, watches itself.

Rules:
- `score` changes nothing but the encoder's schema (which columns there are) and the regime.
- `learn` updates each expert once, on the vector and the probabilities frozen at the signal.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import log
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drift import DriftMonitors, FeatureDrift, Regimes
from engine.champions import CHAMPION, Champions, Fitter
from engine.core_config import CoreConfig, Reaction
from engine.finding import Finding
from engine.ledger import OpenSignal
from engine.policy import Belief
from learners import (
    ExpertPanel,
    ExpertSpec,
    FeatureEncoder,
    Forecaster,
    Frozen,
    History,
    Mixture,
    Order,
    Outlook,
    RefitWindow,
    Votes,
)
from streams.events import Close, ModelChange, Severity, Signal

BASE_RATE = "base_rate"
"""The kind of the expert that the published probability must do no worse than."""
LOWER_QUARTILE = 0.6745
"""Standard deviations from a normal distribution's middle to where a quarter of it lies below."""
MIXTURE = "mixture"
"""The name of the series of the published probability."""


class _Part(Protocol):
    def state(self) -> dict[str, object]: ...

    def restore(self, state: Mapping[str, object]) -> None: ...


@dataclass(slots=True, eq=False)  # not frozen: that takes three times as long to build
class Score:
    """What the model believes about a signal, and what its close is learned by."""

    outlook: Outlook
    row: NDArray[np.float64]
    frozen: Frozen
    votes: Votes
    regime: str


class Model:
    """Everything that learns, behind two calls.

    Parameters
    ----------
    config
        What it is made of.
    fitter
        Computes refits.
    """

    def __init__(self, config: CoreConfig, fitter: Fitter) -> None:
        self.config = config
        self.closes = 0
        """Closes learned so far."""
        self.last_close: str | None = None
        """The signal_id of the last one."""
        self.drifted = False
        """Whether the mixture's drift detector alarmed at the last close."""
        self.encoder = FeatureEncoder(config.features.max_columns, config.features.max_categories)
        self.history = History()
        self.regimes = Regimes()
        specs = [ExpertSpec(name, e.kind, e.params) for name, e in config.experts.items()]
        if config.refit.enabled:
            specs.append(ExpertSpec(CHAMPION, CHAMPION))
        self.panel = ExpertPanel(specs, self.encoder, config.seed)
        base = next(i for i, spec in enumerate(specs) if spec.model == BASE_RATE)
        self.forecaster = Forecaster(self.panel.names, base, self.panel.voters)
        drift = config.drift
        self.features = FeatureDrift(
            drift.feature_reference, drift.feature_window, drift.feature_window, drift.feature_level
        )
        self.monitors = DriftMonitors([MIXTURE, *self.panel.names], config.drift.delta)
        self._losses = np.zeros(1 + len(self.panel.names))
        self.window = RefitWindow(config.refit.window, config.refit.lag)
        self.champions = Champions(config, self.panel, self.window, self.encoder, fitter)
        # Failures of experts that a finding has told of.
        self._failures: dict[str, int] = {}
        self._failed = 0

    @property
    def champion(self) -> str | None:
        """The ID of the installed refit."""
        return self.champions.id

    @property
    def mixture(self) -> Mixture:
        """The mixture of the experts, before calibration."""
        return self.forecaster.mixture

    @property
    def drifts(self) -> dict[str, int]:
        """Alarms so far, by series."""
        return self.monitors.detections

    def problem(self, signal: Signal) -> str | None:
        """Why the signal's features can't be used, for a person; None when they can."""
        return self.encoder.problem(signal.features)

    def score(self, signal: Signal) -> Score:
        """What is believed about a signal now, once its regime is noted."""
        regime = self.regimes.observe(signal.symbol, signal.features)
        row = self.encoder.encode(
            signal.ts,
            signal.symbol,
            signal.side,
            signal.strategy,
            signal.features,
            self.history.features(signal.symbol),
            regime,
        )
        groups = _groups(signal.symbol, signal.strategy, signal.side, regime)
        forecast = self.panel.predict(row, groups)
        alike = _alike(signal.strategy, signal.side)
        sized = self.champions.return_booster.predict_proba_row(row)
        outlook, frozen = self.forecaster.predict(forecast, sized, signal.symbol, alike)
        return Score(outlook, row, frozen, forecast.votes, regime)

    def preview(self, signal: Signal) -> tuple[Score, list[str]]:
        """What `score` would say, and the columns of its row. Changes nothing."""
        regimes, columns = self.regimes.state(), self.encoder.state()
        score, names = self.score(signal), self.encoder.names
        self.regimes.restore(regimes)
        self.encoder.restore(columns)
        return score, names

    def watch(self, row: NDArray[np.float64]) -> list[Finding]:
        """Watch the features of a signal that was decided; returns what is to be told."""
        if not self.config.drift.features:
            return []
        moved = self.features.update(row, self.encoder.columns)
        if not moved:
            return []
        told = ", ".join(f"{m.name} ({m.test} {m.statistic:.3f}, p {m.p_value:.1g})" for m in moved)
        message = f"features have moved against the signals before: {told}"
        return [Finding("warning", "feature_drift", moved[0].name, message)]

    def belief(self, signal: Signal, score: Score, explore: bool) -> Belief:
        """What the policy is to know of a signal that was scored."""
        outlook = score.outlook
        loss = self.forecaster.mean_loss_pct(signal.symbol)
        # What a win must bring for the two to make the expected return.
        p = outlook.probability
        win = (outlook.expected_return_pct - (1.0 - p) * loss) / p
        return Belief(
            p,
            outlook.probability_interval,
            outlook.expected_return_pct,
            outlook.expected_return_pct - LOWER_QUARTILE * outlook.deviation_pct,
            score.frozen.scale,
            win,
            loss,
            self.regimes.relative_volatility(signal.symbol),
            explore,
        )

    def learn(self, opened: OpenSignal, close: Close, now: datetime) -> list[Finding | ModelChange]:
        """Learn how a signal ended, at event time `now`; returns what was noticed on the way."""
        won = close.return_pct > 0
        stopped = None if close.exit_reason is None else close.exit_reason == "stop"
        findings: list[Finding | ModelChange] = []
        self.closes += 1
        self.last_close = close.signal_id
        probability = opened.outlook.probability
        losses = self.forecaster.learn(
            opened.outlook,
            opened.frozen,
            opened.symbol,
            _alike(opened.strategy, opened.side),
            close.return_pct,
            stopped,
            self.closes - 1 - opened.update,
        )
        groups = _groups(opened.symbol, opened.strategy, opened.side, opened.regime)
        self.panel.learn(opened.row, won, close.return_pct, stopped, opened.votes, groups)
        self.history.learn(opened.symbol, close.return_pct)
        self.regimes.learn(opened.symbol, close.return_pct)
        self.window.add(
            opened.row,
            close.return_pct,
            opened.ts.timestamp(),
            close.ts.timestamp(),
            opened.frozen.scale,
        )
        self._losses[0] = -log(probability if won else 1.0 - probability)
        self._losses[1:] = losses
        self.drifted = False
        for series in self.monitors.update(self._losses):
            self._react(series, close.ts, findings)
        if self.panel.failed > self._failed:
            self._tell_of_failures(findings)
        if self.config.refit.enabled:
            findings += self.champions.step(close.ts, now, self.monitors.width(MIXTURE))
        return findings

    def by_name(self, experts: NDArray[np.float64]) -> dict[str, float]:
        """Experts' probabilities under their names, without those that abstained."""
        pairs = zip(self.panel.names, experts.tolist(), strict=True)
        return {name: p for name, p in pairs if p == p}

    def _react(self, series: str, ts: datetime, findings: list[Finding | ModelChange]) -> None:
        """Do what is configured for when a series' losses have risen."""
        drift = self.config.drift
        self.drifted = self.drifted or series == MIXTURE
        reactions: tuple[Reaction, ...] = drift.on_mixture if series == MIXTURE else drift.on_expert
        if "reset" in reactions:
            if series == MIXTURE:
                self.forecaster.mixture.reset()
            else:
                self.panel.reset(series)
                if series == CHAMPION:
                    findings += self.champions.lose(ts)
        if "recalibrate" in reactions:
            self.forecaster.calibration.doubt()
        if "refit" in reactions:
            self.champions.schedule.ask(Order("drift"))
        if "alert" in reactions:
            done = ", ".join(reaction for reaction in reactions if reaction != "alert")
            message = f"the log loss of {series} has risen" + (f"; done: {done}" if done else "")
            severity: Severity = "warning" if series == MIXTURE else "info"
            findings.append(Finding(severity, "drift", series, message))

    def _tell_of_failures(self, findings: list[Finding | ModelChange]) -> None:
        for name, (count, how) in self.panel.failures.items():
            if count > self._failures.get(name, 0):
                self._failures[name] = count
                message = f"expert {name} failed {count} times so far, the last time by {how}"
                findings.append(Finding("warning", "expert_failed", name, message))
        self._failed = self.panel.failed

    def state(self) -> dict[str, object]:
        """All that the next answer depends on."""
        return {
            "closes": self.closes,
            "last_close": self.last_close,
            "failures": dict(self._failures),
            **self.champions.state(),
            **{name: part.state() for name, part in self._parts().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. A refit that was under way is launched again."""
        self.closes = state["closes"]
        self.last_close = state["last_close"]
        self._failures = dict(state["failures"])
        self._failed = sum(self._failures.values())
        for name, part in self._parts().items():
            part.restore(state[name])
        self.champions.restore(state)

    def _parts(self) -> dict[str, _Part]:
        return {
            "encoder": self.encoder,
            "history": self.history,
            "regimes": self.regimes,
            "panel": self.panel,
            "forecaster": self.forecaster,
            "monitors": self.monitors,
            "window": self.window,
            "features": self.features,
        }


def _alike(strategy: str | None, side: str) -> str:
    """Trades of the same strategy and side are alike."""
    return f"{side} {strategy or ''}"


def _groups(
    symbol: str, strategy: str | None, side: str, regime: str | None
) -> dict[Hashable, str]:
    return {
        "symbol": symbol, "strategy": strategy or "", "side": side, "regime": regime or "",
    }  # fmt: skip
