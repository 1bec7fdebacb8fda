"""`closeloop tune`: better settings for a tape, if there are any."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.findings import HtmlOption, present
from engine.cli.options import (
    ConfigOption,
    JsonOption,
    busy,
    evaluation_extra,
    note,
    progress,
    settings,
)
from engine.config import ConfigError
from learners import warm_up


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("tune")(tune)


def tune(
    tapes: Annotated[list[Path], typer.Argument(help="Tapes, in order: .jsonl, .gz or .zst.")],
    trials: Annotated[
        int, typer.Option(min=2, help="In all, with the first, which is the settings given.")
    ] = 50,
    jobs: Annotated[int, typer.Option(min=1, help="Trials side by side, a process each.")] = 2,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The settings file to write.")
    ] = Path("tuned.toml"),
    study: Annotated[
        Path | None,
        typer.Option(
            "--study",
            metavar="FILE",
            help="The trials' journal; the same again goes on with it.",
            show_default="beside --out, with .journal",
        ),
    ] = None,
    holdout: Annotated[
        float, typer.Option(min=0.05, max=0.8, help="Share of the closes that only judge.")
    ] = 0.3,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --out.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    html: HtmlOption = None,
) -> None:
    """Search for better settings on the first part of tapes, and judge them on the untouched last.

    Optuna over what moves the log loss: the refits, the forest, drift. Trials that are clearly
    behind are stopped. The settings file holds what is advised: what was found when it is better on
    the last part beyond chance, otherwise what was given. Killed, it goes on where it was when
    started again alike.
    """
    chosen = settings(config)
    with evaluation_extra():
        from engine.evaluation.tune import tune as run_search
        from engine.evaluation.tune_findings import findings, tuned_file
    _require_writable(out, force)
    journal = study or out.with_suffix(".journal")
    with busy("compiling, at the first start only"):
        warm_up()
    try:
        with progress() as bar:
            task = bar.add_task("", total=1.0)
            tuning = run_search(
                chosen.core,
                tapes,
                trials,
                jobs,
                journal,
                holdout,
                seed,
                lambda what, done: bar.update(task, description=what, completed=done),
            )
    except KeyboardInterrupt:
        note(f"the trials done are in {journal}; start again alike to go on")
        raise
    found = findings(tuning)
    try:
        out.write_text(tuned_file(tuning), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"can't write {error.filename}: {error.strerror}; name a file in a folder you may "
            "write to"
        ) from None
    present(found, as_json, html)
    note(f"wrote {out}; the trials are in {journal}")


def _require_writable(out: Path, force: bool) -> None:
    """Better told before the search than after it."""
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; name another file with --out, or overwrite with --force")
    if not out.parent.is_dir():
        raise ConfigError(f"can't write {out}: there is no folder {out.parent}; make it first")
