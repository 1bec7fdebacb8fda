"""Which features needn't be sent: chosen on the earlier windows, so that the later ones can judge.

A high rank correlation alone is no reason: of two features that nearly agree the difference may be
what tells. So each candidate is left out and the windows are fitted again; it is dropped when they
do no worse.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.evaluation.bootstrap import Estimate
from engine.evaluation.feature_groups import Pair, columns_of, constant
from engine.evaluation.feature_rows import Table
from engine.evaluation.feature_windows import Window, without

NEVER = "never changes"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A feature that needn't be sent, and why."""

    feature: str
    why: str


def candidates(table: Table, rises: Mapping[str, Estimate], pairs: Sequence[Pair]) -> list[Dropped]:
    """The bot's features that might be dropped, those worth least first.

    Those that never change; those whose permutation doesn't raise the loss beyond chance; those
    that say the same as one worth more.
    """
    worth = {name: rise.value or 0.0 for name, rise in rises.items()}
    same = constant(table)
    found = [Dropped(name, NEVER) for name in same]
    for name in sorted(set(table.bots) - set(same), key=lambda name: (worth[name], name)):
        low = rises[name].low
        better = [
            twin
            for pair in pairs
            for twin in {pair.one: [pair.other], pair.other: [pair.one]}.get(name, [])
            if twin.startswith("@") or worth[twin] > worth[name]
        ]
        if low is None or low <= 0.0:
            found.append(Dropped(name, "no sign of use"))
        elif better:
            found.append(Dropped(name, f"says the same as {max(better, key=worth.__getitem__)}"))
    return found


def choose(
    table: Table,
    windows: Sequence[Window],
    proposed: Sequence[Dropped],
    progress: Callable[[float], None],
) -> list[Dropped]:
    """Those of the candidates that can go, tried one after the other, each with those before it."""
    chosen: list[Dropped] = []
    best = float(np.concatenate([window.losses for window in windows]).mean())
    for count, one in enumerate(proposed):
        names = [dropped.feature for dropped in (*chosen, one)]
        loss = float(without(windows, columns_of(table.features, names)).mean())
        # What never changes tells nothing: its absence only changes which columns are drawn.
        if loss <= best or one.why == NEVER:
            chosen.append(one)
            best = loss
        progress((count + 1) / len(proposed))
    return chosen
