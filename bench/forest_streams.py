"""The eight streams that forests are held against each other on.

Two come from tapes: weather (NOAA) and sea, with its abrupt drifts. Of the six that River carries,
agrawal, random RBF with drift, hyperplane and mixed are generators, drawn anew for each seed;
phishing and bananas are data sets, the same for every seed.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

from river import datasets
from river.datasets import synth

from bench.results import BenchError
from streams import Close, Signal, Tape

Event = tuple[dict[str, float], bool]

TAPES = ("weather", "sea")
DRAWN: dict[str, Callable[[int], Any]] = {
    "agrawal": lambda seed: synth.Agrawal(seed=seed),
    "rbf drift": lambda seed: synth.RandomRBFDrift(
        seed_model=seed,
        seed_sample=seed,
        n_classes=2,
        n_features=10,
        n_centroids=50,
        change_speed=0.0001,
        n_drift_centroids=10,
    ),
    "hyperplane": lambda seed: synth.Hyperplane(
        seed=seed, n_features=10, n_drift_features=5, mag_change=0.001
    ),
    "mixed": lambda seed: synth.Mixed(seed=seed),
    "phishing": lambda seed: datasets.Phishing(),
    "bananas": lambda seed: datasets.Bananas(),
}


def taken(name: str, seed: int, events: int, tapes: Path | None = None) -> list[Event]:
    """The first events of a stream, each its features and its label.

    Parameters
    ----------
    name
        One of `DRAWN`, or, with `tapes`, of `TAPES`.
    seed
        Of the generators.
    events
        How many at most; a data set may have fewer.
    tapes
        Folder of the tapes.
    """
    if name in DRAWN:
        return list(islice(_plain(DRAWN[name](seed)), events))
    assert tapes is not None
    path = tapes / f"{name}.jsonl.gz"
    if not path.exists():
        raise BenchError(f"no {path}; put the tape there, or leave --tapes out")
    return list(islice(closed(path), events))


def closed(path: Path) -> Iterator[Event]:
    """The trades of a tape whose features are all numbers, in the order of their closes."""
    waiting: dict[str, dict[str, float]] = {}
    for line in Tape(path):
        event = line.entry().event
        if isinstance(event, Signal):
            numbers = cast(dict[str, float], event.features)
            waiting[event.signal_id] = {name: float(value) for name, value in numbers.items()}
        elif isinstance(event, Close) and event.signal_id in waiting:
            yield waiting.pop(event.signal_id), event.return_pct > 0


def _plain(stream: Any) -> Iterator[Event]:
    for x, y in stream:
        yield {str(name): float(value) for name, value in x.items()}, bool(y)
