"""Whether a tape can be trusted: what an audit finds, as verdicts, tables and pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from engine.core_config import LedgerConfig
from engine.evaluation import audit_checks, audit_features
from engine.evaluation.audit_checks import Check, day
from engine.evaluation.audit_columns import BOOL, MINUTE, NUMBER, TEXT, Columns
from engine.evaluation.audit_leaks import Alone, alone, likenesses
from engine.evaluation.audit_reader import read
from engine.evaluation.pages import Findings, Picture, Table, svg
from engine.report import trades
from streams.tape import Line

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
GROUPS = 12
"""Rows of a table of groups or features at most; the JSON has all."""
PERIODS = 10
_WORST = ("ok", "warning", "problem")


def audit(
    lines: Iterable[Line],
    ledger: LedgerConfig | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Findings:
    """Read a tape once and check it.

    `ledger` says how long and for how many signals the engine waits; the default is the engine's
    own. ``figures["verdict"]`` is the worst of ``figures["checks"]``: ok, warning or problem.
    """
    columns = read(lines, progress)
    scores = alone(columns)
    alike = list(likenesses(columns))
    changing = audit_features.changing_features(columns)
    stale = audit_features.stale_features(columns)
    checks = [
        audit_checks.rows(columns),
        audit_checks.joins(columns),
        audit_checks.duplicates(columns),
        audit_checks.time_order(columns),
        audit_checks.label_delay(columns, ledger or LedgerConfig()),
        audit_checks.balance(columns),
        audit_features.missing(columns, changing),
        audit_features.changing(changing),
        audit_features.constant(columns),
        audit_features.types(columns),
        audit_features.stale(stale),
        audit_features.leaks(columns, scores, alike),
    ]
    features = _features(columns, scores, changing, stale)
    delays = _delays(columns)
    groups = _groups(columns)
    verdict = max((check.verdict for check in checks), key=_WORST.index)
    figures = {
        "verdict": verdict,
        "checks": {check.name: _figure(check) for check in checks},
        "rows": {
            "lines": columns.lines,
            "events": dict(columns.events),
            "invalid": dict(columns.invalid),
        },
        "joins": {
            "joined": int(columns.joined.sum()),
            "open": int((~columns.joined).sum()),
            "orphan_closes": columns.orphans,
            "closes_before_their_signal": columns.early,
            "most_open_at_once": columns.most_open,
            "signals_sent_again": columns.repeated_signals,
            "closes_sent_again": columns.repeated_closes,
            "closes_contradicted": columns.conflicting_closes,
            "signals_changed": columns.changed_again,
        },
        "label_delay": delays,
        "gaps": [
            {"from": start, "minutes": minutes}
            for start, minutes in audit_checks.long_gaps(columns.times)
        ],
        "balance": groups,
        "features": features,
        "likenesses": [asdict(one) for one in alike],
    }
    tables = [
        _check_table(checks),
        _delay_table(delays),
        *_balance_tables(groups),
        _feature_table(features),
    ]
    bad = [check for check in checks if check.verdict != "ok"]
    summary = (
        "No check found anything."
        if not bad
        else f"{_count(checks, 'problem')}, {_count(checks, 'warning')}: "
        + ", ".join(check.name for check in bad)
        + "."
    )
    return Findings("Audit", summary, figures, [*tables, *_pictures(columns, scores)])


def _figure(check: Check) -> dict[str, object]:
    return {name: value for name, value in asdict(check).items() if name != "name" and value}


def _count(checks: Sequence[Check], verdict: str) -> str:
    count = sum(check.verdict == verdict for check in checks)
    return f"{count} {verdict}" + ("" if count == 1 else "s")


def _delays(columns: Columns) -> dict[str, dict[str, float]]:
    """Quantiles of the time from a signal to its close: minutes, and events meanwhile."""
    joined = columns.joined
    measured = {
        "minutes": (columns.closed - columns.opened) / MINUTE,
        "signals_meanwhile": columns.signals_meanwhile,
        "closes_meanwhile": columns.closes_meanwhile,
    }
    return {
        name: {f"{q:g}": float(np.quantile(values[joined], q)) for q in QUANTILES}
        for name, values in measured.items()
        if joined.any()
    }


def _groups(columns: Columns) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Count, win rate and mean return of the closes: of all, by group, and over time."""
    joined = np.flatnonzero(columns.joined)
    won, returns = columns.won[joined], columns.outcome["return_pct"][joined]
    found: dict[str, dict[str, dict[str, float | int | None]]] = {
        "all": {"all": trades(returns, won)}
    }
    for kind in ("symbol", "strategy", "side"):
        names: NDArray[np.str_] = getattr(columns, kind)[joined]
        found[kind] = {
            str(name): trades(returns[names == name], won[names == name])
            for name in np.unique(names)
            if name
        }
    order = joined[np.argsort(columns.opened[joined], kind="stable")]
    found["period"] = {
        f"{day(columns.opened[part[0]])} to {day(columns.opened[part[-1]])} ({number})": trades(
            columns.outcome["return_pct"][part], columns.won[part]
        )
        for number, part in enumerate(np.array_split(order, PERIODS), 1)
        if len(part)
    }
    return found


def _features(
    columns: Columns,
    scores: Mapping[str, Alone],
    changing: Mapping[str, str],
    stale: Mapping[str, tuple[int, str]],
) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name, feature in columns.features.items():
        count = np.bincount(feature.kinds, minlength=TEXT + 1)
        types = {"number": count[NUMBER], "bool": count[BOOL], "text": count[TEXT]}
        of: dict[str, object] = {
            "missing": 1.0 - float(feature.present.mean()),
            "distinct": len(np.unique(feature.values[feature.present])),
            "types": {kind: int(times) for kind, times in types.items() if times},
        }
        if name in scores:
            of |= {"auc": scores[name].auc, "auc_interval": (scores[name].low, scores[name].high)}
        if name in changing:
            of["changing"] = changing[name]
        if name in stale:
            of["stale"] = {"signals": stale[name][0], "from": stale[name][1]}
        found[name] = of
    return found


def _check_table(checks: Sequence[Check]) -> Table:
    shown = [
        [c.name, c.verdict, f"{c.found}. → {c.do}" if c.do else c.found]
        for c in sorted(checks, key=lambda c: -_WORST.index(c.verdict))
    ]
    return Table("checks", ["check", "verdict", "what was found, and what to do"], shown)


def _delay_table(delays: Mapping[str, Mapping[str, float]]) -> Table:
    columns = ["", *(f"{q:.0%}" for q in QUANTILES)]
    titles = {
        "minutes": "minutes",
        "signals_meanwhile": "signals",
        "closes_meanwhile": "closes",
    }
    shown = [[titles[name], *values.values()] for name, values in delays.items()]
    note = "Quantiles of the time to the close, and of what comes in between."
    return Table("from signal to close", columns, shown, note)


def _balance_tables(
    groups: Mapping[str, Mapping[str, Mapping[str, float | int | None]]],
) -> list[Table]:
    tables = []
    for kind, members in groups.items():
        if kind == "all":
            continue
        most = sorted(members.items(), key=lambda item: -(item[1]["count"] or 0))[:GROUPS]
        ordered = most if kind != "period" else list(members.items())
        shown = [[name, of["count"], of["win_rate"], of["avg_return_pct"]] for name, of in ordered]
        more = len(members) - len(ordered)
        note = f"and {more:,} more, in the JSON" if more else ""
        tables.append(Table(f"by {kind}", [kind, "closes", "win rate", "mean %"], shown, note))
    return tables


def _feature_table(features: Mapping[str, Mapping[str, object]]) -> Table:
    def worth(item: tuple[str, Mapping[str, object]]) -> float:
        score = item[1].get("auc")
        return -score if isinstance(score, float) else 0.0

    ordered = sorted(features.items(), key=worth)[: 2 * GROUPS]
    shown = []
    for name, of in ordered:
        types = of["types"]
        kinds = ", ".join(types) if isinstance(types, dict) else ""
        shown.append(
            [name, kinds, of["missing"], of["distinct"], of.get("auc"), of.get("auc_interval")]
        )
    more = len(features) - len(ordered)
    note = "AUC: of the win rate among like values, learned on other stretches of the tape."
    if more:
        note += f" {more:,} more are in the JSON."
    columns = ["feature", "type", "missing", "distinct", "AUC", "95 %"]
    return Table("features, the best alone first", columns, shown, note)


def _pictures(columns: Columns, scores: Mapping[str, Alone]) -> Iterable[Picture]:
    joined = columns.joined
    if not joined.any():
        return
    figure = Figure(figsize=(8, 2.6))
    axes = figure.subplots()
    axes.hist((columns.closed - columns.opened)[joined] / MINUTE, bins=60, color="#4878a8")
    axes.set(xlabel="minutes from signal to close", ylabel="closes", yscale="log")
    yield Picture("Label delay", svg(figure), "How long the engine waits for its labels.")

    order = np.flatnonzero(joined)
    parts = [part for part in np.array_split(order, min(100, len(order))) if len(part)]
    when = [columns.opened[part[0]] / MINUTE / 525_960 + 1970 for part in parts]
    figure = Figure(figsize=(8, 2.6))
    axes = figure.subplots()
    axes.plot(when, [columns.won[part].mean() for part in parts], color="#4878a8")
    axes.set(xlabel="year", ylabel="win rate", ylim=(0, 1))
    axes.ticklabel_format(useOffset=False)
    yield Picture("Win rate over time", svg(figure), "Each point is a hundredth of the closes.")

    if scores:
        ordered = sorted(scores.items(), key=lambda item: item[1].auc)
        best = [(name, score.auc) for name, score in ordered[-2 * GROUPS :]]
        figure = Figure(figsize=(8, 0.25 * len(best) + 1))
        axes = figure.subplots()
        axes.barh([name for name, _ in best], [value for _, value in best], color="#4878a8")
        axes.axvline(0.5, color="#888", linewidth=1)
        axes.set(xlabel="AUC of the feature alone", xlim=(0.4, 1.0))
        note = "A bar far out among short ones is a leak until shown otherwise."
        yield Picture("Features alone", svg(figure), note)
