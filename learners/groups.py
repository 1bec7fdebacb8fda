"""Running means by group, each shrunk towards the mean of all, so that sparse groups borrow."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from math import nan
from typing import Any, cast

from river.base import Classifier
from river.base.typing import ClfTarget

LEVELS = ("symbol", "strategy", "side", "regime")
"""What a signal can be grouped by."""


class GroupMeans:
    """Exponentially weighted means of a number, by group.

    A group's mean counts as if it had begun with `shrink` closes of the mean of all (empirical
    Bayes in its simplest form; Efron and Morris 1975, Data analysis using Stein's estimator).

    Parameters
    ----------
    shrink
        Closes that the mean of all counts for in each group.
    half_life
        After how many closes of its group a close counts half.
    max_groups
        Groups remembered; the one whose last close is the oldest goes first.
    """

    def __init__(
        self, shrink: float = 50.0, half_life: float = 2000.0, max_groups: int = 1024
    ) -> None:
        self.shrink = shrink
        self.half_life = half_life
        self.max_groups = max_groups
        self._decay = 0.5 ** (1.0 / half_life)
        # By group: weight, weighted sum, closes.
        self._groups: OrderedDict[str, list[float]] = OrderedDict()

    def mean(self, group: str, overall: float, min_closes: int = 0) -> float:
        """The group's mean, where the mean of all is `overall`; NaN with fewer closes than that."""
        sums = self._groups.get(group)
        if sums is None:
            return overall if min_closes <= 0 else nan
        weight, total, closes = sums
        if closes < min_closes:
            return nan
        return (total + self.shrink * overall) / (weight + self.shrink)

    def closes(self, group: str) -> int:
        """Closes of that group so far."""
        sums = self._groups.get(group)
        return 0 if sums is None else int(sums[2])

    def learn(self, group: str, value: float) -> None:
        """Take in one close."""
        sums = self._groups.get(group)
        if sums is None:
            sums = self._groups[group] = [0.0, 0.0, 0.0]
            if len(self._groups) > self.max_groups:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end(group)
        sums[0] = sums[0] * self._decay + 1.0
        sums[1] = sums[1] * self._decay + value
        sums[2] += 1.0

    def state(self) -> list[object]:
        """All that `restore` needs."""
        return [[group, *sums] for group, sums in self._groups.items()]

    def restore(self, state: Iterable[Any]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self._groups = OrderedDict((group, list(sums)) for group, *sums in state)


class GroupRate(Classifier):
    """The win rate of signals like this one, shrunk towards that of all.

    Parameters
    ----------
    by
        What makes signals alike, joined by plus signs: `symbol`, `strategy`, `side`, `regime`.
    min_closes
        Until its group has this many closes, it abstains.
    shrink, half_life, max_groups
        As of `GroupMeans`.
    """

    def __init__(
        self,
        by: str,
        min_closes: int = 0,
        shrink: float = 50.0,
        half_life: float = 2000.0,
        max_groups: int = 1024,
    ) -> None:
        unknown = [level for level in by.split("+") if level not in LEVELS]
        if unknown:
            raise ValueError(
                f"by={by!r}: {unknown[0]!r} is no level; use {', '.join(LEVELS)}, joined by +"
            )
        self.by = by
        self.min_closes = min_closes
        self.shrink = shrink
        self.half_life = half_life
        self.max_groups = max_groups
        self.wins = 0
        self.seen = 0
        self._levels = by.split("+")
        self._means = GroupMeans(shrink, half_life, max_groups)

    def predict_proba_groups(self, groups: Mapping[Hashable, str]) -> float:
        """By a signal's groups, the levels by their names; NaN when it abstains."""
        overall = (self.wins + 1) / (self.seen + 2)
        return self._means.mean(self._group(groups), overall, self.min_closes)

    def predict_proba_one(self, x: Mapping[Hashable, str], **_: object) -> dict[ClfTarget, float]:
        """As `predict_proba_groups`; {} when it abstains."""
        p = self.predict_proba_groups(x)
        return {False: 1.0 - p, True: p} if p == p else {}

    def learn_one(self, x: Mapping[Hashable, str], y: ClfTarget) -> None:
        """Count one close."""
        won = bool(y)
        self._means.learn(self._group(x), 1.0 if won else 0.0)
        self.wins += won
        self.seen += 1

    def _group(self, x: Mapping[Hashable, str]) -> str:
        if len(self._levels) == 1:
            return x[self.by]
        return "\n".join([x[level] for level in self._levels])

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"wins": self.wins, "seen": self.seen, "groups": self._means.state()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self.wins = cast(int, state["wins"])
        self.seen = cast(int, state["seen"])
        self._means.restore(cast(list[Any], state["groups"]))
