"""`closeloop features`: what each feature is worth, how steadily, and which needn't be sent.

The model asked is the LightGBM of the refits, fitted on windows as the engine does and judged on
the closes that come next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from engine.core_config import CoreConfig
from engine.evaluation.bootstrap import Estimate, holm, mean
from engine.evaluation.feature_choice import Dropped, candidates, choose
from engine.evaluation.feature_groups import Pair, columns_of, groups, redundant_pairs
from engine.evaluation.feature_rows import Table, read_table
from engine.evaluation.feature_windows import Window, fit_windows, gains, means, rises, without

CHOOSING = 2 / 3
"""The share of windows, the earlier ones, that choose what to drop; the others judge it."""
SURE = 0.05
"""A feature is of use beyond chance with a p-value below this, all looks counted."""

Floats = NDArray[np.float64]
Progress = Callable[[str, float], None]
"""Gets what is being done, and how much of it is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Importance:
    """What one feature is worth.

    Parameters
    ----------
    gain
        Its share of the models' gain in log loss while they were fitted, mean over the windows.
    rise
        By how much permuting it raises the log loss of closes to come, nats.
    sure
        Whether that is beyond chance, with all features looked at.
    steady
        The share of windows in which it rises.
    """

    gain: float
    rise: Estimate
    sure: bool
    steady: float


@dataclass(frozen=True, slots=True)
class Stability:
    """How alike the ranks of features are from window to window, by Spearman's rho.

    The mean over neighbouring windows and over all pairs; None when they don't define it.
    """

    neighbours: float | None
    all_pairs: float | None


@dataclass(frozen=True, slots=True)
class Drop:
    """What to drop, and what that does on the later windows, which had no part in the choice.

    Parameters
    ----------
    proposed
        The candidates that were tried.
    chosen
        The ones to drop.
    closes
        That judge it.
    kept_loss, dropped_loss
        The log loss of them with all features and without the chosen ones.
    difference
        The second minus the first, nats.
    """

    proposed: list[Dropped]
    chosen: list[Dropped]
    closes: int
    kept_loss: float
    dropped_loss: float
    difference: Estimate

    @property
    def harms(self) -> bool:
        """Whether dropping them is worse beyond chance."""
        return self.difference.low is not None and self.difference.low > 0.0

    @property
    def helps(self) -> bool:
        """Whether dropping them is better beyond chance."""
        return self.difference.high is not None and self.difference.high < 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """All that was found.

    Parameters
    ----------
    closes, judged
        Of the tape, and of those the ones that windows are judged on.
    log_loss, base_rate
        The model's log loss on them, and that of the share of wins in its windows.
    behind
        The mean of the first minus the second.
    importances
        By feature, the one worth most first.
    by_window
        The rise of each feature in each window, shape (features, windows), in that order.
    stability
        Of ranks by rise, and of ranks by gain.
    pairs
        Features that say the same.
    groups
        Which features belong together.
    without
        By how much the log loss rises when a group is left out of the fits, nats.
    """

    closes: int
    judged: int
    log_loss: float
    base_rate: float
    behind: Estimate
    importances: Mapping[str, Importance]
    by_window: Floats
    stability: Mapping[str, Stability]
    pairs: Sequence[Pair]
    groups: Mapping[str, list[str]]
    without: Mapping[str, Estimate]
    drop: Drop


def analyse(
    tapes: Sequence[Path],
    config: CoreConfig,
    windows: int = 20,
    seed: int = 1,
    progress: Progress = lambda what, done: None,
) -> Analysis:
    """Look at every feature of the tapes.

    Parameters
    ----------
    config
        Whose refits are asked.
    windows
        How many at most.
    seed
        Of the permutations.

    Raises
    ------
    TapeError
        When there are too few closes, or all are wins or losses.
    """
    table = read_table(tapes, config, lambda done: progress("reading", done))
    fitted = fit_windows(
        table, config.refit, config.seed, windows, lambda done: progress("fitting windows", done)
    )
    losses = np.concatenate([window.losses for window in fitted])
    base = np.concatenate([window.base_rate for window in fitted])
    raised = []
    for number, window in enumerate(fitted):
        raised.append(rises(window, table.features, seed + number))
        progress("permuting features", (number + 1) / len(fitted))
    gained = gains(fitted, table.features)
    worth = means(dict(zip(table.features, np.concatenate(raised).T, strict=True)))
    pairs = redundant_pairs(table)
    together = groups(table, pairs)
    left_out = {}
    for count, (name, members) in enumerate(together.items()):
        left_out[name] = without(fitted, columns_of(table.features, members)) - losses
        progress("leaving out groups", (count + 1) / len(together))
    by_window = np.array([each.mean(axis=0) for each in raised]).T
    order = sorted(range(len(worth)), key=lambda i: -by_window[i].mean())
    importances = _importances(worth, gained, by_window)
    names = list(importances)
    return Analysis(
        closes=len(table.view.won),
        judged=len(losses),
        log_loss=float(losses.mean()),
        base_rate=float(base.mean()),
        behind=mean(losses - base),
        importances={names[i]: importances[names[i]] for i in order},
        by_window=by_window[order],
        stability={"permutation": _stability(by_window), "gain": _stability(gained.T)},
        pairs=pairs,
        groups=together,
        without=means(left_out),
        drop=_drop(table, fitted, raised, pairs, progress),
    )


def _importances(
    worth: Mapping[str, Estimate], gained: Floats, by_window: Floats
) -> dict[str, Importance]:
    sure = beyond_chance(worth)
    return {
        name: Importance(
            gain=float(gained[:, i].mean()),
            rise=rise,
            sure=name in sure,
            steady=float((by_window[i] > 0.0).mean()),
        )
        for i, (name, rise) in enumerate(worth.items())
    }


def beyond_chance(rises: Mapping[str, Estimate]) -> set[str]:
    """Those above zero that chance doesn't explain, all of them looked at (Holm's correction)."""
    p_values = holm([rise.p for rise in rises.values()])
    return {
        name
        for (name, rise), p in zip(rises.items(), p_values, strict=True)
        if p is not None and p < SURE and (rise.value or 0.0) > 0.0
    }


def _stability(by_window: Floats) -> Stability:
    """Of importances of shape (features, windows). A window that ranks nothing is left out."""
    ranks = rankdata(by_window, axis=0)
    ranks = ranks[:, np.ptp(ranks, axis=0) > 0]
    if ranks.shape[1] < 2:
        return Stability(None, None)
    rho = np.corrcoef(ranks.T)
    pairs = rho[np.triu_indices(len(rho), 1)]
    return Stability(float(np.diag(rho, 1).mean()), float(pairs.mean()))


def _drop(
    table: Table,
    fitted: Sequence[Window],
    raised: Sequence[Floats],
    pairs: Sequence[Pair],
    progress: Progress,
) -> Drop:
    border = max(min(round(len(fitted) * CHOOSING), len(fitted) - 1), 1)
    early, late = fitted[:border], fitted[border:]
    worth = means(dict(zip(table.features, np.concatenate(raised[:border]).T, strict=True)))
    proposed = candidates(table, worth, pairs)
    chosen = choose(table, early, proposed, lambda done: progress("choosing what to drop", done))
    kept = np.concatenate([window.losses for window in late])
    names = [dropped.feature for dropped in chosen]
    dropped = without(late, columns_of(table.features, names)) if names else kept
    return Drop(
        proposed,
        chosen,
        len(kept),
        float(kept.mean()),
        float(dropped.mean()),
        mean(dropped - kept),
    )
