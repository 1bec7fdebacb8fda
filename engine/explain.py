"""A decision taken apart: the row, each expert, their mixture, what moved each of them, the policy.

`explain` is given a core in the exact state before the signal, so nothing here is an approximation
of the decision: it is made once more on the way, and said to be equal to what was published or not.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, isnan

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.alignment import same
from engine.core import Core
from engine.core_config import PolicyConfig
from learners.booster import Booster
from learners.contributions import shapley
from learners.forest import AdaptiveRandomForest
from learners.forest_paths import TreePath, by_column, paths
from learners.linear import Logistic
from learners.mixture import Mixture
from streams import Decision, Entry, Signal, encode

_CERTAIN = 700.0  # log odds beyond it overflow


class ExplainError(Exception):
    """A signal that can't be explained; the message says why."""


@dataclass(frozen=True, slots=True)
class ExpertView:
    """An expert's say. None: it abstained; `share` is its part in the mixture then and there."""

    name: str
    probability: float | None
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What moved an expert, in log odds: they sum, with `start`, to those of `probability`.

    Parameters
    ----------
    method
        ``shapley`` (exact TreeSHAP) or ``linear`` (weight times scaled value).
    start
        Log odds before any feature: the booster's expected value, the intercept.
    terms
        By column, largest first; those that add nothing are left out.
    probability
        What they sum to, before the panel's bounds.
    """

    method: str
    start: float
    terms: dict[str, float]
    probability: float


@dataclass(frozen=True, slots=True)
class Split:
    """A split that the row passed in a tree."""

    feature: str
    threshold: float
    went: str
    change: float


@dataclass(frozen=True, slots=True)
class TreeView:
    """A tree's way: from its base rate by splits and the leaf's naive Bayes to its probability."""

    weight: float
    base_rate: float
    splits: list[Split]
    leaf_change: float
    probability: float


@dataclass(frozen=True, slots=True)
class FeatureOnPaths:
    """How often a feature is on the trees' paths, and the mean change of their votes by it."""

    feature: str
    times: int
    mean_change: float


@dataclass(frozen=True, slots=True)
class ForestView:
    """The forest's paths. `mean` is the trees' mean vote, which the forest then calibrates."""

    mean: float
    features: list[FeatureOnPaths]
    leaf_change: float
    trees: list[TreeView]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All there is to say about a decision.

    Parameters
    ----------
    row
        The frozen values by column; None: missing.
    mixed
        The mixture of `experts`.
    calibration
        The corrections of it, and their shares in `probability`.
    probability
        As decided by.
    terms, forests
        What moved the experts that can tell, by name.
    policy
        The thresholds, and closes learned so far, that `decision`'s reasons speak of.
    decision
        Made again; `published` is what the stream or tape has, None: not known.
    as_published
        Whether they are equal byte for byte; None when that isn't known.
    """

    entry_id: str
    signal_id: str
    row: dict[str, float | None]
    experts: list[ExpertView]
    mixed: float
    calibration: list[ExpertView]
    probability: float
    terms: dict[str, Terms]
    forests: dict[str, ForestView]
    policy: PolicyConfig
    closes: int
    decision: Decision
    published: str | None
    as_published: bool | None

    def figures(self) -> dict[str, object]:
        """For `closeloop explain --json`."""
        policy = self.policy.model_dump(mode="json")
        return {**asdict(self), "policy": policy, "decision": orjson.loads(encode(self.decision))}


def explain(core: Core, entry: Entry, published: bytes | None = None) -> Explanation:
    """Apply the signal in `entry` to `core`, and say how its decision comes about.

    `core` is in the state before `entry`, and is in the state after it then. Raises `ExplainError`
    when no decision follows from it: it is refused, or a copy.
    """
    signal = entry.event
    if not isinstance(signal, Signal):
        raise ExplainError(f"entry {entry.id} is no signal: {entry.error or 'another event'}")
    problem = core.model.problem(signal)
    if problem is not None:
        raise ExplainError(f"signal {signal.signal_id!r} was refused: {problem}")
    model = core.model
    closes = model.closes
    score, names = model.preview(signal)
    forecaster = model.forecaster
    experts = _shares(forecaster.mixture, score.frozen.experts)
    calibration = _shares(forecaster.calibration.mixture, score.frozen.calibration)
    terms: dict[str, Terms] = {}
    forests: dict[str, ForestView] = {}
    for expert in experts:
        member = model.panel[expert.name]
        if expert.probability is None:
            continue
        if isinstance(member, Booster) and member.text is not None:
            terms[expert.name] = _terms("shapley", names, *shapley(member.text, score.row))
        elif isinstance(member, Logistic):
            terms[expert.name] = _terms("linear", names, *member.terms(score.row))
        elif isinstance(member, AdaptiveRandomForest):
            forests[expert.name] = _forest(names, paths(member.state(), score.row))
    made = next((out for out in core.apply(entry) if isinstance(out, Decision)), None)
    if made is None:
        raise ExplainError(f"entry {entry.id} is a copy of signal {signal.signal_id!r}")
    return Explanation(
        entry.id,
        signal.signal_id,
        {name: None if isnan(x) else x for name, x in zip(names, score.row.tolist(), strict=True)},
        experts,
        calibration[0].probability or 0.0,
        calibration,
        score.outlook.probability,
        terms,
        forests,
        core.settings.policy,
        closes,
        made,
        None if published is None else published.decode(errors="backslashreplace"),
        None if published is None else same(published, encode(made)),
    )


def _shares(mixture: Mixture, probabilities: NDArray[np.float64]) -> list[ExpertView]:
    rows = list(zip(mixture.names, probabilities.tolist(), mixture.weights, strict=True))
    awake = sum(weight for _, p, weight in rows if not isnan(p))
    return [
        ExpertView(name, None, weight, 0.0)
        if isnan(p)
        else ExpertView(name, p, weight, weight / awake)
        for name, p, weight in rows
    ]


def _terms(method: str, names: Sequence[str], terms: Sequence[float], start: float) -> Terms:
    named = [(name, term) for name, term in zip(names, terms, strict=False) if term]
    named.sort(key=lambda pair: -abs(pair[1]))
    total = min(max(sum(terms) + start, -_CERTAIN), _CERTAIN)
    return Terms(method, start, dict(named), 1.0 / (1.0 + exp(-total)))


def _forest(names: Sequence[str], found: Sequence[TreePath]) -> ForestView:
    trees = [
        TreeView(
            path.weight,
            path.base_rate,
            [
                Split(
                    names[step.column],
                    step.threshold,
                    ("left" if step.went_left else "right") + (", missing" * step.missing),
                    step.change,
                )
                for step in path.steps
            ],
            path.leaf_change,
            path.probability,
        )
        for path in found
    ]
    return ForestView(
        sum(tree.weight * tree.probability for tree in trees),
        [FeatureOnPaths(names[c.column], c.times, c.change) for c in by_column(found)],
        sum(tree.weight * tree.leaf_change for tree in trees),
        trees,
    )
