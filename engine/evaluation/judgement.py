"""Every score of some closes with its interval: probabilities, taken, offered, baseline."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engine.evaluation import scores
from engine.evaluation.bootstrap import (
    RESAMPLES,
    SEED,
    Estimate,
    Rows,
    block_length,
    estimates,
    influence,
)
from engine.evaluation.prequential import Outcomes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Judgement = dict[str, dict[str, Estimate]]
"""Scores by name, by what is scored: `published`, `base_rate` and their `difference`; trades
`taken`, `offered` and, where the bot names it, of its `baseline`; and `taken_minus_offered`,
`taken_minus_baseline`."""


def baseline_of(outcomes: Outcomes, default: str) -> Bools | None:
    """Which the bot's own rules would have taken; None when it names no baseline at all.

    `default` is what a signal without one counts as, among others with one.
    """
    if not np.any(outcomes.baseline != ""):
        return None
    return np.asarray(np.where(outcomes.baseline == "", default, outcomes.baseline) == "take")


def block_of(outcomes: Outcomes, base_rate: Floats) -> float:
    """The mean block length that suits the returns, the log losses and what taking adds."""
    gained = scores.losses(outcomes.probability, outcomes.won) - scores.losses(
        base_rate, outcomes.won
    )
    returns = outcomes.return_pct
    return block_length(returns, gained, influence(outcomes.taken, returns))


def judge(
    outcomes: Outcomes,
    base_rate: Floats,
    baseline: Bools | None,
    block: float,
    count: int = RESAMPLES,
    seed: int = SEED,
) -> Judgement:
    """Every score with its interval.

    But for two: the ECE, which resampling itself makes larger (`scores.calibrated_ece` says what it
    means), and the base rate's AUC, which compares one time with another and is near a half.

    Parameters
    ----------
    outcomes
        Those to be judged.
    base_rate
        Its forecast beside each, shape (closes,).
    baseline
        From `baseline_of`.
    block, count, seed
        Of the bootstrap.
    """
    won, returns, size = outcomes.won, outcomes.return_pct, outcomes.size_multiplier
    calls = {"taken": outcomes.taken, "offered": np.ones(len(won), np.bool_)}
    if baseline is not None:
        calls["baseline"] = baseline
    forecasts = {"published": outcomes.probability, "base_rate": base_rate}
    squares = {name: (p - won) ** 2 for name, p in forecasts.items()}
    logs = {name: scores.losses(p, won) for name, p in forecasts.items()}

    def statistic(rows: Rows) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        wins, gains = won[rows], returns[rows]
        for name, p in forecasts.items():
            found[f"{name}.log_loss"] = scores.mean_return(logs[name][rows])
            found[f"{name}.brier"] = scores.mean_return(squares[name][rows])
            found[f"{name}.accuracy_at_half"] = scores.accuracy(p[rows] >= 0.5, wins)
        _subtract(found, "difference", "published", "base_rate")
        found["published.auc"] = scores.auc(outcomes.probability[rows], wins)
        for name, called in calls.items():
            chosen = called[rows]
            those = scores.trade_scores(gains[chosen]) | scores.call_scores(chosen, wins)
            if name == "taken":
                those["sized_return_pct"] = _weighted(gains[chosen], size[rows][chosen])
            found |= {f"{name}.{score}": value for score, value in those.items()}
        for other in ("offered", "baseline"):
            if other in calls:
                _subtract(found, f"taken_minus_{other}", "taken", other)
        return found

    judgement: Judgement = {}
    for path, figure in estimates(statistic, len(won), block, count, seed).items():
        name, score = path.split(".")
        judgement.setdefault(name, {})[score] = figure
    for name, p in forecasts.items():
        judgement[name]["ece"] = Estimate(scores.ece(p, won))
    judgement["base_rate"]["auc"] = Estimate(scores.auc(base_rate, won))
    return judgement


def figures(judgement: Judgement) -> dict[str, dict[str, Mapping[str, float | None]]]:
    """Everything for JSON."""
    return {
        name: {score: figure.figures() for score, figure in those.items()}
        for name, those in judgement.items()
    }


def _subtract(found: dict[str, float | None], into: str, one: str, other: str) -> None:
    """Add the difference of each score that both have."""
    for path, value in list(found.items()):
        name, score = path.split(".")
        if name == one and f"{other}.{score}" in found:
            less = found[f"{other}.{score}"]
            found[f"{into}.{score}"] = None if value is None or less is None else value - less


def _weighted(values: Floats, weights: Floats) -> float | None:
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0.0 else None
