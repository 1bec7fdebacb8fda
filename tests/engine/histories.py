"""Made-up histories for the engine's tests: short, seeded, with something to learn in them."""

import random
from datetime import UTC, datetime, timedelta

from engine.core import Core
from engine.core_config import CoreConfig, ExpertConfig, RefitConfig
from engine.fitting import InlineFitter
from learners import RefitParams
from streams import Close, Entry, Output, Signal, encode, read_entry

START = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
KEY = b"a control key"

QUICK = CoreConfig(
    experts={kind: ExpertConfig(kind=kind) for kind in ("base_rate", "logistic", "bayes")},
    refit=RefitConfig(
        every=60, lag=10, window=200, holdout=40, params=RefitParams(rounds=5, min_data_in_leaf=10)
    ),
)
"""The default but for what takes long: no forest, small refits."""


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def signal(name: str, minutes: float = 0.0, **fields: object) -> Signal:
    given = {"symbol": "EURUSD", "side": "long", "features": {"rsi": 50.0}} | fields
    return Signal(signal_id=name, ts=at(minutes), **given)


def close(name: str, minutes: float = 1.0, return_pct: float = 1.0, **fields: object) -> Close:
    return Close(signal_id=name, ts=at(minutes), return_pct=return_pct, **fields)


def entries(*events: Signal | Close | bytes, first: int = 1) -> list[Entry]:
    """Entries as they would come from a tape."""
    raw = [event if isinstance(event, bytes) else encode(event) for event in events]
    return [read_entry(f"0-{number}", data) for number, data in enumerate(raw, first)]


def history(signals: int, seed: int = 1, delay: int = 5) -> list[Signal | Close]:
    """Signals a minute apart, each closed `delay` minutes later; `edge` tells who wins, mostly."""
    rng = random.Random(seed)
    events: list[Signal | Close] = []
    returns: dict[int, float] = {}
    for i in range(signals + delay):
        if i >= delay:
            value = returns[i - delay]
            reason = "target" if value > 0 else "stop"
            events.append(close(f"s{i - delay}", i, value, exit_reason=reason))
        if i < signals:
            edge = rng.gauss(0, 1)
            returns[i] = round(rng.uniform(0.5, 1.5), 3) * (1 if edge + rng.gauss(0, 1) > 0 else -1)
            features: dict[str, float | bool | str | None] = {
                "edge": round(edge, 4),
                "noise": round(rng.random(), 4) if rng.random() > 0.1 else None,
                "session": rng.choice(["london", "new_york", "tokyo"]),
            }
            if i > signals // 3:
                features["late"] = rng.random() > 0.5
            events.append(
                signal(
                    f"s{i}",
                    i,
                    symbol=rng.choice(["EURUSD", "XAUUSD"]),
                    side=rng.choice(["long", "short"]),
                    features=features,
                    baseline=rng.choice(["take", "skip", None]),
                )
            )
    return events


def new_core(config: CoreConfig = QUICK, control_key: bytes | None = KEY) -> Core:
    return Core(config, InlineFitter(), control_key)


def run(core: Core, stream: list[Entry]) -> list[Output]:
    return [output for entry in stream for output in core.apply(entry)]
