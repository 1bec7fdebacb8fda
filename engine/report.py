"""What a run was worth: quality figures over its outcomes, as they come.

Quality figures leave out the first tenth of the closes, while the model knows nothing yet.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.events import Outcome

SKIPPED_SHARE = 0.1
BINS = 15


def log_loss(p: NDArray[np.float64], won: NDArray[np.bool_]) -> float | None:
    """Mean negative log likelihood, nats; None without data."""
    if not len(p):
        return None
    likelihood = np.where(won, p, 1.0 - p)
    return float(-np.log(np.maximum(likelihood, 1e-15)).mean())


def auc(p: NDArray[np.float64], won: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, as the share of pairs in order, ties half; None for one class."""
    wins, losses = p[won], np.sort(p[~won])
    if not len(wins) or not len(losses):
        return None
    below = np.searchsorted(losses, wins, "left")
    up_to = np.searchsorted(losses, wins, "right")
    return float((below + up_to).mean()) / (2 * len(losses))


def brier(p: NDArray[np.float64], won: NDArray[np.bool_]) -> float | None:
    """Mean squared error of the probability; None without data."""
    return float(np.mean((p - won) ** 2)) if len(p) else None


def ece(p: NDArray[np.float64], won: NDArray[np.bool_]) -> float | None:
    """Expected calibration error over bins of equal mass; None without data."""
    if not len(p):
        return None
    order = np.argsort(p, kind="stable")
    bins = [b for b in np.array_split(order, BINS) if len(b)]
    return float(sum(abs(p[b].mean() - won[b].mean()) * len(b) for b in bins) / len(p))


def trades(returns: NDArray[np.float64], won: NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Count, win rate and mean return (percent) of some trades."""
    count = len(returns)
    return {
        "count": count,
        "win_rate": float(won.mean()) if count else None,
        "avg_return_pct": float(returns.mean()) if count else None,
    }


@dataclass
class Report:
    """Collects outcomes and sums them up."""

    probability: list[float] = field(default_factory=list)
    won: list[bool] = field(default_factory=list)
    return_pct: list[float] = field(default_factory=list)
    action: list[str] = field(default_factory=list)
    experts: dict[str, list[float]] = field(default_factory=dict)
    actions: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        seen = len(self.won)
        self.probability.append(outcome.probability)
        self.won.append(outcome.won)
        self.return_pct.append(outcome.return_pct)
        self.action.append(outcome.action)
        for name, p in outcome.experts.items():
            column = self.experts.setdefault(name, [])
            # An expert that abstained has no entry; it is judged where it spoke.
            column.extend([np.nan] * (seen - len(column)))
            column.append(p)

    def summary(self, base_rate: str = "base_rate") -> dict[str, object]:
        """The quality figures, ready for JSON."""
        start = int(len(self.won) * SKIPPED_SHARE)
        p = np.array(self.probability[start:])
        won = np.array(self.won[start:], np.bool_)
        returns = np.array(self.return_pct[start:])
        actions = np.array(self.action[start:], np.str_)
        taken = actions != "skip"
        experts = {}
        for name, column in self.experts.items():
            q = np.full(len(self.won), np.nan)
            q[: len(column)] = column
            q = q[start:]
            spoke = np.isfinite(q)
            experts[name] = {
                "log_loss": log_loss(q[spoke], won[spoke]),
                "auc": auc(q[spoke], won[spoke]),
                "spoke": float(spoke.mean()) if len(spoke) else 0.0,
            }
        return {
            "closes_judged": len(won),
            "log_loss": log_loss(p, won),
            "base_rate_log_loss": experts[base_rate]["log_loss"] if base_rate in experts else None,
            "auc": auc(p, won),
            "brier": brier(p, won),
            "ece": ece(p, won),
            "taken": trades(returns[taken], won[taken]),
            "offered": trades(returns, won),
            "by_action": {
                name: trades(returns[actions == name], won[actions == name])
                for name in ("take", "reduce_size", "skip")
            },
            "experts": experts,
        }
