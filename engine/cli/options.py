"""What all commands share: the config file, the address, and how results are shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from engine.config import Config, ConfigError, StreamConfig, load_config

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings; closeloop.toml where there is one.", metavar="FILE"),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="redis://…, embedded://DIR or memory://NAME.", metavar="URL"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]


def settings(path: Path | None, address: str | None = None) -> Config:
    """The configuration, with the address from the command line if it was given."""
    config = load_config(path)
    if address is None:
        return config
    stream = StreamConfig.model_validate(config.stream.model_dump() | {"address": address})
    return config.model_copy(update={"stream": stream})


def print_json(value: object) -> None:
    """To standard output, indented."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


def note(message: str) -> None:
    """One line to standard error, for people."""
    typer.echo(message, err=True)


def results() -> Console:
    """Where tables go: standard output, fitted to the terminal."""
    return Console()


def progress() -> Progress:
    """A progress bar on standard error, silent when that is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner on standard error while something takes long; silent when not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


@contextmanager
def evaluation_extra() -> Iterator[None]:
    """Around the import of a module of `engine.evaluation`: says what to install when it lacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "engine":
            raise
        raise ConfigError(
            f'{error.name} is not installed; run: pip install "closeloop[evaluate]"'
        ) from error


def print_table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    """To standard output, fitted to the terminal."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(shown, row))
    results().print(table)


def shown(value: object) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1_000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
