"""`closeloop import`: other people's trade logs into tapes."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.options import (
    JsonOption,
    evaluation_extra,
    note,
    print_json,
    progress,
    results,
)
from streams.errors import TapeError


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("import")(import_)


def import_(
    logs: Annotated[
        list[Path] | None, typer.Argument(help="Trade logs: JSON lines, JSON, zip, CSV, Parquet.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="TAPE", help="The tape: .jsonl, .gz or .zst.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="confluence, csv, freqtrade or parquet."),
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option("--mapping", metavar="FILE", help="A mapping of your own, TOML.")
    ] = None,
    show_preset: Annotated[
        str | None,
        typer.Option("--show-preset", metavar="NAME", help="Print a preset, to make one's own of."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the tape.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a tape of other programs' trade logs, by a mapping or one of its presets.

    Each trade becomes a signal at its entry and a close at its exit, in the order of time. What a
    log's record can't be used for is told by line, and kept in TAPE.rejected.jsonl. Nothing known
    only at the exit becomes a feature. Next: closeloop audit TAPE.
    """
    with evaluation_extra():
        from engine.evaluation.import_mapping import load_mapping, parse_mapping, preset_text
        from engine.evaluation.importing import import_logs, rejected_path
        from engine.evaluation.pages import print_findings
    if show_preset is not None:
        typer.echo(preset_text(show_preset), nl=False)
        return
    if not logs:
        raise typer.BadParameter("name at least one log", None, None, "LOGS")
    if out is None:
        raise typer.BadParameter("say where the tape goes", None, None, "--out")
    if (preset is None) == (mapping is None):
        raise typer.BadParameter("give one of them", None, None, "--preset / --mapping")
    if mapping is not None:
        chosen = load_mapping(mapping)
    else:
        assert preset is not None
        chosen = parse_mapping(preset_text(preset), f"preset {preset}")
    if out.exists() and not force:
        raise TapeError(f"{out} exists; name another file, or overwrite it with --force")
    with progress() as bar:
        task = bar.add_task("importing", total=1.0)
        findings = import_logs(logs, out, chosen, lambda done: bar.update(task, completed=done))
    if as_json:
        print_json(findings.figures)
    else:
        print_findings(findings, results())
    if not findings.figures["signals"]:
        note(f"no record could be used: see {rejected_path(out)}")
        raise typer.Exit(1)
