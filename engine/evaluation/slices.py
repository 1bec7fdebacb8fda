"""The same scores on parts of the closes: by symbol, strategy, side, session, regime and year.

Look at enough slices and one shines by chance. So the p-values of all claims that the slices make,
over every kind together, are corrected for their number (Holm).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from engine.evaluation import scores
from engine.evaluation.bootstrap import (
    RESAMPLES,
    SEED,
    Estimate,
    estimate,
    holm,
    resamples,
)
from engine.evaluation.prequential import Outcomes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

KINDS = ("symbol", "strategy", "side", "session", "regime", "year")
MOST = 20
"""Slices of one kind that are looked at: those with the most closes."""
FEWEST = 50
"""Closes that a slice needs to be looked at."""
FEWEST_TAKEN = 20
"""Closes on either side, taken and skipped, that a claim about taking needs."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of the closes.

    Parameters
    ----------
    kind, name
        What it is a part by, and which: `symbol`, `EURUSD`.
    closes, taken
        How many closes it has, and how many of them the engine takes.
    scores
        Every score, without intervals, by what is scored: `published`, `base_rate`, `taken`,
        `offered`, and `baseline` where there is one.
    log_loss_gain
        Log loss of the published probability less the running base rate's; below zero is better.
    taken_return, offered_return
        Mean returns, percent a trade.
    advantage
        Mean return of the taken less that of the offered, percent points a trade.
    log_loss_gain_p, advantage_p
        p-values of "it is zero", corrected for all looks; None where nothing could be claimed.
    """

    kind: str
    name: str
    closes: int
    taken: int
    scores: Mapping[str, Mapping[str, float | None]]
    log_loss_gain: Estimate
    taken_return: Estimate
    offered_return: Estimate
    advantage: Estimate
    log_loss_gain_p: float | None = None
    advantage_p: float | None = None


def sliced(
    outcomes: Outcomes,
    base_rate: Floats,
    baseline: Bools | None,
    block: float,
    count: int = RESAMPLES,
    seed: int = SEED,
) -> list[Slice]:
    """Every slice of every kind that divides the closes, the largest first within its kind.

    Slices with fewer than `FEWEST` closes and those past the `MOST` largest of a kind are left out.
    The parameters are those of `judgement.judge`; the whole series is resampled, so that a slice's
    closes keep their neighbours.
    """
    parts = _parts(outcomes)
    if not parts:
        return []
    taken, returns = outcomes.taken, outcomes.return_pct
    gain = scores.losses(outcomes.probability, outcomes.won) - scores.losses(
        base_rate, outcomes.won
    )
    # What is summed up: closes, taken, log loss gained, returns, returns of those taken.
    columns = np.column_stack([np.ones(len(taken)), taken, gain, returns, returns * taken])
    belongs = csr_array(
        (
            np.ones(sum(len(members) for _, _, members in parts)),
            (
                np.repeat(np.arange(len(parts)), [len(members) for _, _, members in parts]),
                np.concatenate([members for _, _, members in parts]),
            ),
        ),
        shape=(len(parts), len(taken)),
    )
    values = _means(belongs @ columns)
    drawn = np.array(
        [
            _means(belongs @ (columns * np.bincount(rows, minlength=len(taken))[:, None]))
            for rows in resamples(len(taken), block, count, seed)
        ]
    )
    found = []
    for part, (kind, name, members) in enumerate(parts):
        gained, of_taken, of_offered, advantage = (
            estimate(float(values[part, which]), drawn[:, part, which]) for which in range(4)
        )
        chosen = int(taken[members].sum())
        if min(chosen, len(members) - chosen) < FEWEST_TAKEN:
            advantage = Estimate(advantage.value)
        found.append(
            Slice(
                kind,
                name,
                len(members),
                chosen,
                _scores(outcomes, base_rate, baseline, members),
                gained,
                of_taken,
                of_offered,
                advantage,
            )
        )
    looks = [each.log_loss_gain.p for each in found] + [each.advantage.p for each in found]
    corrected = holm(looks)
    return [
        replace(each, log_loss_gain_p=for_gain, advantage_p=for_advantage)
        for each, for_gain, for_advantage in zip(
            found, corrected[: len(found)], corrected[len(found) :], strict=True
        )
    ]


Part = tuple[str, str, NDArray[np.int64]]


def _parts(outcomes: Outcomes) -> list[Part]:
    """Kind, name and rows of each slice."""
    parts: list[Part] = []
    for kind in KINDS:
        labels = years(outcomes.closed) if kind == "year" else getattr(outcomes, kind)
        names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if len(names) < 2:
            continue
        order = np.arange(len(names)) if kind == "year" else np.argsort(-sizes, kind="stable")
        chosen = [i for i in order if sizes[i] >= FEWEST]
        if kind == "year":
            chosen = chosen[-MOST:]
        parts.extend(
            (kind, str(names[i]) or "(none)", np.flatnonzero(codes == i)) for i in chosen[:MOST]
        )
    return parts


def years(closed: Floats) -> NDArray[np.str_]:
    """The calendar year, UTC, of seconds since 1970."""
    return closed.astype("datetime64[s]").astype("datetime64[Y]").astype(np.str_)


def _means(sums: Floats) -> Floats:
    """Log loss gained, return taken, return offered, advantage; shape (parts, 4), NaN: none."""
    closes, taken, gain, returns, of_taken = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_taken, mean_offered = of_taken / taken, returns / closes
        return np.column_stack([gain / closes, mean_taken, mean_offered, mean_taken - mean_offered])


def _scores(
    outcomes: Outcomes, base_rate: Floats, baseline: Bools | None, members: NDArray[np.int64]
) -> dict[str, dict[str, float | None]]:
    won, returns = outcomes.won[members], outcomes.return_pct[members]
    calls = {"taken": outcomes.taken[members], "offered": np.ones(len(members), np.bool_)}
    if baseline is not None:
        calls["baseline"] = baseline[members]
    found = {
        "published": scores.probability_scores(outcomes.probability[members], won),
        "base_rate": scores.probability_scores(base_rate[members], won),
    }
    for name, called in calls.items():
        found[name] = scores.trade_scores(returns[called]) | scores.call_scores(called, won)
    return found
