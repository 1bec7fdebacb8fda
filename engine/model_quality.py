"""How good a model is: on the closes held out of it, and on those it helped decide as champion."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.champions import CHAMPION
from engine.models_log import History
from engine.report import BINS
from streams.events import Outcome

Interval: TypeAlias = tuple[float, float] | None
Floats: TypeAlias = NDArray[np.float64]

LEVEL = 0.9
NO_INTERVAL: Mapping[str, str] = {
    "log_loss": "how the loss spreads over the closes is not recorded",
    "brier": "how the error spreads over the closes is not recorded",
    "auc": "how many of the closes were wins is not recorded",
    "f1": "how many of the closes were wins is not recorded",
}
"""Why the records allow no interval around a metric."""
KINDS = ("symbol", "side", "strategy", "regime")
MOST = 10
"""Slices of one kind: those with the most closes."""
ECE_CLOSES = 20 * BINS
"""Closes that an expected calibration error needs: twenty a bin."""
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric on the closes held out.

    Parameters
    ----------
    name, value
        One of `learners.gate.METRICS`.
    interval
        `LEVEL` of confidence, as if the closes were independent; None where `why_not` says why.
    defender
        That of the champion at the launch, on the same closes.
    """

    name: str
    value: float
    interval: Interval
    why_not: str
    defender: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate saw.

    Parameters
    ----------
    closes
        How many closes judged: those held out that the defender hadn't seen. None: not known,
        since the stream doesn't reach back to the defender's own record.
    defender
        The champion at the launch; None: the base rate.
    """

    closes: int | None
    defender: str | None
    metrics: tuple[Metric, ...]


def judged(history: History, model: str) -> Judged | None:
    """What the gate saw of a model; None when nothing was fitted, or the stream has lost it."""
    facts = history[model].facts
    if facts is None or not facts.metrics:
        return None
    defender = history.defender(model)
    closes: int | None = facts.held_out
    if facts.champion_metrics:
        theirs = history.models[defender].facts if defender in history.models else None
        closes = None if theirs is None else min(facts.held_out, facts.launched - theirs.launched)
    found = []
    for name, value in facts.metrics.items():
        why_not = NO_INTERVAL.get(name, "")
        if name == "accuracy" and not closes:
            why_not = "how many closes judged is not recorded"
        interval = None if why_not or not closes else share_interval(value, closes)
        found.append(Metric(name, value, interval, why_not, facts.champion_metrics.get(name)))
    return Judged(closes, defender, tuple(found))


def share_interval(share: float, closes: int) -> tuple[float, float]:
    """Wilson's interval (1927) around a share of so many closes."""
    # Not at the top: every command would wait for it.
    from scipy.stats import binomtest

    found = binomtest(round(share * closes), closes).proportion_ci(LEVEL, "wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True)
class Slice:
    """Closes of signals that were decided while a model was champion.

    Parameters
    ----------
    kind, name
        What it is a part by, and which; ``all`` has them all.
    closes
        How many.
    win_rate, win_rate_interval
        The share of wins, of those skipped as well.
    log_loss, log_loss_interval, ece
        Of the model's own probability, nats, where it spoke; the calibration error from
        `ECE_CLOSES` on.
    published_log_loss
        Of the probability that was published.
    taken, return_pct, return_interval
        Trades that the model took at any size, or would have taken where the rollout left the
        signal to the baseline, and their mean return, percent.
    """

    kind: str
    name: str
    closes: int
    win_rate: float
    win_rate_interval: Interval
    log_loss: float | None
    log_loss_interval: Interval
    ece: float | None
    published_log_loss: float | None
    taken: int
    return_pct: float | None
    return_interval: Interval


def has_bootstrap() -> bool:
    """Whether the extra `evaluate`, which intervals over closes in a row need, is installed."""
    return find_spec("arch") is not None and find_spec("statsmodels") is not None


def sliced(outcomes: Sequence[Outcome]) -> list[Slice]:
    """All closes, then each kind of slice, the largest first; `outcomes` in their order.

    A kind that doesn't divide the closes is left out. Intervals are by a block bootstrap, since
    trades overlap; without the extra `evaluate` there are none.
    """
    if not outcomes:
        return []
    found = [_slice("all", "", outcomes)]
    for kind in KINDS:
        names = Counter(getattr(each, kind) or "(none)" for each in outcomes)
        if len(names) < 2:
            continue
        for name, _ in sorted(names.items(), key=lambda item: (-item[1], item[0]))[:MOST]:
            part = [each for each in outcomes if (getattr(each, kind) or "(none)") == name]
            found.append(_slice(kind, name, part))
    return found


def _slice(kind: str, name: str, outcomes: Sequence[Outcome]) -> Slice:
    # Not at the top: nothing of the evaluation is loaded where a shard is served.
    from engine.evaluation import scores

    won = np.array([each.won for each in outcomes])
    own = np.array([each.experts.get(CHAMPION, np.nan) for each in outcomes])
    spoke = np.isfinite(own)
    taken = np.array(
        [each.return_pct for each in outcomes if (each.advised or each.action) != "skip"]
    )
    published = np.array([each.probability for each in outcomes])
    return Slice(
        kind,
        name,
        len(outcomes),
        float(won.mean()),
        _mean_interval(won.astype(np.float64)),
        scores.log_loss(own[spoke], won[spoke]),
        _mean_interval(scores.losses(own[spoke], won[spoke])),
        scores.ece(own[spoke], won[spoke]) if spoke.sum() >= ECE_CLOSES else None,
        scores.log_loss(published, won),
        len(taken),
        scores.mean_return(taken),
        _mean_interval(taken),
    )


def _mean_interval(values: Floats) -> Interval:
    """`LEVEL` of confidence around a mean; None for few closes, or ones that are all the same."""
    if not has_bootstrap():
        return None
    from engine.evaluation import bootstrap

    if len(values) < bootstrap.FEWEST or not np.ptp(values):
        return None
    block = bootstrap.block_length(values)
    means = [values[rows].mean() for rows in bootstrap.resamples(len(values), block, RESAMPLES)]
    low, high = np.quantile(means, [(1.0 - LEVEL) / 2, (1.0 + LEVEL) / 2])
    return float(low), float(high)
