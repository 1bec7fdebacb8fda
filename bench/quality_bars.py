"""The bars of `bench/quality.py`, each from what a run left: what is asked, what is seen, whether
it is met.

As in a replay's report, the first tenth of the closes isn't judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.evaluation import scores
from engine.evaluation.bootstrap import Estimate, holm, mean_difference
from engine.evaluation.compare import Comparison
from engine.evaluation.prequential import Outcomes, group_coverage, running_base_rate
from engine.report import BINS, SKIPPED_SHARE

ABOVE_EXPERT = 0.0005
ABOVE_BASE_RATE = 0.0003
ECE = 0.015
COVERAGE = (0.88, 0.92)
TAKEN = (0.05, 0.5)
SPOKE = 0.5
"""An expert is one to be measured by when it spoke on this share of the closes judged."""
LEVEL_CLOSES = 2_500
"""Before a drift; their mean log loss is the level to come back to."""
WINDOW = 100
"""Closes whose mean log loss must be back."""
BACK_WITHIN = 0.05
CHANCE = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of the table.

    Parameters
    ----------
    met
        None: not run, or shown for information; `seen` says which.
    """

    tape: str
    bar: str
    seen: str
    met: bool | None
    figures: Mapping[str, object] = field(default_factory=dict)


def judged(outcomes: Outcomes) -> Outcomes:
    """Without the first tenth."""
    return outcomes.select(slice(int(len(outcomes) * SKIPPED_SHARE), None))


def loss_bars(tape: str, outcomes: Outcomes, below_base_rate: bool) -> list[Bar]:
    """Log loss against the best single expert and the running base rate.

    `outcomes` are those of the whole run.
    """
    late = judged(outcomes)
    start = len(outcomes) - len(late)
    ours = scores.losses(late.probability, late.won)
    base = scores.losses(running_base_rate(outcomes)[start:], late.won)
    behind = {}
    for name, p in late.experts.items():
        spoke = np.isfinite(p)
        if spoke.mean() >= SPOKE:
            behind[name] = float((ours[spoke] - scores.losses(p[spoke], late.won[spoke])).mean())
    best = max(behind, key=lambda name: behind[name])
    to_base = float((ours - base).mean())
    whole = float(
        (
            scores.losses(outcomes.probability, outcomes.won)
            - scores.losses(running_base_rate(outcomes), outcomes.won)
        ).mean()
    )
    figures = {"log_loss": float(ours.mean()), "base_rate": float(base.mean()), "behind": behind}
    bars = [
        Bar(
            tape,
            f"log loss at most the best expert's + {ABOVE_EXPERT}",
            f"{ours.mean():.4f}, {best} {behind[best]:+.5f}",
            behind[best] <= ABOVE_EXPERT,
            figures,
        ),
        Bar(
            tape,
            f"log loss at most the base rate's + {ABOVE_BASE_RATE}",
            f"{base.mean():.4f} {to_base:+.5f} (from the first close on {whole:+.5f})",
            to_base <= ABOVE_BASE_RATE,
            {"above": to_base, "above_from_the_first_close": whole},
        ),
    ]
    if below_base_rate:
        bars.append(Bar(tape, "log loss below the base rate's", f"{to_base:+.5f}", to_base < 0.0))
    return bars


def calibration_bar(tape: str, outcomes: Outcomes, seed: int) -> Bar:
    """ECE against the bar, or against what perfect calibration shows by chance."""
    late = judged(outcomes)
    seen = scores.ece(late.probability, late.won)
    chance = scores.calibrated_ece(late.probability, seed=seed)
    assert seen is not None and chance is not None
    allowed = max(ECE, chance)
    return Bar(
        tape,
        f"ECE over {BINS} bins at most {allowed:.4f}",
        f"{seen:.4f} (by chance up to {chance:.4f})",
        seen <= allowed,
        {"ece": seen, "by_chance": chance},
    )


def interval_bars(tape: str, outcomes: Outcomes) -> list[Bar]:
    """How often the published 90 % intervals hold what they are of."""
    late = judged(outcomes)
    low, high = COVERAGE
    bars = []
    returns = scores.coverage(late.return_low, late.return_high, late.return_pct)
    published = int(np.isfinite(late.return_low).sum())
    shares, groups = group_coverage(outcomes, len(outcomes) - len(late))
    counted = (("return", returns, published, "closes"), ("probability", shares, groups, "groups"))
    for what, seen, count, units in counted:
        bars.append(
            Bar(
                tape,
                f"90 % intervals of the {what} cover {low:.0%} to {high:.0%}",
                "none published" if seen is None else f"{seen:.1%} of {count:,} {units}",
                None if seen is None else low <= seen <= high,
                {"coverage": seen, units: count},
            )
        )
    return bars


def trading_bars(tape: str, outcomes: Outcomes, bar: bool, seed: int) -> list[Bar]:
    """What taking added, and how many were taken; without `bar` for information only.

    `outcomes` are those to be judged.
    """
    taken = outcomes.taken
    found = mean_difference(taken, outcomes.return_pct, seed=seed)
    share = float(taken.mean())
    low, high = TAKEN
    figures = {"difference": found.figures(), "taken": share, "closes": len(outcomes)}
    return [
        Bar(
            tape,
            "taken above offered, % a trade, 95 % interval above zero",
            described(found),
            (found.low is not None and found.low > 0.0) if bar else None,
            figures,
        ),
        Bar(
            tape,
            f"{low:.0%} to {high:.0%} of signals taken",
            f"{share:.1%}",
            low <= share <= high if bar else None,
        ),
    ]


def nothing_bars(kind: str, runs: Sequence[Outcomes], seed: int) -> list[Bar]:
    """Where there is nothing to know: as good as the base rate, and nothing claimed.

    Each of several tapes has an interval of its own, and one in twenty misses zero by luck: so the
    claims are corrected for their number (Holm).
    """
    apart, found, shares = [], [], []
    for outcomes in runs:
        late = judged(outcomes)
        base = running_base_rate(outcomes)[len(outcomes) - len(late) :]
        gap = scores.losses(late.probability, late.won) - scores.losses(base, late.won)
        apart.append(float(gap.mean()))
        found.append(mean_difference(late.taken, late.return_pct, seed=seed))
        shares.append(float(late.taken.mean()))
    corrected = holm([each.p for each in found])
    claimed = [p is not None and p < CHANCE for p in corrected]
    covering = sum(each.low is None or each.low <= 0.0 <= (each.high or 0.0) for each in found)
    return [
        Bar(
            kind,
            f"log loss within {ABOVE_BASE_RATE} of the base rate's, {len(runs)} seeds",
            ", ".join(f"{value:+.5f}" for value in apart),
            max(map(abs, apart)) <= ABOVE_BASE_RATE,
            {"above": apart},
        ),
        Bar(
            kind,
            "taken minus offered: the interval covers zero",
            "; ".join(map(described, found)) + f" ({covering} of {len(found)} cover it)",
            not any(claimed),
            {"differences": [each.figures() for each in found], "p": corrected, "taken": shares},
        ),
    ]


def peer_bars(tape: str, comparison: Comparison) -> list[Bar]:
    """A bar for each peer: the published log loss is below its."""
    bars = []
    for each in comparison.contenders:
        if each.kind != "peer":
            continue
        above = each.difference.value
        seen = each.why_not or f"{each.log_loss:.4f}, {described(each.difference)} above ours"
        met = None if above is None else above > 0.0
        bars.append(
            Bar(tape, f"log loss below {each.name}'s", seen, met, each.difference.figures())
        )
    return bars


def recovery_bars(tape: str, drifts: Sequence[int], ours: Floats, theirs: Floats) -> list[Bar]:
    """After each drift, who is back first.

    Parameters
    ----------
    drifts
        The first close of each new concept.
    ours, theirs
        Log losses a close, of the engine and of River's ARF.
    """
    bars = []
    for drift in drifts:
        one, other = closes_to_recover(ours, drift), closes_to_recover(theirs, drift)
        met = one is not None and (other is None or one < other)
        bars.append(
            Bar(
                tape,
                f"back within {BACK_WITHIN:.0%} after close {drift:,} before river_arf",
                f"{_closes(one)} (level {level(ours, drift):.4f}),"
                f" river_arf {_closes(other)} (level {level(theirs, drift):.4f})",
                met,
                {"ours": one, "river_arf": other},
            )
        )
    return bars


def level(losses: Floats, drift: int) -> float:
    """The mean log loss of the closes before a drift."""
    return float(losses[max(drift - LEVEL_CLOSES, 0) : drift].mean())


def closes_to_recover(losses: Floats, drift: int) -> int | None:
    """Closes from `drift` until the mean of the last `WINDOW` is back; None: it never is.

    None of the window lies before the drift, so `WINDOW` is the least.
    """
    total = np.concatenate([[0.0], np.cumsum(losses[drift:])])
    means = (total[WINDOW:] - total[:-WINDOW]) / WINDOW
    back = np.flatnonzero(means <= (1.0 + BACK_WITHIN) * level(losses, drift))
    return int(back[0]) + WINDOW if len(back) else None


def described(found: Estimate) -> str:
    """A difference with its interval."""
    if found.value is None:
        return "none taken"
    if found.low is None or found.high is None:
        return f"{found.value:+.4f}"
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _closes(count: int | None) -> str:
    return "never" if count is None else f"{count:,}"
