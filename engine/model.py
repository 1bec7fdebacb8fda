"""The learning half of the core: scores a signal, learns from its close, watches itself, refits.

Rules:
- `score` changes nothing but the encoder's schema (which columns there are) and the regime.
- `learn` updates each expert once, on the vector and the probabilities frozen at the signal.
- A refit launched at close k is installed at close k + lag exactly. The fit is a pure function of
  the job, so where and when it is computed (another process, after a crash) changes nothing.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import log
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drift import DriftMonitors, FeatureDrift, Regimes
from engine.core_config import CoreConfig, Reaction
from engine.finding import Finding
from engine.ledger import OpenSignal
from engine.policy import Belief
from engine.safety.registry import Change, Registry, RegistryError, change, facts_of
from engine.safety.timetable import Timetable
from learners import (
    Booster,
    ExpertPanel,
    ExpertSpec,
    FeatureEncoder,
    Forecaster,
    Frozen,
    History,
    Mixture,
    Order,
    Outlook,
    Refit,
    RefitJob,
    RefitSchedule,
    RefitWindow,
    Votes,
)
from streams.events import Close, ModelChange, Severity, Signal

CHAMPION = "lightgbm"
"""The name of the refit expert."""
BASE_RATE = "base_rate"
"""The kind of the expert that the published probability must do no worse than."""
LOWER_QUARTILE = 0.6745
"""Standard deviations from a normal distribution's middle to where a quarter of it lies below."""
MIXTURE = "mixture"
"""The name of the series of the published probability."""


class Fitter(Protocol):
    """Computes refits, wherever it likes: `collect` gives what `learners.fit(job)` would."""

    def submit(self, job: RefitJob) -> None:
        """Start on `job`; returns at once."""

    def collect(self, job_id: str) -> Refit:
        """The result of a submitted job; waits for it."""


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
        self.refits = {"launched": 0, "installed": 0, "rejected": 0}
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
        self.schedule = RefitSchedule(config.refit.every, config.refit.lag)
        self.timetable = Timetable(config.refit.daily_at, config.refit.weekly_at)
        self.registry = Registry(config.refit.keep)
        # The champion's twin: returns in usual sizes.
        self.return_booster = Booster()
        self._fitter = fitter
        # Failures of experts that a finding has told of.
        self._failures: dict[str, int] = {}
        self._failed = 0
        # Columns of the window at the launch of the refit under way.
        self._columns = 0
        # Closes since the mixture's loss last changed, at that launch.
        self._fresh = 0

    @property
    def champion(self) -> str | None:
        """The ID of the installed refit."""
        return self._booster.refit if self.config.refit.enabled else None

    @property
    def _booster(self) -> Booster:
        booster = self.panel[CHAMPION]
        assert isinstance(booster, Booster)
        return booster

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
        sized = self.return_booster.predict_proba_row(row)
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
            for order in self.timetable.due(now):
                self.schedule.ask(order)
            self._refit(close.ts, findings)
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
                    self._lose(ts, findings)
        if "recalibrate" in reactions:
            self.forecaster.calibration.doubt()
        if "refit" in reactions:
            self.schedule.ask(Order("drift"))
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

    def _refit(self, ts: datetime, findings: list[Finding | ModelChange]) -> None:
        """Settle the refit that is due now, then launch the one that is."""
        due = self.schedule.step(self.closes)
        if due.install is not None:
            self._settle(due.install, ts, findings)
        if due.launch is not None:
            self._columns = self.window.columns
            self._fresh = self.monitors.width(MIXTURE)
            self.registry.defender = self.champion
            self._fitter.submit(self._job(due.launch))
            self.refits["launched"] += 1

    def _settle(self, launched: int, ts: datetime, findings: list[Finding | ModelChange]) -> None:
        """Install the refit launched at that close, or say why not."""
        refit = self._fitter.collect(_refit_id(launched))
        order, registry = self.schedule.done, self.registry
        columns = tuple(self.encoder.columns[: self._columns])
        facts = facts_of(refit, order, launched, columns)
        registry.defender = None
        forced = order.forced and refit.text is not None
        installed = forced or (refit.accepted and refit.text is not None and not registry.pinned)
        # Every decision of a model that the gate didn't let in says so.
        model = f"{refit.id}-forced" if forced else refit.id
        reason = refit.reason
        if refit.accepted and registry.pinned and not forced:
            reason += f" But {registry.champion} is pinned."
        if forced:
            reason += f" It was forced in by {order.cause}."
        if refit.text is not None:
            registry.keep(refit, model)
        record = partial(change, registry, ts, model=model, update=self.closes, by=order.cause)
        findings.append(record("fitted", reason=refit.reason, digest=refit.digest, facts=facts))
        if not installed:
            self.refits["rejected"] += 1
            findings.append(record("rejected", reason=reason))
            findings.append(Finding("info", "refit_rejected", refit.id, reason))
            return
        parent = self._install(model)
        self.refits["installed"] += 1
        findings.append(record("installed", reason=reason, parent=parent, forced=forced))
        severity: Severity = "warning" if forced else "info"
        findings.append(Finding(severity, "refit_installed", model, reason))

    def _install(self, model: str, back: bool = False) -> str | None:
        """Make a kept model champion; returns the one until now."""
        kept = self.registry[model]
        self._booster.install(kept.text, model)
        if kept.returns_text is None:
            self.return_booster = Booster()
        else:
            self.return_booster.install(kept.returns_text, model)
        return self.registry.install(model, back)

    def _lose(self, ts: datetime, findings: list[Finding | ModelChange]) -> None:
        """The champion starts afresh: there is none until the next refit."""
        self.return_booster = Booster()
        lost = self.registry.lose()
        if lost is not None:
            reason = "its log loss has risen, and `drift.on_expert` says reset"
            record = change(self.registry, ts, "lost", lost, self.closes, "drift", reason, lost)
            findings.append(record)

    # What people do with models

    def install_kept(
        self, model: str, forced: bool, by: str, reason: str, ts: datetime
    ) -> ModelChange:
        """Make a kept model champion. Raises `RegistryError` when that can't be.

        What the gate refused must be `forced`.
        """
        kept = self.registry[model]
        if model == self.champion:
            raise RegistryError(f"{model} is champion already; nothing was changed")
        if not kept.accepted and not forced:
            raise RegistryError(
                f"the gate refused {model}; give `force` to install it all the same"
            )
        skipped = not kept.accepted
        parent = self._install(model)
        return self._changed("installed", model, by, reason, ts, parent, skipped)

    def roll_back(self, model: str | None, by: str, reason: str, ts: datetime) -> ModelChange:
        """Go back to a kept model, or to the champion before. Raises `RegistryError`."""
        kept = self.registry.previous if model is None else self.registry[model]
        if kept.id == self.champion:
            raise RegistryError(f"{kept.id} is champion already; nothing was changed")
        parent = self._install(kept.id, back=True)
        return self._changed("rolled_back", kept.id, by, reason, ts, parent)

    def pin(self, model: str, by: str, reason: str, ts: datetime) -> ModelChange:
        """Make a kept model champion, and keep it. Raises `RegistryError`."""
        self.registry[model]
        parent = self._install(model) if model != self.champion else model
        self.registry.pinned = True
        return self._changed("pinned", model, by, reason, ts, parent)

    def unpin(self, by: str, reason: str, ts: datetime) -> ModelChange:
        """Let refits replace the champion again. Raises `RegistryError` when it isn't pinned."""
        champion = self.champion
        if not self.registry.pinned or champion is None:
            raise RegistryError("no model is pinned; nothing was changed")
        self.registry.pinned = False
        return self._changed("unpinned", champion, by, reason, ts, champion)

    def _changed(
        self,
        what: Change,
        model: str,
        by: str,
        reason: str,
        ts: datetime,
        parent: str | None,
        forced: bool = False,
    ) -> ModelChange:
        return change(
            self.registry, ts, what, model, self.closes, by, reason, parent, forced,
            digest=self._booster.digest,
        )  # fmt: skip

    def _job(self, launched: int) -> RefitJob:
        """The job of the refit launched at that close, the same whenever it is made."""
        view, config = self.window.at(launched), self.config.refit
        defender = self.registry.defender
        return RefitJob(
            id=_refit_id(launched),
            rows=view.rows[:, : self._columns],
            won=view.won,
            sized=view.sized,
            opened=view.opened,
            closed=view.closed,
            champion=None if defender is None else self.registry[defender].text,
            fresh=self._fresh,
            unseen=None if defender is None else launched - _launched(defender),
            full=self.schedule.order.full,
            holdout=config.holdout,
            gate=config.gate,
            seed=self.config.seed,
            params=config.params,
        )

    def refit_figures(self) -> dict[str, object]:
        """How refits stand, for people."""
        return {
            **self.refits,
            "pending": self.schedule.pending,
            "cause": None if self.schedule.pending is None else self.schedule.order.cause,
            "next": self.schedule.every * (self.closes // self.schedule.every + 1),
            "lag": self.schedule.lag,
        }

    def state(self) -> dict[str, object]:
        """All that the next answer depends on."""
        return {
            "closes": self.closes,
            "last_close": self.last_close,
            "refits": dict(self.refits),
            "columns": self._columns,
            "fresh": self._fresh,
            "failures": dict(self._failures),
            **{name: part.state() for name, part in self._parts().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. A refit that was under way is launched again."""
        self.closes = state["closes"]
        self.last_close = state["last_close"]
        self.refits = dict(state["refits"])
        self._columns = state["columns"]
        self._fresh = state["fresh"]
        self._failures = dict(state["failures"])
        self._failed = sum(self._failures.values())
        for name, part in self._parts().items():
            part.restore(state[name])
        if self.schedule.pending is not None:
            self._fitter.submit(self._job(self.schedule.pending))

    def _parts(self) -> dict[str, _Part]:
        return {
            "encoder": self.encoder,
            "history": self.history,
            "regimes": self.regimes,
            "panel": self.panel,
            "forecaster": self.forecaster,
            "monitors": self.monitors,
            "window": self.window,
            "schedule": self.schedule,
            "timetable": self.timetable,
            "registry": self.registry,
            "return_booster": self.return_booster,
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


def _refit_id(launched: int) -> str:
    return f"refit-{launched}"


def _launched(refit_id: str) -> int:
    return int(refit_id.split("-")[1])
