"""How findings are shown by every command that has some: tables, JSON, and a page on request."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import print_json, results
from engine.config import ConfigError

if TYPE_CHECKING:
    from engine.evaluation.pages import Findings


def _writable(page: Path | None) -> Path | None:
    """Tell before the work is done, not after."""
    if page is None:
        return None
    folder = page.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--html {page}: there is no folder {folder}; make it")
    if page.is_dir() or not os.access(page if page.exists() else folder, os.W_OK):
        raise ConfigError(f"--html {page}: can't be written; name another file")
    return page


HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write a page with plots, too.", callback=_writable
    ),
]


def present(found: "Findings", as_json: bool, html: Path | None) -> None:
    """To standard output, and to the page when one was asked for."""
    from engine.evaluation.pages import print_findings, write_page

    if html is not None:
        write_page(found, html)
    if as_json:
        print_json(found.figures)
    else:
        print_findings(found, results())
