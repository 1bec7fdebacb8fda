"""What a close teaches, held to a plain loop over the same parts."""

from collections.abc import Iterator
from math import log

import numpy as np
import pytest

from drift import DriftMonitors
from engine.core import Core
from engine.core_config import CoreConfig, ExpertConfig, RefitConfig
from learners import ExpertPanel, ExpertSpec, FeatureEncoder, History, Mixture, RefitWindow, Returns
from snapshots import digest
from streams import Close, Signal
from tests.engine.histories import entries, history, new_core, run

CONFIG = CoreConfig(
    experts={
        "base_rate": ExpertConfig(kind="base_rate"),
        "logistic": ExpertConfig(kind="logistic"),
        "forest": ExpertConfig(kind="forest", params={"n_models": 3}),
    },
    refit=RefitConfig(enabled=False),
)
EVENTS = history(150, delay=9)


class PlainLoop:
    """Each close teaches every part once, on what was frozen when its signal was decided."""

    def __init__(self) -> None:
        self.encoder = FeatureEncoder()
        self.history = History()
        specs = [ExpertSpec(name, e.kind, e.params) for name, e in CONFIG.experts.items()]
        self.panel = ExpertPanel(specs, self.encoder, CONFIG.seed)
        self.mixture = Mixture(self.panel.names, [2, 1, 1])
        self.returns = Returns()
        self.window = RefitWindow(CONFIG.refit.window, CONFIG.refit.lag)
        self.monitors = DriftMonitors(["mixture", *self.panel.names], CONFIG.drift.delta)

    def run(self) -> Iterator[float]:
        frozen = {}
        closes = 0
        for event in EVENTS:
            if isinstance(event, Signal):
                row = self.encoder.encode(
                    event.ts, event.symbol, event.side, event.strategy, event.features,
                    self.history.features(event.symbol),
                )  # fmt: skip
                forecast = self.panel.predict(row)
                probability = self.mixture.predict(forecast.p)
                yield probability
                frozen[event.signal_id] = (event, row, forecast, probability, closes)
            elif isinstance(event, Close):
                signal, row, forecast, probability, before = frozen.pop(event.signal_id)
                won, stopped = event.return_pct > 0, event.exit_reason == "stop"
                losses = self.mixture.learn(forecast.p, won, closes - before)
                self.panel.learn(row, won, event.return_pct, stopped, forecast.votes)
                self.returns.learn(event.return_pct, stopped)
                self.history.learn(signal.symbol, event.return_pct)
                self.window.add(row, event.return_pct, signal.ts.timestamp(), event.ts.timestamp())
                loss = -log(probability if won else 1 - probability)
                self.monitors.update(np.array([loss, *losses]))
                closes += 1


@pytest.fixture(scope="module")
def taught() -> tuple[Core, PlainLoop, list[float], list[float]]:
    core, loop = new_core(CONFIG), PlainLoop()
    decided = [
        output.probability for output in run(core, entries(*EVENTS)) if output.type == "decision"
    ]
    return core, loop, decided, list(loop.run())


def test_every_decision_is_what_the_plain_loop_says(taught):
    _, _, decided, said = taught
    assert decided == said


PARTS = ("encoder", "history", "panel", "mixture", "returns", "window", "monitors")


@pytest.mark.parametrize("part", PARTS)
def test_each_close_teaches_each_part_once_on_what_was_frozen_at_its_signal(taught, part):
    core, loop, _, _ = taught
    assert digest(getattr(core.model, part).state()) == digest(getattr(loop, part).state())
