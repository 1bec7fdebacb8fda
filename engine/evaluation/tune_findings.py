"""What `closeloop tune` says of a search: the verdict, tables, pictures, and a settings file."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from engine.core_config import CoreConfig
from engine.evaluation import bootstrap
from engine.evaluation.pages import Findings, Picture, Table, shown, svg
from engine.evaluation.prequential import Outcomes
from engine.evaluation.scores import losses, mean_return, probability_scores
from engine.evaluation.search_space import Number, configured, core_toml
from engine.evaluation.study import TrialResult
from engine.evaluation.tune import Tuning

BASE_RATE = "base_rate"
TOP = 5


def verdict(tuning: Tuning) -> str:
    """The answer in a sentence or two."""
    given, judged = _name(tuning), f"the last {len(tuning.given_outcomes):,} closes"
    if tuning.best.number == 0:
        return f"No trial was better than the {given} on the first part: keep the {given}."
    by = f"{tuning.difference.value:+.5f} ({_interval(tuning.difference)}) nats"
    if tuning.helped:
        return f"Tuning helped: on {judged} the log loss changed by {by}. Run with what it found."
    if tuning.difference.low is not None and tuning.difference.low > 0.0:
        return (
            f"Tuning did harm: on {judged}, which no trial saw, the log loss changed by {by}. "
            f"Keep the {given}."
        )
    return (
        f"Tuning did not help beyond chance: on {judged}, which no trial saw, the log loss changed "
        f"by {by}. Keep the {given}."
    )


def findings(tuning: Tuning) -> Findings:
    """The figures, tables and pictures of a search."""
    given = _name(tuning)
    scores = {"before": _scores(tuning.given_outcomes), "tuned": _scores(tuning.tuned_outcomes)}
    changed = _changed(tuning)
    trials = sorted(tuning.trials, key=lambda r: (r.stopped, r.log_loss))
    first = np.array(tuning.trials[0].blocks)
    figures: dict[str, object] = {
        "closes": {"first_part": tuning.closes, "last_part": len(tuning.given_outcomes)},
        "last_part": scores,
        "log_loss_difference": tuning.difference.figures(),
        "helped": tuning.helped,
        "verdict": verdict(tuning),
        "best_trial": tuning.best.number,
        "settings": {name: {"before": a, "tuned": b} for name, (a, b) in changed.items()},
        "trials": [
            {
                "number": r.number,
                "log_loss": r.log_loss,
                "stopped": r.stopped,
                "settings": r.settings,
            }
            for r in tuning.trials
        ],
    }
    rows = [
        [name.replace("_", " "), value, scores["tuned"][name]]
        for name, value in scores["before"].items()
    ]
    stopped = sum(r.stopped for r in tuning.trials)
    parts: list[Table | Picture] = [
        Table(
            f"The last {len(tuning.given_outcomes):,} closes, which no trial saw",
            ["", given, "tuned"],
            rows,
            f"Log loss, tuned minus {given}: {shown(tuning.difference.value)}, 95 % between "
            f"{_interval(tuning.difference)} by a block bootstrap.",
        ),
        Table(
            f"The best of {len(tuning.trials)} trials, {stopped} of them stopped early",
            ["trial", "log loss", f"minus {given}"],
            [
                [str(r.number), r.log_loss, float(np.mean(r.blocks - first[: len(r.blocks)]))]
                for r in trials[:TOP]
                if not r.stopped
            ],
            f"On the first {tuning.closes:,} closes, which chose the best one: it looks better "
            "here than it is.",
        ),
        Picture(
            "Trials",
            _trials_plot(tuning.trials),
            "Log loss of each trial on the first part; a cross was stopped early. The line is the "
            "best so far.",
        ),
        Picture(
            "The last part",
            _gain_plot(tuning),
            f"How many nats the tuned settings have saved so far against the {given}; falling "
            "means losing.",
        ),
    ]
    if changed:
        rows = [[name, before, tuned] for name, (before, tuned) in changed.items()]
        parts.insert(1, Table("What the best trial changed", ["setting", given, "tuned"], rows))
    return Findings("closeloop tune", verdict(tuning), figures, parts)


def tuned_file(tuning: Tuning) -> str:
    """A settings file of what is advised, with what else was found as comments."""
    said = [
        f"From `closeloop tune`: {len(tuning.trials)} trials on the first {tuning.closes:,} "
        f"closes, judged on the last {len(tuning.given_outcomes):,}.",
        verdict(tuning),
        "Run with `closeloop run --config` and this file, or copy it into your closeloop.toml.",
    ]
    lines = [f"# {line}" for text in said for line in textwrap.wrap(text, 78)]
    lines += ["", core_toml(tuning.advised)]
    if tuning.advised != tuning.tuned:
        lines.append("# What the best trial had, not advised:")
        lines += [f"#{line}" for line in core_toml(tuning.tuned).splitlines()]
        lines.append("")
    return "\n".join(lines)


def _name(tuning: Tuning) -> str:
    return "defaults" if tuning.given == CoreConfig() else "settings given"


def _scores(outcomes: Outcomes) -> dict[str, float | None]:
    base = outcomes.experts.get(BASE_RATE)
    return {
        **probability_scores(outcomes.probability, outcomes.won),
        "base_rate_log_loss": (
            None if base is None else float(np.nanmean(losses(base, outcomes.won)))
        ),
        "taken": int(outcomes.taken.sum()),
        "mean_return_taken_pct": mean_return(outcomes.return_pct[outcomes.taken]),
        "mean_return_offered_pct": mean_return(outcomes.return_pct),
    }


def _changed(tuning: Tuning) -> dict[str, tuple[Number, Number]]:
    before = {setting.name: value for setting, value in configured(tuning.given).items()}
    after = tuning.best.settings
    return {name: (value, after[name]) for name, value in before.items() if after[name] != value}


def _interval(estimate: bootstrap.Estimate) -> str:
    return "no interval" if estimate.interval is None else shown(estimate.interval)


def _trials_plot(trials: Sequence[TrialResult]) -> str:
    figure = Figure(figsize=(8, 3.2))
    axes = figure.subplots()
    for stopped, marker, label in ((False, "o", "run to the end"), (True, "x", "stopped early")):
        some = [r for r in trials if r.stopped is stopped]
        axes.plot([r.number for r in some], [r.log_loss for r in some], marker, ms=4, label=label)
    whole = [r.log_loss if not r.stopped else np.inf for r in trials]
    axes.plot(range(len(trials)), np.minimum.accumulate(whole), lw=1, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("log loss")
    axes.legend(frameon=False)
    return svg(figure)


def _gain_plot(tuning: Tuning) -> str:
    one, other = tuning.given_outcomes, tuning.tuned_outcomes
    saved = losses(one.probability, one.won) - losses(other.probability, other.won)
    figure = Figure(figsize=(8, 3.2))
    axes = figure.subplots()
    axes.plot(np.cumsum(saved), lw=1)
    axes.axhline(0.0, color="grey", lw=0.8)
    axes.set_xlabel("close of the last part")
    axes.set_ylabel("nats saved")
    return svg(figure)
