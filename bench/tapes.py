"""What the benches are fed: a tape of the user's or a generated one, and either without end."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from streams import Close, Signal, Tape, encode, write_tape

SIGNALS = 20_000
"""Signals of the generated tape, each with its close."""
_START = datetime(2020, 1, 1, tzinfo=UTC)
_DELAY = 20
_NUMBERS = 18
_PAUSE = timedelta(hours=1)


@contextmanager
def opened(path: Path | None, signals: int = SIGNALS) -> Iterator[tuple[Tape, str]]:
    """The tape at `path`, or else a generated one, and what to call it."""
    if path is not None:
        yield Tape(path), path.name
        return
    with TemporaryDirectory(prefix="closeloop-bench-") as folder:
        made = Path(folder) / "generated.jsonl"
        with write_tape(made) as tape:
            for event in generated(signals):
                tape.write(encode(event))
        yield Tape(made), f"generated, {2 * signals:,} events"


def generated(signals: int, seed: int = 1) -> Iterator[Signal | Close]:
    """A minute a signal, its close 20 signals later.

    Of 18 numbers three tell who wins, and what they tell turns half-way round over 10,000 signals;
    a session, a bool and now and then a missing value make it look like a bot's.
    """
    rng = random.Random(seed)
    returns: dict[int, float] = {}
    for i in range(signals + _DELAY):
        ts = _START + timedelta(minutes=i)
        if i >= _DELAY:
            value = returns.pop(i - _DELAY)
            yield Close(
                signal_id=f"g{i - _DELAY}",
                ts=ts,
                return_pct=value,
                exit_reason="target" if value > 0 else "stop",
            )
        if i < signals:
            numbers = [rng.gauss(0.0, 1.0) for _ in range(_NUMBERS)]
            turn = math.cos(math.pi * i / 10_000)
            edge = turn * numbers[0] + numbers[1] * numbers[2]
            won = rng.random() < 1.0 / (1.0 + math.exp(-edge))
            returns[i] = round(rng.uniform(0.5, 1.5) * (1 if won else -1), 4)
            features: dict[str, float | bool | str | None] = {
                f"n{k}": round(number, 6) for k, number in enumerate(numbers)
            }
            features |= {"session": rng.choice(["Tokyo", "London"]), "gap": rng.random() < 0.5}
            if rng.random() < 0.05:
                features["n3"] = None
            yield Signal(
                signal_id=f"g{i}",
                ts=ts,
                symbol=rng.choice(["EURUSD", "XAUUSD"]),
                side=rng.choice(["long", "short"]),
                strategy="generated",
                features=features,
            )


def endless(tape: Tape) -> Iterator[bytes]:
    """The tape's entries again and again, each lap later in time and with signal_ids of its own.

    The first lap is the tape as it stands. What is no event, and a control, stays as it is.
    """
    lap = 0
    shift = span = timedelta()
    earliest = latest = None
    while True:
        for line in tape:
            event = _loaded(line.data)
            if event is None:
                yield line.data
                continue
            ts = datetime.fromisoformat(event["ts"])
            if lap == 0:
                earliest = ts if earliest is None else min(earliest, ts)
                latest = ts if latest is None else max(latest, ts)
                yield line.data
            else:
                event["signal_id"] += f"~{lap}"
                event["ts"] = (ts + shift).isoformat().replace("+00:00", "Z")
                yield orjson.dumps(event)
        if earliest is None or latest is None:
            raise ValueError("the tape holds no signal and no close")
        lap += 1
        span = latest - earliest + _PAUSE
        shift = lap * span


def _loaded(data: bytes) -> dict[str, str] | None:
    """A signal or a close as plain JSON."""
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if isinstance(event, dict) and event.keys() >= {"signal_id", "ts"}:
        return event
    return None


def is_signal(data: bytes) -> bool:
    """Whether the bytes are a signal's, without decoding: no other event has features."""
    return b'"features"' in data


def slots(entries: Iterator[bytes]) -> Iterator[list[bytes]]:
    """What a bot publishes at once: the closes that came since its last signal, and a signal."""
    slot: list[bytes] = []
    for data in entries:
        slot.append(data)
        if is_signal(data):
            yield slot
            slot = []
