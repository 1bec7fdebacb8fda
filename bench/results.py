"""How results leave a bench: tables for people, JSON for machines, bars for those who wait."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.machine import described, machine
from streams import StreamError

TapeArgument = Annotated[
    Path | None,
    typer.Argument(help="Events as .jsonl, .gz or .zst.", show_default="a generated tape"),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="OUT", help="Write the figures there; -: stdout.")
]


class BenchError(Exception):
    """A bench can't go on; the message says why, and where to look."""


def run(main: Callable[..., None]) -> None:
    """Run a bench's `main` as a command; what went wrong is told in few words."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except (BenchError, StreamError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)


class Results:
    """Collects a bench's figures and shows them.

    Parameters
    ----------
    bench
        Its name.
    json_out
        Where the JSON goes; with ``-`` it is all that goes to standard output.
    """

    def __init__(self, bench: str, json_out: Path | None) -> None:
        self.machine = machine()
        self.figures: dict[str, object] = {"bench": bench, "machine": self.machine}
        self._json_out = json_out
        # A fixed width off the terminal, so that a table pasted elsewhere is whole.
        out = sys.stderr if str(json_out) == "-" else sys.stdout
        self._console = Console(file=out, width=None if out.isatty() else 110, highlight=False)
        self._console.print(f"[dim]{described(self.machine)}[/]")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show a table: the first column to the left, figures to the right."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(shown, row))
        self._console.print(table)

    def note(self, text: str) -> None:
        """A line under the tables."""
        self._console.print(text, markup=False)

    def add(self, figures: Mapping[str, object]) -> None:
        """Add figures to the JSON."""
        self.figures.update(figures)

    def write(self) -> None:
        """Write the JSON where it was asked for."""
        if self._json_out is None:
            return
        data = orjson.dumps(
            self.figures,
            option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY,
        )
        if str(self._json_out) == "-":
            print(data.decode())
        else:
            self._json_out.write_bytes(data + b"\n")


def progress() -> Progress:
    """Bars on standard error; nothing where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def shown(value: object) -> str:
    """A figure as people read it: three digits that mean something."""
    if value is None:
        return "–"
    if isinstance(value, float):
        size = abs(value)
        return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
