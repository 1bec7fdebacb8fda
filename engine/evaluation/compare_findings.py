"""What `closeloop compare` shows: a table, by how much each is behind, and when each was ahead."""

import numpy as np
from matplotlib.figure import Figure

from engine.evaluation.bootstrap import Estimate
from engine.evaluation.compare import MIXTURE, MOSTLY, Comparison, Contender
from engine.evaluation.pages import Findings, Picture, Table, svg

CURVES = 8
"""Contenders whose cumulative loss is drawn: the best."""


def findings(title: str, comparison: Comparison) -> Findings:
    """The comparison as a table, two pictures and JSON."""
    rows = [_row(each) for each in comparison.contenders]
    columns = (
        "", "", "log loss", "above the mixture", "Brier", "AUC", "ECE", "accuracy", "us/event", "",
    )  # fmt: skip
    chance = comparison.ece_by_chance
    note = (
        f"{comparison.rows:,} closes, all on the same ones. Above the mixture: by how much the log"
        " loss is higher, nats a close, with its block-bootstrap interval; less than zero is"
        " better than what was published."
    )
    if chance is not None:
        note += f" A perfectly calibrated forecast has an ECE up to {chance:.4f} here by chance."
    parts: list[Table | Picture] = [Table("Log loss, the lowest first", columns, rows, note)]
    if comparison.rows:
        parts += [_interval_picture(comparison), _curve_picture(comparison)]
    return Findings(title, _summary(comparison), _figures(comparison), parts)


def _row(each: Contender) -> list[object]:
    remark = each.why_not
    if remark is None and each.spoke < 1.0:
        remark = f"spoke on {each.spoke:.0%}"
    return [
        each.name,
        each.kind,
        _digits(each.log_loss),
        _difference(each.difference),
        _digits(each.brier),
        _digits(each.auc),
        _digits(each.ece),
        _digits(each.accuracy),
        None if each.us_per_event is None else round(each.us_per_event),
        remark,
    ]


def _digits(score: float | None) -> str | None:
    return None if score is None else f"{score:.4f}"


def _difference(found: Estimate) -> str | None:
    if found.value is None or found.interval is None:
        return None
    low, high = found.interval
    return f"{found.value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _summary(comparison: Comparison) -> str:
    ours = comparison[MIXTURE].log_loss
    if ours is None:
        return "No close to judge: the tape is too short, or nobody spoke."
    said = [f"The published probability has a log loss of {ours:.4f}."]
    for kind in ("expert", "peer"):
        found = [each for each in comparison.of(kind) if each.spoke >= MOSTLY]
        if found:
            best = found[0]
            said.append(
                f"The best {kind}, {best.name}, has {best.log_loss:.4f} ({_against(best)})."
            )
    out = [each.name for each in comparison.contenders if each.why_not and each.kind == "peer"]
    if out:
        said.append(f"Not run: {', '.join(out)}.")
    return " ".join(said)


def _against(each: Contender) -> str:
    low, high = each.difference.interval or (None, None)
    if low is None or high is None:
        return "too few closes to say"
    if low > 0:
        return "the mixture is ahead beyond chance"
    return "behind it beyond chance is the mixture" if high < 0 else "no difference beyond chance"


def _figures(comparison: Comparison) -> dict[str, object]:
    return {
        "closes": comparison.closes,
        "rows": comparison.rows,
        "ece_by_chance": comparison.ece_by_chance,
        "contenders": {
            each.name: {
                "kind": each.kind,
                "spoke": each.spoke,
                "rows": each.rows,
                "log_loss": each.log_loss,
                "above_mixture": each.difference.figures(),
                "brier": each.brier,
                "auc": each.auc,
                "ece": each.ece,
                "accuracy": each.accuracy,
                "us_per_event": each.us_per_event,
                "why_not": each.why_not,
            }
            for each in comparison.contenders
        },
    }


def _interval_picture(comparison: Comparison) -> Picture:
    found = [each for each in comparison.contenders if each.difference.interval is not None]
    figure = Figure(figsize=(8, 1 + 0.3 * len(found)))
    axes = figure.subplots()
    for place, each in enumerate(reversed(found)):
        assert each.difference.interval is not None and each.difference.value is not None
        color = "tab:blue" if each.kind == "expert" else "tab:orange"
        axes.plot(each.difference.interval, [place, place], color=color)
        axes.plot(each.difference.value, place, "o", color=color)
    axes.set_yticks(range(len(found)), [each.name for each in reversed(found)])
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=0.001)
    axes.set_xlabel("log loss above the mixture's, nats a close")
    note = "Blue: the engine's experts. Orange: peers. Left of the line: better than the mixture."
    return Picture("By how much each is worse than the mixture", svg(figure), note)


def _curve_picture(comparison: Comparison) -> Picture:
    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    best = [each.name for each in comparison.contenders if each.name in comparison.above][:CURVES]
    step = max(comparison.rows // 1_000, 1)
    for name in best:
        total = np.cumsum(np.nan_to_num(comparison.above[name]))
        axes.plot(np.arange(len(total))[::step], total[::step], label=name, linewidth=1)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("closes judged")
    axes.set_ylabel("nats above the mixture so far")
    if best:
        axes.legend(fontsize="small")
    note = f"Cumulative, for the best {len(best)}. Where a line falls, it was ahead of the mixture."
    return Picture("When each was ahead", svg(figure), note)
