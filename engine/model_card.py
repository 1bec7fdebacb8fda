"""The model card: what is on record of one model, as a document that a person can be handed.

Headings follow Mitchell et al. (2019), Model Cards for Model Reporting, arXiv:1810.03993. Every
figure comes from the streams, the worker's view or the settings; headings and explanations are
fixed. Nothing depends on when the card is made, so the same records make the same card.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config
from engine.model_parts import (
    MAX_TEXT,
    PLURALS,
    Cell,
    Code,
    Part,
    changes,
    evaluation,
    feature_kinds,
    moment,
    names,
    overview,
    reigns,
    shown,
    training,
    training_data,
)
from engine.model_quality import LEVEL, Slice, has_bootstrap, judged, sliced
from engine.models_log import History
from engine.models_reading import Served
from engine.notify.message import plain

MOST_CLOSES = 20_000
"""Newest closes that the figures as champion are made of."""
FEW_CLOSES = 100
"""Slices of fewer are named among the limits."""
INSTALL = 'pip install "closeloop[evaluate]"'
_ESCAPED = re.compile(r"([\\`*\[\]<>|#!~])")


@dataclass(frozen=True, slots=True)
class Card:
    """A card's title, its first sentences, and its parts in the order in which they are read."""

    title: str
    summary: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the card needs beside the models stream.

    Parameters
    ----------
    config
        The settings as they are now.
    view
        What `engine.view.read_view` gave; None: no worker has written any.
    served
        What came of the signals that the model decided as champion.
    drifts
        Alarms while it was champion, by what drifted.
    """

    config: Config
    view: Mapping[str, object] | None
    served: Served
    drifts: Mapping[str, int]


def card(history: History, model: str, around: Surroundings) -> Card:
    """The card of a model. Raises `UnknownModel`."""
    record = history[model]
    slices = sliced(around.served.outcomes)
    last = history.logged[-1].change
    standing = " and ".join(history.aliases(model)) or record.verdict
    summary = (
        f"{model} is {standing}, as of {last.update:,} closes ({moment(last.ts)}). It is one of the"
        " experts that closeloop mixes; the published probability is the mixture's."
    )
    if record.forced:
        summary += " It was forced in: the gate had refused it."
    return Card(
        f"Model card: {model}",
        summary,
        (
            overview(history, model),
            _intended_use(history, model, around, slices),
            training_data(history, model),
            training(history, model),
            _gate(around.config),
            evaluation(history, model),
            reigns(history, model),
            _by_slice(around.served, slices),
            _limits(history, model, around, slices),
            _operating(history, model, around),
            changes(history, model),
        ),
    )


def _intended_use(
    history: History, model: str, around: Surroundings, slices: Sequence[Slice]
) -> Part:
    facts = history[model].facts
    seen = feature_kinds(facts.features).seen if facts else {}
    rollout = (around.view or {}).get("rollout")
    stage = rollout if isinstance(rollout, Mapping) else {}
    mode = stage.get("mode")
    rows: list[tuple[str, Cell]] = [
        ("mode of the rollout now", "not known: no worker has said" if mode is None else str(mode))
    ]
    if mode == "canary":
        rows.append(("percent of the signals", str(stage.get("percent"))))
    for kind in ("symbol", "strategy", "side"):
        decided = sorted({s.name for s in slices if s.kind == kind})
        rows.append((f"{PLURALS[kind]} it was trained on", names(seen.get(kind, ()))))
        if decided:
            rows.append((f"{PLURALS[kind]} it decided as champion", names(decided)))
    text = (
        "To help decide whether trades that bots propose are taken, and how large: its probability"
        " is mixed with those of the other experts, and the engine's policy, limits and kill switch"
        " stand between it and a trade. It is not meant to be used alone, nor for symbols,"
        " strategies and features that it was not trained on.",
    )
    return Part("Intended use", text, ("", ""), rows)


def _gate(config: Config) -> Part:
    refit = config.core.refit
    floors: dict[str, Cell] = {"floor_accuracy": refit.floor_accuracy, "floor_f1": refit.floor_f1}
    rows: list[tuple[str, Cell]] = [
        ("tolerance", refit.tolerance),
        ("guarded", ", ".join(refit.guarded)),
        ("guard", refit.guard),
        *((name, "none" if floor is None else floor) for name, floor in floors.items()),
        ("min_closes", refit.min_closes),
    ]
    text = ("As configured now, under core.refit; it may have been otherwise then.",)
    return Part("Gate", text, ("setting", "value"), rows)


def _by_slice(served: Served, slices: Sequence[Slice]) -> Part:
    title = "Metrics as champion, by slice"
    if not slices:
        return Part(title, ("No signal that it decided as champion has closed.",))
    text = [
        "Of the closes whose signals were decided while it was champion. Log loss, in nats, and"
        " expected calibration error are of its own probability; published is the mixture's."
        " Trades count where the model took them, or would have. Returns are percent a trade, each"
        " at the same size. Of so many slices one or the other stands out by chance."
    ]
    if not served.whole:
        text.append(
            f"Not from its first one on: the newest {slices[0].closes:,}, as far as the streams"
            f" reach back, and {MOST_CLOSES:,} at most."
        )
    if has_bootstrap():
        text.append(f"Intervals hold with {LEVEL:.0%} confidence, by a stationary bootstrap.")
    else:
        text.append(f"Intervals are left out: they need the extra `evaluate` ({INSTALL}).")
    columns = (
        "slice", "closes", "win rate", "", "log loss", "", "published", "ECE", "taken",
        "mean return", "",
    )  # fmt: skip
    rows = [
        (
            " ".join((s.kind, s.name)).strip(), s.closes, s.win_rate, s.win_rate_interval,
            s.log_loss, s.log_loss_interval, s.published_log_loss, s.ece, s.taken, s.return_pct,
            s.return_interval,
        )
        for s in slices
    ]  # fmt: skip
    return Part(title, tuple(text), columns, rows)


def _limits(history: History, model: str, around: Surroundings, slices: Sequence[Slice]) -> Part:
    facts, found = history[model].facts, judged(history, model)
    rows: list[tuple[str, Cell]] = []
    if facts is not None:
        whole = facts.trained_on + facts.held_out
        share = f" ({facts.held_out / whole:.0%} of the window)" if whole else ""
        rows.append(("closes held out", f"{facts.held_out:,}{share}"))
        kinds = feature_kinds(facts.features)
        rows += [
            (f"{PLURALS[kind]} it knows nothing of", f"all but {names(kinds.seen[kind])}")
            for kind in ("symbol", "strategy")
            if kinds.seen[kind]
        ]
    if found is not None:
        rows.append(("closes that judged it", found.closes))
    few = [f"{s.kind} {s.name} ({s.closes})" for s in slices if s.closes < FEW_CLOSES and s.name]
    if few:
        rows.append((f"slices of fewer than {FEW_CLOSES} closes", names(few)))
    moved = [f"{name} {count}" for name, count in sorted(around.drifts.items())]
    rows += [
        ("drift alarms while champion", names(moved) if moved else "none"),
        ("how often features were missing", "not recorded"),
        ("trades that nobody tracked", "without a close, neither trained on nor judged"),
    ]
    return Part("Limits", (), ("", ""), rows)


def _operating(history: History, model: str, around: Surroundings) -> Part:
    named = shlex.quote(model)
    kept = _is_kept(history, model, around.view)
    rows: list[tuple[str, Cell]] = [(Code(f"closeloop models show {named}"), "all on record of it")]
    text = "Commands are signed with the control key, and take effect with the next event."
    if kept is None:
        text += " Whether it is still kept is not known: no worker has said so lately."
    elif not kept:
        text += " It is not kept any more, so it can't be made champion again."
    if kept is not False:
        force = " --force" if history[model].verdict in ("rejected", "forced") else ""
        if model != history.champion:
            promote = f"closeloop models promote {named}{force} --reason WHY"
            rows.append((Code(promote), "makes it champion"))
        rows.append((Code(f"closeloop models pin {named} --reason WHY"), "and keeps it there"))
    if history.pinned is not None:
        rows.append(
            (Code("closeloop models unpin --reason WHY"), "lets refits replace the champion")
        )
    if model == history.champion:
        rows.append(
            (Code("closeloop models rollback --reason WHY"), "goes back to the champion before it")
        )
    rows += [
        (Code("closeloop control refit --reason WHY"), "fits the next one at once"),
        (Code("closeloop control halt --reason WHY"), "stops all deciding"),
    ]
    return Part("How to operate", (text,), ("command", "does"), rows)


def _is_kept(history: History, model: str, view: Mapping[str, object] | None) -> bool | None:
    """Whether the engine can go back to it; None: not known. The view may lag a little behind."""
    if model in (history.champion, history.challenger):
        return True
    models = (view or {}).get("models")
    if not isinstance(models, Mapping) or models.get("champion") != history.champion:
        return None
    return model in models["kept"]


# As text


def markdown(found: Card) -> str:
    """The card in GitHub-flavoured Markdown. What bots and people have typed stays text."""
    lines = [f"# {_escaped(found.title)}", "", _escaped(found.summary), ""]
    for part in found.parts:
        lines += [f"## {part.title}", ""]
        for paragraph in part.text:
            lines += [_escaped(plain(paragraph, MAX_TEXT)), ""]
        if part.columns:
            lines += [_row(part.columns), _row(["---"] * len(part.columns))]
            lines += [_row([_cell(value) for value in row]) for row in part.rows]
            lines.append("")
    return "\n".join(lines)


def write_html(found: Card, path: Path) -> None:
    """The card as one self-contained HTML page. Needs the extra `evaluate`."""
    from engine.evaluation.pages import Findings, Table, write_page

    tables = [
        Table(
            part.title,
            part.columns,
            [[shown(value) for value in row] for row in part.rows],
            " ".join(plain(paragraph, MAX_TEXT) for paragraph in part.text),
        )
        for part in found.parts
    ]
    write_page(Findings(found.title, found.summary, {}, tables), path)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Cell) -> str:
    text = shown(value)
    return f"`{text}`" if isinstance(value, Code) else _escaped(text)


def _escaped(text: str) -> str:
    return _ESCAPED.sub(r"\\\1", text)
