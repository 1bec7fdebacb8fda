"""Pictures of an evaluation, as matplotlib figures. Long series are thinned: a page stays small."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from engine.evaluation import scores
from engine.evaluation.prequential import Outcomes, Run
from engine.evaluation.slices import Slice

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_POINTS = 1_000
"""Points of one line; marks of one kind."""
GREY = "0.6"


def thinned(count: int, most: int = MOST_POINTS) -> NDArray[np.int64]:
    """Which of `count` points to draw: evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def reliability(outcomes: Outcomes) -> Figure:
    """Win rate against published probability in bins of equal mass, with 95 % binomial bars."""
    figure, axes = _axes(5.5, 4.5)
    said, came, sizes = scores.reliability(outcomes.probability, outcomes.won)
    error = 1.96 * np.sqrt(said * (1.0 - said) / sizes)
    axes.errorbar(said, came, error, fmt="o", ms=4, lw=1)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], "--", lw=1, color=GREY, zorder=0)
    axes.set(xlim=(low, high), xlabel="published probability", ylabel="win rate")
    return figure


def roc_and_precision_recall(outcomes: Outcomes) -> Figure:
    """Both curves of the published probability, side by side."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    won, p = outcomes.won, outcomes.probability
    left.plot([0, 1], [0, 1], "--", lw=1, color=GREY)
    right.axhline(float(won.mean()), ls="--", lw=1, color=GREY)
    if won.any() and not won.all():
        false, true, _ = roc_curve(won, p)
        rows = thinned(len(false))
        left.plot(false[rows], true[rows])
        precision, recall, _ = precision_recall_curve(won, p)
        rows = thinned(len(recall))
        right.plot(recall[rows], precision[rows])
        # The first few closes alone swing between 0 and 1.
        settled = precision[recall >= 0.01]
        right.set_ylim(min(settled.min(), won.mean()) - 0.02, max(settled.max(), won.mean()) + 0.02)
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    right.set(xlabel="recall", ylabel="precision", xlim=(0, 1))
    for axes in (left, right):
        _plain(axes)
    return figure


def cumulative(outcomes: Outcomes, baseline: Bools | None) -> Figure:
    """Summed returns of taken, offered and baseline over time."""
    figure, axes = _axes(9, 4)
    lines = {"offered": np.ones(len(outcomes), np.bool_), "taken": outcomes.taken}
    if baseline is not None:
        lines["baseline"] = baseline
    rows = thinned(len(outcomes))
    days = outcomes.closed[rows].astype("datetime64[s]")
    for (name, chosen), colour in zip(lines.items(), (GREY, "C0", "C1"), strict=False):
        total = np.cumsum(np.where(chosen, outcomes.return_pct, 0.0))
        axes.plot(days, total[rows], lw=1.2, label=name, color=colour)
    axes.axhline(0.0, lw=0.8, color=GREY, zorder=0)
    axes.set(ylabel="return, percent points")
    axes.legend(frameon=False)
    return figure


def weights(run: Run) -> Figure:
    """The mixture's weights over the closes, and below them what happened to the model."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.stackplot(run.weights_at, run.weights.T, labels=run.names, lw=0)
    upper.set(ylim=(0, 1), ylabel="weight", xlim=(0, max(len(run.outcomes), 1)))
    upper.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    kinds = sorted({mark.kind for mark in run.marks})
    for height, kind in enumerate(kinds):
        at = np.array([mark.close for mark in run.marks if mark.kind == kind])
        at = at[thinned(len(at))]
        lower.plot(at, np.full(len(at), height), "|", ms=8, color=f"C{height}")
    lower.set(
        yticks=range(len(kinds)),
        yticklabels=[kind.replace("_", " ") for kind in kinds],
        ylim=(-0.7, max(len(kinds), 1) - 0.3),
        xlabel="closes learned",
    )
    for axes in (upper, lower):
        _plain(axes)
    return figure


def slices(chosen: Sequence[Slice]) -> Figure:
    """Taken less offered, a row a slice, with intervals."""
    known = [each for each in chosen if each.advantage.interval is not None]
    known.reverse()
    figure, axes = _axes(8, 1.0 + 0.22 * max(len(known), 1))
    for row, each in enumerate(known):
        sure = each.advantage_p is not None and each.advantage_p < 0.05
        axes.plot(each.advantage.interval or (), [row, row], lw=1, color="C0")
        axes.plot(each.advantage.value or 0.0, row, "o", color="C0", mfc="C0" if sure else "white")
    axes.axvline(0.0, ls="--", lw=1, color=GREY, zorder=0)
    axes.set(
        yticks=range(len(known)),
        yticklabels=[f"{each.kind} {each.name}" for each in known],
        xlabel="taken − offered, percent points a trade",
    )
    axes.tick_params(axis="y", labelsize="small")
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
