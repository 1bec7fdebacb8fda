"""The gate that a challenger must pass to become champion: no worse where it counts.

All figures are of the same held-out closes, which neither model was fitted on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Metric = Literal["log_loss", "brier", "auc", "accuracy", "f1"]
METRICS: tuple[Metric, ...] = get_args(Metric)
"""Log loss (nats) and Brier score, the lower the better; area under the ROC curve, accuracy and F1
of calling a win at 0.5 or above, the higher the better."""
_LOWER: frozenset[str] = frozenset({"log_loss", "brier"})


@dataclass(frozen=True, slots=True)
class Gate:
    """What is asked of a challenger.

    Parameters
    ----------
    tolerance
        By how many nats its log loss may be above the champion's.
    guarded, guard
        Metrics of which none may be worse than the champion's by more than this share of it.
    floors
        The least AUC, accuracy or F1, whatever the champion's is.
    min_closes
        Held-out closes below which nobody is judged.
    """

    tolerance: float = 0.0002
    guarded: tuple[str, ...] = ("log_loss", "brier", "auc", "accuracy")
    guard: float = 0.1
    floors: Mapping[str, float] = field(default_factory=dict)
    min_closes: int = 10

    def refusal(
        self, challenger: Mapping[str, float], champion: Mapping[str, float], closes: int
    ) -> str | None:
        """Why a challenger with these metrics isn't let in, as the end of a sentence; else None.

        `champion` is empty while there is none, or none that `closes` of them can judge. What a
        metric isn't defined for (an AUC of wins alone) isn't asked.
        """
        if closes < self.min_closes:
            return f"{closes} held-out closes are too few to judge by; {self.min_closes} are asked"
        for name, floor in self.floors.items():
            if challenger.get(name, floor) < floor:
                return f"its {name} {challenger[name]:.4f} is below the floor of {floor:g}"
        for name in self.guarded:
            if name not in challenger or name not in champion:
                continue
            new, old = challenger[name], champion[name]
            worse = new > old * (1.0 + self.guard) if name in _LOWER else new < old * (
                1.0 - self.guard
            )  # fmt: skip
            if worse:
                return (
                    f"its {name} {new:.4f} is worse than the champion's {old:.4f} by more than"
                    f" {self.guard:.0%}"
                )
        return None


def metrics(p: NDArray[np.float64], won: NDArray[np.bool_]) -> dict[str, float]:
    """All of `METRICS` that are defined for these probabilities and labels, of shape (closes,)."""
    # Not at the top: it takes longer to load than all else that a command needs.
    from scipy.stats import rankdata

    if not len(won):
        return {}
    called = p >= 0.5
    wins, hits = int(won.sum()), int((called & won).sum())
    found = {
        "log_loss": float(-np.log(np.where(won, p, 1.0 - p)).mean()),
        "brier": float(np.square(p - won).mean()),
        "accuracy": float((called == won).mean()),
    }
    if 0 < wins < len(won):
        # Mann and Whitney: the share of pairs of a win and a loss that are in the right order.
        ranks = float(rankdata(p)[won].sum())
        found["auc"] = (ranks - wins * (wins + 1) / 2) / (wins * (len(won) - wins))
    if wins + int(called.sum()):
        found["f1"] = 2.0 * hits / (wins + int(called.sum()))
    return found
