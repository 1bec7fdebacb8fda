"""Bad days: a healthy beginning, then something goes wrong for a while, then it is over.

A spoiler changes what the engine gets to see from one moment on. What the trades would really have
brought stands beside the events (`Day.truth`): a broken label feed changes nothing about that.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import exp
from statistics import median
from typing import TypeAlias

from msgspec.structs import replace as changed
from scipy.stats import mannwhitneyu

from bench.results import BenchError
from streams import Close, Signal

Event: TypeAlias = Signal | Close
Events: TypeAlias = list[Event]
_START = datetime(2020, 1, 1, tzinfo=UTC)
_BETWEEN = timedelta(minutes=5)
_LONGEST = 24
"""Signals after which the last trade is closed: two hours."""
WRONG_RETURN = 1e4
TO_AND_FRO = 100
"""Signals from one regime to the next."""
FEWEST = 100
"""Signals with a number as feature below which nobody says how strong it is."""


@dataclass(frozen=True, slots=True)
class Day:
    """What happens on a day.

    Parameters
    ----------
    trouble, after
        Events in their order, while something is wrong and when it is over.
    truth
        What each trade brings or would bring, percent, by signal.
    misled
        Whether refits of the trouble were fitted on closes that aren't true.
    """

    trouble: Events
    after: Events
    truth: Mapping[str, float]
    misled: bool = False


Spoiler: TypeAlias = Callable[[Day, random.Random], Day]


def made(signals: int, seed: int) -> Iterator[Event]:
    """Signals five minutes apart, each closed within two hours, whatever came since.

    Two of eight numbers tell who wins, the first of them most: who knows all is right seven times
    in ten.
    """
    rng = random.Random(seed)
    due: dict[int, list[Close]] = {}
    for number in range(signals + _LONGEST + 1):
        ts = _START + number * _BETWEEN
        yield from due.pop(number, [])
        if number >= signals:
            continue
        numbers = [rng.gauss(0.0, 1.0) for _ in range(8)]
        won = rng.random() < 1.0 / (1.0 + exp(-numbers[0] - 0.6 * numbers[1]))
        delay = rng.randint(2, _LONGEST)
        due.setdefault(number + delay, []).append(
            Close(
                signal_id=f"d{number}",
                ts=ts + delay * _BETWEEN,
                return_pct=round(rng.uniform(0.5, 1.5) * (1 if won else -1), 4),
                exit_reason="target" if won else "stop",
            )
        )
        features: dict[str, float | bool | str | None] = {
            name: round(value, 6)
            for name, value in zip(
                ("edge", "pull", "n1", "n2", "n3", "n4", "n5", "n6"), numbers, strict=True
            )
        }
        yield Signal(
            signal_id=f"d{number}",
            ts=ts,
            symbol=rng.choice(["EURUSD", "GBPUSD", "XAUUSD", "BTCUSD"]),
            side=rng.choice(["long", "short"]),
            strategy=rng.choice(["breakout", "reversal"]),
            features=features | {"session": rng.choice(["Tokyo", "London"])},
            baseline="take",
        )


def signals_of(events: Iterable[Event]) -> list[Signal]:
    """Those among events."""
    return [event for event in events if isinstance(event, Signal)]


def cut(events: Sequence[Event], signals: int) -> int:
    """How many events there are up to just before that signal, counted from 0.

    Raises `BenchError` when there are fewer.
    """
    seen = 0
    for number, event in enumerate(events):
        if isinstance(event, Signal):
            if seen == signals:
                return number
            seen += 1
    raise BenchError(f"the tape has {seen:,} signals; the day needs more than {signals:,}")


def strongest(events: Sequence[Event]) -> str:
    """The numeric feature that tells winners from losers best by itself, by its AUC."""
    won = {event.signal_id: event.return_pct > 0 for event in events if isinstance(event, Close)}
    values: dict[str, tuple[list[float], list[float]]] = {}
    for signal in signals_of(events):
        if signal.signal_id not in won:
            continue
        for name, value in signal.features.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                values.setdefault(name, ([], []))[won[signal.signal_id]].append(value)
    strength = {}
    for name, (lost, gained) in values.items():
        if min(len(lost), len(gained)) >= FEWEST:
            auc = mannwhitneyu(gained, lost).statistic / len(gained) / len(lost)
            strength[name] = abs(float(auc) - 0.5)
    if not strength:
        raise BenchError("no feature of the tape is a number often enough; give another tape")
    return max(strength, key=strength.__getitem__)


# What goes wrong


def undisturbed(day: Day, rng: random.Random) -> Day:
    """Nothing does."""
    return day


def wrong_regime(day: Day, rng: random.Random) -> Day:
    """What won loses, for the trades that begin during the trouble."""
    return _regimes(day, lambda number: True)


def to_and_fro(day: Day, rng: random.Random) -> Day:
    """What won loses for a while, then wins again, then loses: who adapts is always late."""
    return _regimes(day, lambda number: number // TO_AND_FRO % 2 == 0)


def _regimes(day: Day, wrong: Callable[[int], bool]) -> Day:
    """The opposite comes of the trouble's trades for whose number `wrong` says so."""
    begun = enumerate(signals_of(day.trouble))
    turned = {signal.signal_id for number, signal in begun if wrong(number)}
    truth = {name: -pct if name in turned else pct for name, pct in day.truth.items()}

    def turn(event: Event) -> Event:
        return _turned(event) if isinstance(event, Close) and event.signal_id in turned else event

    return Day([turn(e) for e in day.trouble], [turn(e) for e in day.after], truth)


def poisoned(feature: str, how: str) -> Spoiler:
    """A feature is `stuck` at a usual value, `scaled` by a million, or `shuffled` among signals."""

    def spoil(day: Day, rng: random.Random) -> Day:
        seen = [s.features[feature] for s in signals_of(day.trouble) if feature in s.features]
        numbers = [v for v in seen if isinstance(v, float | int) and not isinstance(v, bool)]
        usual = median(numbers) if numbers else 0.0
        rng.shuffle(seen)
        dealt = iter(seen)

        def spoiled(event: Event) -> Event:
            if not isinstance(event, Signal) or feature not in event.features:
                return event
            value = event.features[feature]
            if how == "shuffled":
                value = next(dealt)
            elif how == "stuck":
                value = usual
            elif value is not None:
                value = 1e6 * float(value)
            return changed(event, features=event.features | {feature: value})

        return replace(day, trouble=[spoiled(event) for event in day.trouble])

    return spoil


def labels_turned(day: Day, rng: random.Random) -> Day:
    """Every close that comes says the opposite."""
    turned = [_turned(e) if isinstance(e, Close) else e for e in day.trouble]
    return replace(day, trouble=turned, misled=True)


def labels_absurd(day: Day, rng: random.Random) -> Day:
    """Every close that comes says that ten thousand percent were won."""

    def absurd(event: Event) -> Event:
        if isinstance(event, Signal):
            return event
        return changed(event, return_pct=WRONG_RETURN, exit_reason="target")

    return replace(day, trouble=[absurd(event) for event in day.trouble], misled=True)


def labels_stuck(day: Day, rng: random.Random) -> Day:
    """No close comes during the trouble, and then all at once."""
    held = [event for event in day.trouble if isinstance(event, Close)]
    return replace(day, trouble=list(signals_of(day.trouble)), after=held + day.after)


def _turned(close: Close) -> Close:
    reason = close.exit_reason
    other = {"target": "stop", "stop": "target"}.get(reason or "", reason)
    return changed(close, return_pct=-close.return_pct, exit_reason=other)
