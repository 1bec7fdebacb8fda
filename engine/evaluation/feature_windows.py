"""What features are worth to the refits: each window is fitted as the engine fits it, and judged
on the closes that come next.

Everything is measured on closes that no fit has seen, trades that overlap the border purged, by
`learners.refit`. Importances are of features, not of columns: all columns of a category are
permuted as one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from engine.core_config import RefitConfig
from engine.evaluation import bootstrap
from engine.evaluation.feature_rows import Columns, Table
from engine.evaluation.scores import losses
from learners.lean_lightgbm import lightgbm
from learners.refit import RefitJob, judged_text, split, why_not
from streams import TapeError

Floats = NDArray[np.float64]

FEWEST_CLOSES = 1_000
"""A tape with fewer says nothing of features."""
REPEATS = 3
"""How often a feature is permuted in each window; the rise is their mean."""

_CLIP = 0.001  # as the engine judges refits


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One fit and the closes that judge it.

    Parameters
    ----------
    job
        What it was fitted on, with the closes that judge it at its end.
    text
        The LightGBM model.
    held
        Which rows of the job judge, shape (held,).
    losses
        Their log loss, nats, shape (held,).
    base_rate
        The log loss of the share of wins among the closes it was fitted on, shape (held,).
    """

    job: RefitJob
    text: str
    held: NDArray[np.intp]
    losses: Floats
    base_rate: Floats


def fit_windows(
    table: Table, config: RefitConfig, seed: int, count: int, progress: Callable[[float], None]
) -> list[Window]:
    """`count` windows over the tape, each judged on as many closes.

    Windows that nothing could be fitted on (too few closes, one class, all purged) are left out.
    Raises `TapeError` when fewer than two are left.
    """
    closes = len(table.view.won)
    if closes < FEWEST_CLOSES:
        raise TapeError(
            f"{closes} closes of signals in the tapes, at least {FEWEST_CLOSES:,} are needed to "
            "judge features; name more tapes"
        )
    # A fifth of a window at most may judge it (`split`), so the first begins after four of them.
    size = closes // (count + 4)
    found: list[Window] = []
    why = ""
    for start in range(closes - count * size, closes, size):
        job = _job(table, config, seed, start, start + size)
        window, why_not = fit_window(job)
        if window is None:
            why = why_not
        else:
            found.append(window)
        progress((start + size) / closes)
    if len(found) < 2:
        raise TapeError(
            f"nothing could be fitted on {closes} closes: {why} Check return_pct of the closes, "
            "name more tapes, or lower core.refit.params.min_data_in_leaf"
        )
    return found


def fit_window(job: RefitJob) -> tuple[Window | None, str]:
    """The window of a job; or None, and why not."""
    train, held = split(job)
    why = why_not(job, train)
    if why is not None or not len(held):
        return None, why or "No challenger: no closes are left to judge."
    text = judged_text(job)
    won = job.won[train]
    rate = np.full(len(held), (won.sum() + 1) / (len(won) + 2))
    p = _predict(lightgbm.Booster(model_str=text), job.rows[held])
    labels = job.won[held]
    return Window(job, text, held, losses(p, labels), losses(rate, labels)), ""


def without(windows: Iterable[Window], columns: Columns) -> Floats:
    """The log loss of each judging close when the windows are fitted without some columns.

    Of shape (closes,), in the order of the windows.
    """
    return np.concatenate([_losses_without(window, columns) for window in windows])


def gains(windows: Iterable[Window], features: Mapping[str, Columns]) -> Floats:
    """The share of each model's gain in log loss that is each feature's, (windows, features)."""
    found = []
    for window in windows:
        booster = lightgbm.Booster(model_str=window.text)
        by_column = np.asarray(booster.feature_importance("gain"))
        by_feature = np.array([by_column[columns].sum() for columns in features.values()])
        found.append(by_feature / max(by_feature.sum(), 1e-12))
    return np.array(found)


def rises(window: Window, features: Mapping[str, Columns], seed: int) -> Floats:
    """By how much permuting a feature among the judging closes raises their log loss, nats.

    Permutation importance (Breiman 2001, Random Forests), of shape (held, features). Of a feature
    that the model doesn't split on it is exactly 0.
    """
    booster = lightgbm.Booster(model_str=window.text)
    used = np.asarray(booster.feature_importance("split")) > 0
    rows, won = window.job.rows[window.held], window.job.won[window.held]
    rng = np.random.default_rng(seed)
    found = np.zeros((len(rows), len(features)))
    for feature, columns in enumerate(features.values()):
        order = np.concatenate([rng.permutation(len(rows)) for _ in range(REPEATS)])
        if used[columns].any():
            permuted = np.tile(rows, (REPEATS, 1))
            permuted[:, columns] = rows[order][:, columns]
            p = _predict(booster, permuted).reshape(REPEATS, -1)
            raised = np.mean([losses(each, won) for each in p], axis=0)
            found[:, feature] = raised - window.losses
    return found


def means(columns: Mapping[str, Floats]) -> dict[str, bootstrap.Estimate]:
    """The mean of each series, all of the same length, with its interval; blocks suit them all."""
    if not columns:
        return {}
    table = np.column_stack(list(columns.values()))
    closes = len(table)

    def statistic(rows: bootstrap.Rows) -> dict[str, float | None]:
        # The same as table[rows].mean(axis=0), without the copy.
        drawn = np.bincount(rows, minlength=closes) @ table / len(rows)
        return dict(zip(columns, drawn.tolist(), strict=True))

    return bootstrap.estimates(statistic, closes, bootstrap.block_length(*columns.values()))


def _job(table: Table, config: RefitConfig, seed: int, start: int, end: int) -> RefitJob:
    view = table.view
    window = slice(max(start - config.window, 0), end)
    return RefitJob(
        id=f"closes {start}-{end}",
        rows=view.rows[window],
        won=view.won[window],
        opened=view.opened[window],
        closed=view.closed[window],
        holdout=end - start,
        seed=seed,
        params=replace(
            config.params,
            # What judges must not also choose the number of rounds.
            max_rounds=config.params.rounds,
            # Else leaving out a column would change the draw of all others, too.
            feature_fraction=1.0,
        ),
    )


def _losses_without(window: Window, columns: Columns) -> Floats:
    rows = np.delete(window.job.rows, columns, axis=1)
    if not rows.shape[1]:
        return window.base_rate
    fitted, why = fit_window(replace(window.job, rows=rows))
    assert fitted is not None, why  # the rows are the same, and with them what could go wrong
    return fitted.losses


def _predict(booster: lightgbm.Booster, rows: NDArray[np.float32]) -> Floats:
    return np.clip(cast(Floats, booster.predict(rows, num_threads=1)), _CLIP, 1.0 - _CLIP)
