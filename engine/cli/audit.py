"""`closeloop audit`: whether a tape can be trusted."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.findings import HtmlOption, present
from engine.cli.options import (
    ConfigOption,
    JsonOption,
    evaluation_extra,
    progress,
    settings,
)
from streams.tape import Tape


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("audit")(audit)


def audit(
    tapes: Annotated[list[Path], typer.Argument(help="Tapes, in order: .jsonl, .gz or .zst.")],
    html: HtmlOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check tapes before they are learned from: what is broken, missing, late or leaked.

    Lines that are no events, joins, duplicates, time order and gaps, label delays, class balance;
    missing, constant, stale and changing features, and features that know the outcome. Each check
    says what to do. The exit status is 1 when one of them is a problem.
    """
    with evaluation_extra():
        from engine.evaluation.audit import audit as check
    ledger = settings(config).core.ledger
    tape = Tape(*tapes)
    with progress() as bar:
        task = bar.add_task("auditing", total=1.0)
        findings = check(tape, ledger, lambda: bar.update(task, completed=tape.progress))
    present(findings, as_json, html)
    if findings.figures["verdict"] == "problem":
        raise typer.Exit(1)
