"""The tapes of `bench/quality.py`: those that are there, and those that it makes.

Made ones are written as JSON lines into a folder of the caller's: a tape with its outcomes dealt
out anew, one of pure noise, and SEA with the abrupt drifts that its authors gave it.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from bench.results import BenchError
from streams import Close, Signal, Tape, encode, write_tape

NAMED = ("fx", "weather", "sea")
"""What is judged when nothing else is asked for."""
_ROOT = Path(__file__).parents[1]
_START = datetime(2020, 1, 1, tzinfo=UTC)
_DELAY = 20
"""Signals between a signal and its close, on tapes made here."""
NOISE_SIGNALS = 20_000
NOISE_FEATURES = 20
SEA_THRESHOLDS = (8.0, 9.0, 7.0, 9.5)
"""Of the four concepts of Street and Kim (2001), A streaming ensemble algorithm."""
SEA_CONCEPT = 15_000
"""Signals of each."""
SEA_NOISE = 0.1


_Maker: TypeAlias = Callable[[int], tuple[Signal, float]]
"""The i-th signal, and its return in percent."""


def found(names: str | None) -> dict[str, Path]:
    """The tapes by name: paths as they are, bare names in a folder ``tapes`` near the repository.

    That is ``tapes`` in the repository, beside it, or in a folder beside it.
    """
    given = list(NAMED) if names is None else [name.strip() for name in names.split(",") if name]
    return dict(_found(name) for name in given)


def _found(name: str) -> tuple[str, Path]:
    path = Path(name)
    if path.name.partition(".")[2]:
        if not path.exists():
            raise BenchError(f"no tape {path}; name one that is there")
        return path.name.partition(".")[0], path
    folders = [_ROOT, _ROOT.parent, *sorted(_ROOT.parent.glob("*/"))]
    for folder in folders:
        path = folder / "tapes" / f"{name}.jsonl.gz"
        if path.exists():
            return name, path
    raise BenchError(
        f"no {name}.jsonl.gz in a folder `tapes` in, beside or next to {_ROOT}; give --tapes a path"
    )


def permuted(path: Path, limit: int | None, seed: int, folder: Path) -> Path:
    """A tape whose closes, each at its own time, have each other's outcomes."""
    lines = [orjson.loads(line.data) for line in islice(Tape(path), limit)]
    closes = [i for i, event in enumerate(lines) if event["type"] == "close"]
    dealt = random.Random(seed).sample(closes, len(closes))
    out = folder / f"permuted-{seed}.jsonl"
    outcomes = [_outcome(lines[i]) for i in dealt]
    with write_tape(out) as tape:
        owed = iter(outcomes)
        for event in lines:
            if event["type"] == "close":
                event = {key: event[key] for key in ("type", "signal_id", "ts")} | next(owed)
            tape.write(orjson.dumps(event))
    return out


def _outcome(close: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in close.items() if key not in ("type", "signal_id", "ts")}


def noise(signals: int, seed: int, folder: Path) -> Path:
    """A tape of Gaussian features and a coin's labels: there is nothing to know."""
    out = folder / f"noise-{seed}.jsonl"
    rng = random.Random(seed)

    def signal(i: int) -> tuple[Signal, float]:
        features = {f"n{k}": round(rng.gauss(0.0, 1.0), 6) for k in range(NOISE_FEATURES)}
        value = rng.uniform(0.5, 1.5) * rng.choice((1, -1))
        return _signal(i, features), round(value, 6)

    _write(out, signal, signals)
    return out


def sea(signals: int, seed: int, folder: Path) -> tuple[Path, list[float]]:
    """SEA's four concepts one after the other, and the true win probability of each signal.

    Three features, uniform in [0, 10]; a signal wins when the first two sum to more than the
    concept's threshold, and one label in ten is turned round.
    """
    out = folder / f"sea-{seed}.jsonl"
    rng = random.Random(seed)
    truth: list[float] = []

    def signal(i: int) -> tuple[Signal, float]:
        x = [round(rng.uniform(0.0, 10.0), 6) for _ in range(3)]
        threshold = SEA_THRESHOLDS[i * len(SEA_THRESHOLDS) // signals]
        above = x[0] + x[1] > threshold
        truth.append(1.0 - SEA_NOISE if above else SEA_NOISE)
        won = above != (rng.random() < SEA_NOISE)
        return _signal(
            i, {f"attrib{k + 1}": value for k, value in enumerate(x)}
        ), 1.0 if won else -1.0

    _write(out, signal, signals)
    return out, truth


def _signal(i: int, features: Mapping[str, float]) -> Signal:
    return Signal(
        signal_id=f"s{i}",
        ts=_START + timedelta(minutes=i),
        symbol="S",
        side="long",
        strategy="made",
        features={**features},
    )


def _write(out: Path, signal: _Maker, signals: int) -> None:
    with write_tape(out) as tape:
        for event in _events(signal, signals):
            tape.write(encode(event))


def _events(signal: _Maker, signals: int) -> Iterator[Signal | Close]:
    returns: list[float] = []
    for i in range(signals + _DELAY):
        if i >= _DELAY:
            value = returns[i - _DELAY]
            yield Close(
                signal_id=f"s{i - _DELAY}",
                ts=_START + timedelta(minutes=i),
                return_pct=value,
                exit_reason="target" if value > 0 else "stop",
            )
        if i < signals:
            made, value = signal(i)
            returns.append(value)
            yield made
