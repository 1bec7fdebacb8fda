"""Features that say the same, that never change, and that belong together."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from engine.evaluation.feature_rows import Columns, Table

REDUNDANT = 0.9
"""Two features with a rank correlation above this, either way, say the same."""
FEWEST_ROWS = 100
"""A correlation over fewer closes that have both isn't looked at."""
MOST_ROWS = 5_000
"""So many closes, spread evenly over the tape, are enough for rank correlations."""

ENGINES = "(the engine's own)"
"""The group of all columns that the engine makes itself."""

_FAMILY = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two features whose ranks go together, by Spearman's rho."""

    one: str
    other: str
    rho: float


def redundant_pairs(table: Table) -> list[Pair]:
    """Pairs of features with |rho| above `REDUNDANT`, the strongest first.

    Spearman's rank correlation over the closes that have both, of the columns that go together
    best. A category's own columns aren't compared with each other.
    """
    rows = table.view.rows
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int))
    sample = pd.DataFrame(rows[chosen].astype(np.float64))
    rho = sample.corr(method="spearman", min_periods=FEWEST_ROWS).to_numpy()
    rho = np.where(np.isfinite(rho), rho, 0.0)
    names = list(table.features)
    found = []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            block = rho[np.ix_(table.features[one], table.features[other])]
            strongest = float(block.flat[int(np.abs(block).argmax())])
            if abs(strongest) > REDUNDANT:
                found.append(Pair(one, other, strongest))
    return sorted(found, key=lambda pair: -abs(pair.rho))


def clusters(pairs: Sequence[Pair]) -> list[list[str]]:
    """Features that are linked by redundant pairs."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.one, pair.other)))
    linked = np.zeros((len(names), len(names)), np.bool_)
    for pair in pairs:
        linked[names.index(pair.one), names.index(pair.other)] = True
    count, labels = connected_components(linked, directed=False)
    return [[n for n, label in zip(names, labels, strict=True) if label == c] for c in range(count)]


def constant(table: Table) -> list[str]:
    """The bot's features that never change: one value at every close, or never there."""
    rows = table.view.rows
    return [
        name
        for name in table.bots
        if all(_same(rows[:, column]) for column in table.features[name])
    ]


def groups(table: Table, pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Features to leave out together, by name.

    Families, which share the first word of their name (``ema`` of ``ema9_dist`` and
    ``ema_21``); when all features are one family, each by itself. Then the clusters of redundant
    features that aren't a family, and all that the engine adds on its own.
    """
    bots = table.bots
    families: dict[str, list[str]] = {}
    for name in bots:
        word = _FAMILY.match(name)
        families.setdefault(word.group() if word else name, []).append(name)
    if len(families) == 1:
        families = {name: [name] for name in bots}
    found = {family if len(names) > 1 else names[0]: names for family, names in families.items()}
    known = [set(names) for names in found.values()]
    for cluster in clusters(pairs):
        names = [name for name in cluster if name in bots]
        if len(names) > 1 and set(names) not in known:
            found[" ~ ".join(names)] = names
    found[ENGINES] = [name for name in table.features if name not in bots]
    return found


def columns_of(features: Mapping[str, Columns], names: Sequence[str]) -> Columns:
    """All columns of some features."""
    return np.concatenate([features[name] for name in names])


def _same(column: NDArray[np.float32]) -> bool:
    missing = np.isnan(column)
    return bool(missing.all() or (not missing.any() and (column == column[0]).all()))
