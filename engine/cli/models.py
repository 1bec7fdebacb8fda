"""`closeloop models ...`: which models there were, which decided when, and who is champion."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins
from rich.markup import escape
from rich.table import Table

from engine.bootstrap import keys_of
from engine.cli.control import subcommand
from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    evaluation_extra,
    print_json,
    progress,
    results,
    settings,
)
from engine.commands import COMMANDS
from engine.model_comparison import compare as compared
from engine.model_comparison import parts_of
from engine.model_parts import (
    Cell,
    Part,
    changes,
    evaluation,
    figures,
    moment,
    overview,
    reigns,
    shown,
    training,
    training_data,
)
from engine.models_log import History, ModelRecord, UnknownModel
from engine.models_reading import (
    decision_of,
    drift_alarms,
    read_history,
    served,
    snapshots,
)
from engine.view import NoView, read_view
from streams import Connection, Decision, Keys, connect
from streams.events import SnapshotNotice

COMMAND_OF = {"promote": "install", "rollback": "rollback", "pin": "pin", "unpin": "unpin"}
"""What each of these is called among the commands of `closeloop control`."""
Progress = Callable[[int], None]

ModelArgument = Annotated[str | None, typer.Argument(metavar="ID", help="Its ID, or an alias.")]
LimitOption = Annotated[int, typer.Option(min=1, help="The newest N.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="The registry of models: every refit and every change of the champion, for ever.",
    )
    group.command("list")(list_)
    group.command("show")(show)
    group.command("compare")(compare)
    group.command("card")(card)
    for name, command in COMMAND_OF.items():
        group.command(name)(subcommand(command, COMMANDS[command]))
    app.add_typer(group, name="models")


def list_(
    limit: LimitOption = 20,
    of_snapshots: Annotated[
        bool, typer.Option("--snapshots", help="The snapshots announced, with their digests.")
    ] = False,
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """List models, newest first: what each is, its verdict, and how it did on closes held out.

    The log loss stands above that of the champion it was judged against, on the same closes.
    "forced" means that it became champion although the gate refused it.
    """
    chosen = settings(config, address)
    keys = keys_of(chosen)
    with connect(chosen.stream.address) as connection:
        if of_snapshots:
            _show_snapshots(snapshots(connection, keys, limit), as_json)
            return
        with _reading("reading models", connection, keys.models) as step:
            history = read_history(connection, keys, step)
        standing = _standing(connection, keys, history)
    newest = list(history.models)[::-1][:limit]
    if as_json:
        print_json(
            {
                "models": [figures(history, model) for model in newest],
                "known": len(history.models),
                "previous": standing.get("previous"),
                "kept": standing.get("kept"),
            }
        )
        return
    table = _table(f"models: {len(newest)} of {len(history.models):,}")
    for column in ("model", "when, UTC", "cause", "verdict, by"):
        table.add_column(column, overflow="fold")
    for column in ("closes\ntrained", "log loss,\nchampion's"):
        table.add_column(column, justify="right")
    for model in newest:
        table.add_row(*map(escape, _listed(history, history[model], standing)))
    results().print(table)


def _listed(history: History, record: ModelRecord, standing: dict[str, Any]) -> list[str]:
    fitted, facts, decided = record.fitted, record.facts, record.decided
    made = record.logged[0].change.ts if fitted is None else fitted.ts
    aliases = history.aliases(record.id)
    if standing.get("previous") == record.id:
        aliases.append("previous")
    metrics, theirs = (facts.metrics, facts.champion_metrics) if facts else ({}, {})
    return [
        "\n".join([shown(record.id), *aliases]),
        f"{made:%Y-%m-%d\n%H:%M}",
        shown(facts.cause if facts else None),
        record.verdict + (f"\n{shown(decided.by)}" if decided else ""),
        shown(facts.trained_on if facts else None),
        f"{shown(metrics.get('log_loss'))}\n{shown(theirs.get('log_loss'))}",
    ]


def _show_snapshots(found: Sequence[SnapshotNotice], as_json: bool) -> None:
    if as_json:
        print_json([to_builtins(notice) for notice in found])
        return
    table = _table("snapshots")
    for column in ("snapshot", "events", "file", "state", "decisions"):
        table.add_column(column, overflow="fold", justify="right" if column == "events" else "left")
    for each in found:
        digests = (each.file_digest, each.state_digest, each.decisions_digest)
        table.add_row(
            escape(shown(each.snapshot_id)), f"{each.events:,}", *(d[:12] for d in digests)
        )
    results().print(table)


def show(
    model: ModelArgument = None,
    decision: Annotated[
        str | None,
        typer.Option(metavar="SIGNAL_ID", help="The champion of the decision on that signal."),
    ] = None,
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all on record of a model: lineage, data, metrics, when and why it was champion.

    Without an ID the champion. With --decision the model that was champion for that decision, which
    the decision itself names.
    """
    if model is not None and decision is not None:
        raise typer.BadParameter("name a model or a decision, not both")
    chosen = settings(config, address)
    keys = keys_of(chosen)
    made: Decision | None = None
    with connect(chosen.stream.address) as connection, _known():
        with _reading("reading models", connection, keys.models) as step:
            history = read_history(connection, keys, step)
        if decision is not None:
            with _reading("looking for the decision", connection, keys.decisions) as step:
                made = decision_of(connection, keys, decision, step)
            model = made.model.champion
            if model is None:
                raise UnknownModel(
                    f"no refit was installed when {decision!r} was decided, {made.model.update:,}"
                    " closes in: the other experts decided"
                )
        model = _named(history, model)
        found = figures(history, model)
    if as_json:
        print_json(found if made is None else {"decision": to_builtins(made), **found})
        return
    if made is not None:
        said = f"{made.signal_id}: {made.action}, probability {made.probability:.4f}"
        when = f"{moment(made.ts)}, {made.model.update:,} closes in, settings {made.model.config}"
        results().print(escape(shown(f"{said}, {when}")), highlight=False)
    parts = (overview, training_data, training, evaluation, reigns, changes)
    _print_parts([part(history, model) for part in parts])


def compare(
    first: Annotated[str, typer.Argument(help="The ID of a model, or an alias.")],
    second: Annotated[str, typer.Argument(help="The other one's.")],
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two models: metrics with differences, and the windows and parameters that differ.

    Where one was judged against the other, also on the very same closes.
    """
    chosen = settings(config, address)
    keys = keys_of(chosen)
    with connect(chosen.stream.address) as connection, _known():
        with _reading("reading models", connection, keys.models) as step:
            history = read_history(connection, keys, step)
        found = compared(history, _named(history, first), _named(history, second))
    if as_json:
        print_json(found.figures())
    else:
        _print_parts(parts_of(found))


def card(
    model: ModelArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it there, .md or .html.", show_default="to here"),
    ] = None,
    config: ConfigOption = None,
    address: AddressOption = None,
) -> None:
    """Write a model card, of facts on record alone: nothing is typed by hand.

    Without an ID the champion's. Markdown, or with a name that ends with .html a page that holds
    all it shows. Intervals and pages need the extra `evaluate`.
    """
    # Not at the top: it loads what no other command of these needs.
    from engine.model_card import MOST_CLOSES, Surroundings, markdown, write_html
    from engine.model_card import card as card_of

    if out is not None and out.suffix not in (".md", ".html"):
        raise typer.BadParameter(f"{out} must end with .md or .html", param_hint="--out")
    chosen = settings(config, address)
    keys = keys_of(chosen)
    with connect(chosen.stream.address) as connection, _known():
        with _reading("reading models", connection, keys.models) as step:
            history = read_history(connection, keys, step)
        model = _named(history, model)
        record = history[model]
        with _reading("reading what it decided", connection, keys.decisions) as step:
            came = served(connection, keys, record, MOST_CLOSES, step)
        with _reading("reading alerts", connection, keys.alerts) as step:
            drifts = drift_alarms(connection, keys, record.reigns, step)
        view: dict[str, Any] | None = None
        with suppress(NoView):
            view = read_view(connection, keys)
    found = card_of(history, model, Surroundings(chosen, view, came, drifts))
    if out is None:
        typer.echo(markdown(found))
    elif out.suffix == ".md":
        out.write_text(markdown(found), encoding="utf-8")
    else:
        with evaluation_extra():
            write_html(found, out)


def _named(history: History, model: str | None) -> str:
    """The ID of a model given by ID or alias; None: the champion."""
    aliases = {
        "champion": history.champion,
        "challenger": history.challenger,
        "pinned": history.pinned,
    }
    wanted = model or "champion"
    if wanted in aliases:
        found = aliases[wanted]
        if found is None:
            newest = next(reversed(history.models))
            raise UnknownModel(f"there is no {wanted} now; name a model, such as {newest}")
        return found
    return history[wanted].id


@contextmanager
def _known() -> Iterator[None]:
    """What isn't in the streams is bad usage."""
    try:
        yield
    except UnknownModel as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def _reading(what: str, connection: Connection, key: str) -> Iterator[Progress]:
    """A bar over a stream's entries, on a terminal."""
    with progress() as bar:
        total = connection.retrying(lambda: connection.redis.xlen(key))
        task = bar.add_task(what, total=total)
        yield lambda entries: bar.update(task, advance=entries)


def _standing(connection: Connection, keys: Keys, history: History) -> dict[str, Any]:
    """What the worker's view says of models; nothing without one, or when it lags behind."""
    try:
        found: dict[str, Any] = read_view(connection, keys)["models"]
    except NoView:
        return {}
    return found if found["champion"] == history.champion else {}


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _print_parts(parts: Sequence[Part]) -> None:
    """Headings, sentences and tables, fitted to the terminal."""
    console = results()
    for part in parts:
        console.print(f"[bold]{escape(part.title)}[/]")
        for paragraph in part.text:
            console.print(escape(shown(paragraph)), highlight=False)
        if part.columns:
            table = Table(show_header=any(part.columns))
            for index, name in enumerate(part.columns):
                numbers = index and all(_is_number(row[index]) for row in part.rows)
                table.add_column(
                    escape(shown(name)), justify="right" if numbers else "left", overflow="fold"
                )
            for row in part.rows:
                table.add_row(*(escape(shown(value)) for value in row))
            console.print(table)
        console.print()


def _is_number(value: Cell) -> bool:
    return value is None or isinstance(value, int | float | tuple)
