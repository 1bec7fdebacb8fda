"""An evaluation for people: its tables and pictures, and what may be claimed in a sentence."""

from collections.abc import Iterable

import numpy as np

from engine.evaluation import plots, scores
from engine.evaluation.bootstrap import Estimate
from engine.evaluation.evaluate import Evaluation
from engine.evaluation.evaluate_figures import figures
from engine.evaluation.pages import Findings, Picture, Table, svg
from engine.evaluation.slices import KINDS, Slice
from engine.evaluation.walk_forward import Judged

LOSS_DIGITS, RETURN_DIGITS = 5, 4
SIGNIFICANT = 0.05

_METHODS = {
    "plain": "plain",
    "ipw": "IPW",
    "self_normalised_ipw": "IPW, self-norm.",
    "doubly_robust": "doubly robust",
    "truth": "all closes",
}
_TRADE_ROWS = {
    "mean_return_pct": "mean return, %",
    "sized_return_pct": "… by size, %",
    "win_rate": "win rate",
    "profit_factor": "profit factor",
    "sharpe": "Sharpe, a trade",
    "sortino": "Sortino, a trade",
    "max_drawdown_pct": "max. drawdown, %",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}

_CLAIMS = (
    ("log loss − base rate's", "difference", "log_loss", LOSS_DIGITS),
    ("return % − offered", "taken_minus_offered", "mean_return_pct", RETURN_DIGITS),
    ("return % − baseline", "taken_minus_baseline", "mean_return_pct", RETURN_DIGITS),
)

_DELTAS = "Δ log loss: less the base rate's. Δ return: of taken, less offered."


def findings(evaluation: Evaluation, title: str) -> Findings:
    """Summary, tables, pictures and figures of an evaluation."""
    return Findings(title, summary(evaluation), figures(evaluation), list(_parts(evaluation)))


def summary(evaluation: Evaluation) -> str:
    """What may be claimed, in a few sentences."""
    outcomes = evaluation.prequential.outcomes
    found = evaluation.prequential.scores
    closes = len(outcomes)
    text = (
        f"{closes:,} closes judged after the first {evaluation.warm_up:,}; "
        f"{outcomes.taken.mean():.0%} taken. "
        f"Log loss: {_claim(found['difference']['log_loss'], 'published', 'the base rate', -1)}. "
    )
    advantage = found["taken_minus_offered"]["mean_return_pct"]
    text += f"Mean return: {_claim(advantage, 'taken', 'offered', 1)}."
    if evaluation.forward is not None:
        pooled = evaluation.forward.scores["taken_minus_offered"]["mean_return_pct"]
        text += f" Walk-forward: {_claim(pooled, 'taken', 'offered', 1)}."
    sure = [each for each in evaluation.slices if _told(each.advantage_p)]
    if evaluation.slices:
        names = ", ".join(f"{each.kind} {each.name}" for each in sure) or "in none"
        text += f" Taken differs from offered by slice, corrected for all looks: {names}."
    return text


def _claim(figure: Estimate, one: str, other: str, good: int) -> str:
    """Whether `one` is better than `other`, by a difference whose good sign is `good`."""
    if figure.interval is None or figure.value is None:
        return f"{one} can't be compared with {other}"
    low, high = figure.interval
    if low <= 0.0 <= high:
        return f"{one} can't be told from {other}"
    return f"{one} is {'better' if figure.value * good > 0 else 'worse'} than {other}"


def _parts(evaluation: Evaluation) -> Iterable[Table | Picture]:
    yield _claims(evaluation)
    yield _probability(evaluation)
    pass_ = evaluation.prequential
    outcomes = pass_.outcomes
    yield Picture(
        "Reliability",
        svg(plots.reliability(outcomes)),
        f"Win rate by published probability in {scores.BINS} bins of equal mass; on the diagonal "
        "what is said is what comes.",
    )
    yield Picture(
        "ROC and precision-recall",
        svg(plots.roc_and_precision_recall(outcomes)),
        "How the published probability ranks; the dashed lines are what no knowledge gives.",
    )
    yield _trades(evaluation)
    yield Picture(
        "Cumulative return",
        svg(plots.cumulative(outcomes, pass_.baseline)),
        "Summed returns by the time of the close, percent points, each trade at the same size.",
    )
    if evaluation.windows:
        yield _windows(evaluation)
    yield from _coverage(evaluation)
    yield _censored(evaluation)
    for kind in KINDS:
        chosen = [each for each in evaluation.slices if each.kind == kind]
        if chosen:
            yield _slices(kind, chosen)
    if evaluation.slices:
        yield Picture(
            "Slices",
            svg(plots.slices(evaluation.slices)),
            "Mean return of taken less that of offered, with 95 % intervals before correction for "
            "their number; filled where the corrected p-value is below 0.05.",
        )
    if len(evaluation.run.weights_at) > 1:
        yield Picture(
            "Weights of the experts",
            svg(plots.weights(evaluation.run)),
            "The mixture's weights by closes learned; below, when drift was found and refits were "
            "installed or rejected.",
        )


def _claims(evaluation: Evaluation) -> Table:
    rows: list[list[object]] = []
    judged = {"prequential": evaluation.prequential, "walk-forward": evaluation.forward}
    for where, those in judged.items():
        if those is None:
            continue
        for name, group, score, digits in _CLAIMS:
            if group in those.scores:
                figure = those.scores[group][score]
                ends = _signed_ends(figure, digits)
                rows.append([name, where, signed(figure.value, digits), ends])
    return Table(
        "Better than knowing nothing?",
        ["", "run", "difference", "95 % interval"],
        rows,
        "An interval that holds 0 claims nothing.",
    )


def _probability(evaluation: Evaluation) -> Table:
    found = evaluation.prequential.scores
    rows: list[list[object]] = []
    for score, name in (
        ("log_loss", "log loss"),
        ("brier", "Brier"),
        ("auc", "AUC"),
        ("ece", "ECE"),
        ("accuracy_at_half", "accuracy at 0.5"),
    ):
        published, base = found["published"][score], found["base_rate"][score]
        rows.append([name, published.value, _ends(published), base.value, _ends(base)])
    calibrated = evaluation.calibrated_ece
    note = ""
    if calibrated is not None:
        note = f"With so many closes a calibrated forecast has an ECE up to {calibrated:.4f}."
    return Table("The probability", ["", "published", "95 %", "base rate", "95 %"], rows, note)


def _trades(evaluation: Evaluation) -> Table:
    pass_ = evaluation.prequential
    found = pass_.scores
    taken, baseline = found["taken"], found.get("baseline")
    counts: list[object] = [
        "trades", int(pass_.outcomes.taken.sum()), None, len(pass_.outcomes),
    ]  # fmt: skip
    if pass_.baseline is not None:
        counts.append(int(pass_.baseline.sum()))
    rows = [counts]
    for score, name in _TRADE_ROWS.items():
        offered = found["offered"].get(score)
        row: list[object] = [
            name,
            taken[score].value,
            _ends(taken[score]),
            None if offered is None else offered.value,
        ]
        if baseline is not None:
            row.append(baseline[score].value if score in baseline else None)
        rows.append(row)
    columns = ["", "taken", "95 %", "offered"]
    note = "A trade taken is called a win. "
    if baseline is None:
        note += "The tape names no baseline of the bot's own: it is as if it took all."
        return Table("Trades", columns, rows, note)
    return Table("Trades", [*columns, "baseline"], rows, note.strip())


def _windows(evaluation: Evaluation) -> Table:
    plan = evaluation.plan
    rows = [_window(each) for each in evaluation.windows]
    left_out = sum(each.purged for each in evaluation.windows)
    embargoed = sum(each.embargoed for each in evaluation.windows)
    return Table(
        "Walk-forward",
        ["judged from", "closes", "taken", "Δ log loss", "Δ return %"],
        rows,
        f"Fresh cores, trained on {plan.train:,} closes, judged on the next {plan.step:,} while "
        f"they go on learning. Purged, as their trade was open at a border: {left_out:,}; by "
        f"embargo: {embargoed:,}. {_DELTAS}",
    )


def _window(each: Judged) -> list[object]:
    outcomes = each.outcomes
    if not len(outcomes):
        return [None, 0, None, None, None]
    gain = (
        scores.losses(outcomes.probability, outcomes.won)
        - scores.losses(each.base_rate, outcomes.won)
    ).mean()
    taken, returns = outcomes.taken, outcomes.return_pct
    advantage = float(returns[taken].mean() - returns.mean()) if taken.any() else None
    begins = np.datetime64(int(outcomes.closed[0]), "s").astype("datetime64[D]")
    return [
        str(begins),
        len(outcomes),
        f"{taken.mean():.0%}",
        signed(float(gain), LOSS_DIGITS),
        signed(advantage, RETURN_DIGITS),
    ]


def _coverage(evaluation: Evaluation) -> Iterable[Table]:
    rows: list[list[object]] = []
    covered, held = evaluation.return_coverage, evaluation.probability_held
    if covered.value is not None:
        rows.append(["returns inside their interval", covered.value, _ends(covered)])
    if held is not None:
        rows.append(["win rates of groups inside their mean interval", held, None])
    if rows:
        yield Table(
            "Published 90 % intervals",
            ["", "share", "95 %"],
            rows,
            "A win is 0 or 1, never inside a probability's interval: groups of closes are asked.",
        )


def _censored(evaluation: Evaluation) -> Table:
    found = evaluation.censored
    rows: list[list[object]] = []
    for method, name in _METHODS.items():
        loss, gain = found.log_loss.get(method), found.mean_return_pct.get(method)
        if loss is None or gain is None or loss.value is None:
            continue
        rows.append(
            [
                name,
                loss.value,
                _ends(loss),
                signed(gain.value, RETURN_DIGITS),
                _signed_ends(gain, RETURN_DIGITS),
            ]
        )
    note = (
        f"Of {found.offered:,} signals offered, {found.observed:,} were executed; the weights make "
        f"them worth {found.effective:,.0f}. IPW: inverse propensity weights."
    )
    if found.impossible:
        note += f" Never taken, so left out: {found.impossible:,}."
    if found.lost:
        note += f" Taken but not closed or on paper, left out: {found.lost:,}."
    if found.unpublished:
        note += f" Without a propensity, left out: {found.unpublished:,}."
    return Table(
        "All offered, told from executed trades alone",
        ["", "log loss", "95 %", "return %", "95 %"],
        rows,
        note,
    )


def _slices(kind: str, chosen: list[Slice]) -> Table:
    rows = [
        [
            each.name,
            each.closes,
            f"{each.taken / each.closes:.0%}",
            signed(each.log_loss_gain.value, LOSS_DIGITS) + _star(each.log_loss_gain_p),
            signed(each.advantage.value, RETURN_DIGITS) + _star(each.advantage_p),
            _signed_ends(each.advantage, RETURN_DIGITS),
        ]
        for each in chosen
    ]
    return Table(
        f"By {kind}",
        [kind, "closes", "taken", "Δ log loss", "Δ return %", "95 %"],
        rows,
        f"{_DELTAS} *: p < 0.05, corrected for all looks (Holm).",
    )


def _star(p: float | None) -> str:
    return "*" if _told(p) else ""


def _told(p: float | None) -> bool:
    return p is not None and p < SIGNIFICANT


def signed(value: float | None, digits: int) -> str:
    """A difference with its sign; '' when there is none."""
    return "" if value is None else f"{value:+.{digits}f}"


def _ends(figure: Estimate) -> str:
    if figure.interval is None:
        return ""
    return " … ".join(
        f"{end:.4g}" if end == 0.0 or abs(end) >= 1e-3 else f"{end:.1e}" for end in figure.interval
    )


def _signed_ends(figure: Estimate, digits: int) -> str:
    if figure.interval is None:
        return ""
    return " … ".join(signed(end, digits) for end in figure.interval)
