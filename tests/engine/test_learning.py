"""What a close teaches, held to a plain loop over the same parts."""

from collections.abc import Iterator
from math import log, nan

import numpy as np
import pytest

from drift import DriftMonitors, FeatureDrift, Regimes
from engine.core import Core
from engine.core_config import CoreConfig, DriftConfig, ExpertConfig, RefitConfig
from learners import ExpertPanel, ExpertSpec, FeatureEncoder, History, Mixture, RefitWindow, Returns
from learners.calibration import Calibration
from learners.conformal import ProbabilityInterval, ReturnInterval
from learners.expectation import ExpectedReturn, StopRisk, UsualSize
from snapshots import digest
from streams import Close, Signal
from tests.engine.histories import entries, history, new_core, run

CONFIG = CoreConfig(
    experts={
        "base_rate": ExpertConfig(kind="base_rate"),
        "symbol": ExpertConfig(kind="group_rate", params={"by": "symbol", "min_closes": 5}),
        "regime": ExpertConfig(kind="group_rate", params={"by": "regime+strategy+side"}),
        "logistic": ExpertConfig(kind="logistic"),
        "forest": ExpertConfig(kind="forest", params={"n_models": 3}),
    },
    drift=DriftConfig(feature_reference=40, feature_window=20),
    refit=RefitConfig(enabled=False),
)
EVENTS = history(150, delay=9)

FORECASTER = (
    "mixture", "calibration", "payoff", "expected_return", "stop_risk", "probability_interval",
    "return_interval", "usual_size",
)  # fmt: skip
PARTS = ("encoder", "history", "regimes", "panel", "window", "monitors", "features", *FORECASTER)


class PlainLoop:
    """Each close teaches every part once, on what was frozen when its signal was decided."""

    def __init__(self) -> None:
        self.encoder = FeatureEncoder()
        self.history = History()
        self.regimes = Regimes()
        specs = [ExpertSpec(name, e.kind, e.params) for name, e in CONFIG.experts.items()]
        self.panel = ExpertPanel(specs, self.encoder, CONFIG.seed)
        self.mixture = Mixture(self.panel.names, [4, 1, 1, 1, 1])
        self.calibration = Calibration(5, 0)
        self.payoff = Returns()
        self.expected_return = ExpectedReturn(self.payoff, 2, 5, 0)
        self.stop_risk = StopRisk(self.payoff, 1)
        self.probability_interval = ProbabilityInterval()
        self.return_interval = ReturnInterval()
        self.usual_size = UsualSize()
        self.window = RefitWindow(CONFIG.refit.window, CONFIG.refit.lag)
        self.features = FeatureDrift(40, 20, 20, CONFIG.drift.feature_level)
        self.monitors = DriftMonitors(["mixture", *self.panel.names], CONFIG.drift.delta)

    def run(self) -> Iterator[tuple[object, ...]]:
        frozen = {}
        closes = 0
        for event in EVENTS:
            if isinstance(event, Signal):
                symbol, side, strategy = event.symbol, event.side, event.strategy
                regime = self.regimes.observe(symbol, event.features)
                row = self.encoder.encode(
                    event.ts, symbol, side, strategy, event.features,
                    self.history.features(symbol), regime,
                )  # fmt: skip
                groups = {
                    "symbol": symbol, "strategy": strategy or "", "side": side, "regime": regime,
                }  # fmt: skip
                alike = f"{side} {strategy or ''}"
                forecast = self.panel.predict(row, groups)
                mixed = self.mixture.predict(forecast.p)
                p, corrections = self.calibration.predict(forecast.p, mixed)
                scale = self.usual_size.of(symbol)
                expected, _, returns = self.expected_return.predict(
                    p, symbol, alike, (nan, *forecast.returns), forecast.p, scale
                )
                risk, risks = self.stop_risk.predict(p, alike, forecast.stops)
                p_interval = self.probability_interval.predict(p)
                interval = self.return_interval.predict(expected, scale)
                yield p, expected, risk, p_interval, interval, regime
                self.features.update(row, self.encoder.names)
                frozen[event.signal_id] = (
                    event, row, groups, alike, forecast, p, corrections, scale, expected,
                    returns, risk, risks, p_interval, interval, closes,
                )  # fmt: skip
            elif isinstance(event, Close):
                (
                    signal, row, groups, alike, forecast, p, corrections, scale, expected,
                    returns, risk, risks, p_interval, interval, before,
                ) = frozen.pop(event.signal_id)  # fmt: skip
                value = event.return_pct
                won, stopped = value > 0, event.exit_reason == "stop"
                age = closes - before
                losses = self.mixture.learn(forecast.p, won, age, p)
                self.calibration.learn(forecast.p, corrections, won, age, p)
                self.probability_interval.learn(p, p_interval, won)
                self.expected_return.learn(
                    returns, signal.symbol, alike, scale, value, age, expected
                )
                self.return_interval.learn(interval, expected, scale, value)
                self.stop_risk.learn(risks, alike, stopped, age, risk)
                self.payoff.learn(value, stopped)
                self.usual_size.learn(signal.symbol, value)
                self.panel.learn(row, won, value, stopped, forecast.votes, groups)
                self.history.learn(signal.symbol, value)
                self.regimes.learn(signal.symbol, value)
                self.window.add(row, value, signal.ts.timestamp(), event.ts.timestamp(), scale)
                self.monitors.update(np.array([-log(p if won else 1 - p), *losses]))
                closes += 1


Said = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def taught() -> tuple[Core, PlainLoop, Said, Said]:
    core, loop = new_core(CONFIG), PlainLoop()
    decided: Said = [
        (
            o.probability, o.expected_return_pct, o.risk, o.probability_interval,
            o.return_interval_pct, o.regime,
        )
        for o in run(core, entries(*EVENTS))
        if o.type == "decision"
    ]  # fmt: skip
    return core, loop, decided, list(loop.run())


def test_every_decision_is_what_the_plain_loop_says(taught):
    _, _, decided, said = taught
    assert decided == said


@pytest.mark.parametrize("part", PARTS)
def test_each_close_teaches_each_part_once_on_what_was_frozen_at_its_signal(taught, part):
    core, loop, _, _ = taught
    of = core.model.forecaster if part in FORECASTER else core.model
    assert digest(getattr(of, part).state()) == digest(getattr(loop, part).state())


def test_the_parts_are_all_that_learns(taught):
    core, *_ = taught
    state = core.model.state()
    learning = {name for name, part in state.items() if isinstance(part, dict)}
    # What is left belongs to refits, or says what has been told and counted.
    others = {
        "forecaster",
        "refits",
        "failures",
        "schedule",
        "timetable",
        "registry",
        "return_booster",
    }
    assert learning - others == {*PARTS} - {*FORECASTER}
    assert set(state["forecaster"]) == set(FORECASTER)
