"""Parts of a document on one model: a heading, a few sentences, a table of what is on record.

These can be made from the models stream alone: `closeloop models show` has them, and the card.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from msgspec import structs, to_builtins

from engine.model_quality import LEVEL, judged
from engine.models_log import History, Logged
from engine.notify.message import plain

MOST_CHANGES = 50
"""Newest entries about a model that are shown."""
MOST_NAMES = 40
"""Names in a row."""
MOST_LINE = 10
"""Models of a lineage that are named."""
MAX_CELL = 500
MAX_TEXT = 5_000
"""Characters of a cell, and of a paragraph."""
_CATEGORY = re.compile(r"^((?:[^\\=]|\\.)*)=(.*)$", re.DOTALL)
PLURALS = {"symbol": "symbols", "strategy": "strategies", "side": "sides", "regime": "regimes"}
"""What the engine knows of each signal, beside its features."""


class Code(str):
    """What a person types."""

    __slots__ = ()


Cell: TypeAlias = str | int | float | tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Part:
    """A heading with sentences under it, and a table.

    Parameters
    ----------
    title, text
        The heading; paragraphs.
    columns, rows
        Of the table; none: no table.
    """

    title: str
    text: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[Cell]] = field(default_factory=tuple)


def shown(value: Cell) -> str:
    """A cell for people, in one line."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return plain(value, MAX_TEXT if isinstance(value, Code) else MAX_CELL)
    if isinstance(value, tuple):
        return f"{shown(value[0])} … {shown(value[1])}"
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.4g}"


def names(given: Iterable[str]) -> str:
    """Names in a row, the first of them."""
    found = list(given)
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    return ", ".join(found[:MOST_NAMES]) + more if found else "none"


def moment(ts: datetime) -> str:
    """A time, to the minute."""
    return f"{ts:%Y-%m-%d %H:%M} UTC"


def _count(closes: int | None) -> str:
    return "the" if closes is None else f"{closes:,}"


def overview(history: History, model: str) -> Part:
    """Which model it is, where it stands, and where it comes from."""
    record = history[model]
    fitted, decided, facts = record.fitted, record.decided, record.facts
    line = history.lineage(model)
    more = f" and {len(line) - MOST_LINE} before" if len(line) > MOST_LINE else ""
    rows: list[tuple[str, Cell]] = [
        ("model", record.id),
        ("is", ", ".join(history.aliases(model)) or "no alias points to it"),
        ("kind", "LightGBM classifier of wins, with a regressor of returns: one of the experts"),
        ("verdict", record.verdict),
    ]
    if record.forced:
        rows.append(("forced", "it became champion although the gate refused it"))
    rows += [
        ("decided by", None if decided is None else decided.by),
        ("because", None if decided is None else decided.reason),
        ("made", None if fitted is None else f"{moment(fitted.ts)}, {fitted.update:,} closes in"),
        ("cause of the refit", None if facts is None else facts.cause),
        ("digest, SHA-256", record.digest),
        ("lineage", " ← ".join(line[:MOST_LINE]) + more),
    ]
    text = () if fitted else ("The stream doesn't reach back to when it was made.",)
    return Part("Overview", text, ("", ""), rows)


def training_data(history: History, model: str) -> Part:
    """The closes and the features that it was made of."""
    facts = history[model].facts
    if facts is None:
        return Part("Training data", ("Not in the models stream any more.",))
    window = (
        None
        if facts.first_close is None or facts.last_close is None
        else f"{moment(facts.first_close)} to {moment(facts.last_close)}"
    )
    kinds = feature_kinds(facts.features)
    rows: list[tuple[str, Cell]] = [
        ("closes from, to", window),
        ("closes trained on", facts.trained_on),
        ("closes held out", facts.held_out),
        ("columns", len(facts.features)),
        ("of them the engine's own", names(kinds.own)),
        ("numbers and flags", names(kinds.numbers)),
        ("categories", names(f"{n} ({len(v)} values)" for n, v in kinds.categories.items())),
        *((many, names(kinds.seen[one])) for one, many in PLURALS.items()),
    ]
    text = (
        "The closes held out are the newest ones. Once the gate has judged, what is installed is"
        " fitted again on all of them.",
    )
    return Part("Training data", text, ("", ""), rows)


def training(history: History, model: str) -> Part:
    """LightGBM's parameters, and what the gate said."""
    record = history[model]
    if record.facts is None or record.fitted is None:
        return Part("Training", ("Not in the models stream any more.",))
    return Part(
        "Training",
        (f"The gate: {record.fitted.reason}",),
        ("parameter", "value"),
        list(record.facts.params.items()),
    )


def evaluation(history: History, model: str) -> Part:
    """Metrics on the closes held out."""
    found = judged(history, model)
    if found is None:
        return Part("Metrics on closes held out", ("There are none on record.",))
    text = (
        f"On {_count(found.closes)} closes, of a model that was fitted without them. The number of"
        " its rounds was chosen on the same closes, which flatters it a little; what it did as"
        f" champion is free of that. Intervals hold with {LEVEL:.0%} confidence, as if closes were"
        " independent: trades that overlap make them too narrow.",
    )
    rows = [
        (m.name, m.value, m.interval or (f"none: {m.why_not}" if m.why_not else None), m.defender)
        for m in found.metrics
    ]
    columns = ("metric", "value", f"{LEVEL:.0%} interval", found.defender or "champion then")
    return Part("Metrics on closes held out", text, columns, rows)


def reigns(history: History, model: str) -> Part:
    """When it was champion."""
    record = history[model]
    if not record.reigns:
        return Part("As champion", ("It has never been champion.",))
    rows = [
        (
            _when(reign.began, "before the oldest entry"),
            _when(reign.ended, "now"),
            None if reign.began is None else reign.began.change.by,
            None if reign.began is None else reign.began.change.reason,
        )
        for reign in record.reigns
    ]
    return Part("As champion", (), ("from", "until", "by", "why"), rows)


def changes(history: History, model: str) -> Part:
    """Every entry about it, the newest of them."""
    logged = history[model].logged[-MOST_CHANGES:]
    left_out = len(history[model].logged) - len(logged)
    text = (f"{left_out:,} older entries are left out.",) if left_out else ()
    rows = [
        (
            moment(each.change.ts),
            each.change.update,
            each.change.change + (", forced" if each.change.forced else ""),
            each.change.by,
            "the same"
            if n and each.change.reason == logged[n - 1].change.reason
            else each.change.reason,
        )
        for n, each in enumerate(logged)
    ]
    return Part("History", text, ("when", "closes", "what", "by", "why"), rows)


def figures(history: History, model: str) -> dict[str, object]:
    """All of it for JSON."""
    record, found = history[model], judged(history, model)
    return {
        "model": model,
        "aliases": history.aliases(model),
        "verdict": record.verdict,
        "forced": record.forced,
        "decided_by": None if record.decided is None else record.decided.by,
        "reason": None if record.decided is None else record.decided.reason,
        "digest": record.digest,
        "lineage": history.lineage(model),
        "judged_against": history.defender(model),
        "judged_on": None if found is None else found.closes,
        "accuracy_interval": None
        if found is None
        else {metric.name: metric.interval for metric in found.metrics}.get("accuracy"),
        "facts": to_builtins(record.facts),
        "reigns": [
            {
                "from_closes": reign.first,
                "until_closes": reign.last,
                "from": reign.began and reign.began.change.ts,
                "until": reign.ended and reign.ended.change.ts,
                "by": reign.began and reign.began.change.by,
                "reason": reign.began and reign.began.change.reason,
            }
            for reign in record.reigns
        ],
        "changes": [
            {"entry_id": each.id, **to_builtins(structs.replace(each.change, facts=None))}
            for each in record.logged[-MOST_CHANGES:]
        ],
    }


def _when(logged: Logged | None, otherwise: str) -> str:
    if logged is None:
        return otherwise
    return f"{moment(logged.change.ts)}, {logged.change.update:,} closes in"


# Features


@dataclass(frozen=True, slots=True)
class FeatureKinds:
    """The columns of `learners.FeatureEncoder`, by what they are made of.

    Parameters
    ----------
    own
        Time and history, the engine's own.
    numbers
        Numbers and flags that bots send.
    categories
        The values of each category that bots send.
    seen
        The values of symbol, strategy, side and regime that have a column.
    """

    own: list[str]
    numbers: list[str]
    categories: dict[str, list[str]]
    seen: dict[str, list[str]]


def feature_kinds(columns: Sequence[str]) -> FeatureKinds:
    """What columns of those names are made of."""
    found = FeatureKinds([], [], {}, {name: [] for name in PLURALS})
    for column in columns:
        category = _CATEGORY.match(column)
        if category is None:
            (found.own if column.startswith("@") else found.numbers).append(_unescaped(column))
        elif category[1].startswith("@"):
            found.seen.setdefault(category[1][1:], []).append(_unescaped(category[2]))
        else:
            values = found.categories.setdefault(_unescaped(category[1]), [])
            values.append(_unescaped(category[2]))
    return found


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)
