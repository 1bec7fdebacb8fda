"""What `closeloop features` says: tables, pictures, and the answer in a few sentences."""

from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure

from engine.evaluation.bootstrap import Estimate
from engine.evaluation.feature_groups import REDUNDANT
from engine.evaluation.features import Analysis, beyond_chance
from engine.evaluation.pages import Findings, Picture, Table, shown, svg

SHOWN = 40
"""Rows of a table at most; --json has all."""


def findings(analysis: Analysis) -> Findings:
    """The figures, tables and pictures of an analysis."""
    return Findings("closeloop features", verdict(analysis), figures(analysis), _parts(analysis))


def verdict(analysis: Analysis) -> str:
    """The answer in a few sentences."""
    sure = [name for name, importance in analysis.importances.items() if importance.sure]
    behind = analysis.behind
    if behind.high is not None and behind.high < 0.0:
        model = "better than"
    elif behind.low is not None and behind.low > 0.0:
        model = "worse than"
    else:
        model = "no different beyond chance from"
    said = (
        f"With all features the model's log loss is {analysis.log_loss:.4f}, {model} the base "
        f"rate's {analysis.base_rate:.4f}. "
    )
    if sure:
        said += f"Of use beyond chance: {len(sure)} of {len(analysis.importances)} features. "
    else:
        said += "No feature is of use beyond chance. "
    return said + _about_dropping(analysis)


def _about_dropping(analysis: Analysis) -> str:
    drop = analysis.drop
    if not drop.chosen:
        return "There is nothing to drop."
    what = f"Dropping {', '.join(dropped.feature for dropped in drop.chosen)}"
    by = f"changes the log loss by {_signed(drop.difference)} on closes that had no part in it"
    if drop.harms:
        return f"{what} {by}: that harms, keep them."
    if drop.helps:
        return f"{what} {by}: that helps."
    return f"{what} {by}: no difference beyond chance."


def _signed(estimate: Estimate) -> str:
    value = "0" if not estimate.value else f"{estimate.value:+.2g}"
    return value if estimate.interval is None else f"{value} ({shown(estimate.interval)})"


def figures(analysis: Analysis) -> dict[str, object]:
    """Everything, for JSON."""
    drop = analysis.drop
    sure = beyond_chance(analysis.without)
    return {
        "closes": analysis.closes,
        "judged": analysis.judged,
        "windows": analysis.by_window.shape[1],
        "log_loss": analysis.log_loss,
        "base_rate_log_loss": analysis.base_rate,
        "difference_to_base_rate": analysis.behind.figures(),
        "importances": {
            name: {
                "gain": importance.gain,
                "permutation": importance.rise.figures(),
                "beyond_chance": importance.sure,
                "windows_that_rise": importance.steady,
                "by_window": rises.tolist(),
            }
            for (name, importance), rises in zip(
                analysis.importances.items(), analysis.by_window, strict=True
            )
        },
        "stability": {name: asdict(each) for name, each in analysis.stability.items()},
        "redundant": [asdict(pair) for pair in analysis.pairs],
        "without": {
            name: {
                "features": analysis.groups[name],
                **rise.figures(),
                "beyond_chance": name in sure,
            }
            for name, rise in analysis.without.items()
        },
        "drop": {
            "features": [asdict(dropped) for dropped in drop.chosen],
            "tried": [dropped.feature for dropped in drop.proposed],
            "closes": drop.closes,
            "log_loss": drop.kept_loss,
            "log_loss_without": drop.dropped_loss,
            "difference": drop.difference.figures(),
            "advised": bool(drop.chosen) and not drop.harms,
        },
        "verdict": verdict(analysis),
    }


def _parts(analysis: Analysis) -> list[Table | Picture]:
    drop = analysis.drop
    windows = analysis.by_window.shape[1]
    importances = list(analysis.importances.items())[:SHOWN]
    left = len(analysis.importances) - len(importances)
    sure = beyond_chance(analysis.without)
    parts: list[Table | Picture] = [
        Table(
            f"Importance, on {analysis.judged:,} closes of {windows} windows",
            ["feature", "rise", "95 %", "sure", "windows", "gain"],
            [
                [name, _brief(each.rise), _span(each.rise), each.sure, _percent(each.steady),
                 _percent(each.gain)]
                for name, each in importances
            ],
            "Rise: by how much permuting the feature raises the log loss of closes to come, in "
            "1/1000 nats; sure: beyond chance, all looks counted; windows: in how many it rises; "
            "gain: its share in the fits, which is no proof of use. @: the engine's own."
            + (f" {left} more are in --json." if left else ""),
        ),
        Table(
            "Stability over time",
            ["ranks by", "next window", "any two windows"],
            [[name, each.neighbours, each.all_pairs] for name, each in analysis.stability.items()],
            "Spearman's rho of the features' ranks between windows: 1 the same, 0 no relation.",
        ),
    ]  # fmt: skip
    if analysis.pairs:
        parts.append(
            Table(
                f"Redundant: rank correlation above {REDUNDANT:g} either way",
                ["feature", "and", "rho"],
                [[pair.one, pair.other, pair.rho] for pair in analysis.pairs[:SHOWN]],
            )
        )
    parts += [
        Table(
            "Fitted again without each group",
            ["without", "features", "rise", "95 %", "sure"],
            [
                [name, len(analysis.groups[name]), _brief(rise), _span(rise), name in sure]
                for name, rise in analysis.without.items()
            ],
            "Rise: of the log loss, in 1/1000 nats; below zero the model is better without.",
        ),
        Table(
            "Proposed to drop",
            ["feature", "why"],
            [[dropped.feature, dropped.why] for dropped in drop.chosen] or [["none", ""]],
            f"Of {len(drop.proposed)} candidates, those without which the earlier windows do no "
            "worse.",
        ),
    ]
    if drop.chosen:
        parts.append(
            Table(
                f"What dropping does, on the last {drop.closes:,} closes",
                ["", "log loss"],
                [
                    ["with all features", drop.kept_loss],
                    ["without those", drop.dropped_loss],
                    ["difference, 1/1000 nats", _brief(drop.difference)],
                    ["95 %", _span(drop.difference)],
                ],
                "These closes had no part in the choice.",
            )
        )
    parts += [
        Picture("Importance", _bars(analysis), "Rise of the log loss with 95 % intervals."),
        Picture(
            "Over time",
            _map(analysis),
            "Rise in each window, from left to right; blue is of use, red the opposite.",
        ),
    ]
    return parts


def _brief(estimate: Estimate) -> str:
    return "" if estimate.value is None else f"{1e3 * estimate.value:.2f}"


def _span(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{1e3 * estimate.low:.2f} … {1e3 * estimate.high:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _bars(analysis: Analysis) -> str:
    importances = list(analysis.importances.items())[:SHOWN][::-1]
    names = [_plain(name) for name, _ in importances]
    values = np.array([each.rise.value or 0.0 for _, each in importances])
    ends = [each.rise.interval or (value, value) for (_, each), value in zip(
        importances, values, strict=True
    )]  # fmt: skip
    figure = Figure(figsize=(8, 1 + 0.22 * len(names)))
    axes = figure.subplots()
    errors = np.abs(np.array(ends).T - values)
    axes.barh(names, values, xerr=errors, color="#4477aa", ecolor="#888888")
    axes.axvline(0.0, color="grey", lw=0.8)
    axes.set_xlabel("rise of the log loss, nats")
    return svg(figure)


def _map(analysis: Analysis) -> str:
    rows = analysis.by_window[:SHOWN]
    names = [_plain(name) for name in list(analysis.importances)[:SHOWN]]
    limit = float(np.quantile(np.abs(rows), 0.98)) or 1.0
    figure = Figure(figsize=(8, 1 + 0.22 * len(names)))
    axes = figure.subplots()
    shown_map = axes.imshow(rows, "RdBu", aspect="auto", vmin=-limit, vmax=limit)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("window")
    figure.colorbar(shown_map, label="nats")
    return svg(figure)


def _plain(name: str) -> str:
    """A name as matplotlib shows it: a $ would begin a formula."""
    return name.replace("$", r"\$")
