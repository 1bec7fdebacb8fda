"""`closeloop evaluate`: what the decisions on a tape were worth, and how sure that is."""

from pathlib import Path
from typing import Annotated

import typer

from engine.bootstrap import new_core, process_fitter
from engine.cli.findings import HtmlOption, present
from engine.cli.options import (
    ConfigOption,
    JsonOption,
    busy,
    evaluation_extra,
    progress,
    settings,
)
from learners import warm_up
from streams.tape import Tape


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("evaluate")(evaluate)


def evaluate(
    tapes: Annotated[
        list[Path], typer.Argument(help="Tapes, in order: .jsonl, .jsonl.gz or .jsonl.zst.")
    ],
    walk_forward: Annotated[
        bool, typer.Option("--walk-forward/--no-walk-forward", help="Train fresh cores as well.")
    ] = True,
    train: Annotated[
        int | None,
        typer.Option(min=0, help="Closes a window trains on.", show_default="a quarter"),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(min=1, help="Closes it is judged on.", show_default="an eighth"),
    ] = None,
    embargo: Annotated[
        int, typer.Option(min=0, help="Closes after its training that aren't judged.")
    ] = 0,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 1_000,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the bootstrap; the engine's own is in the settings.")
    ] = 42,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use N events at most.", show_default="all")
    ] = None,
    config: ConfigOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the decisions on a tape against the base rate, all signals and the bot's own rules.

    One pass as live, then fresh cores on walk-forward windows, with block-bootstrap intervals;
    slices by symbol, strategy, side, session, regime and year, corrected for their number; and
    estimates for tapes on which only taken trades have closes.
    """
    with evaluation_extra():
        from engine.evaluation.evaluate import Plan
        from engine.evaluation.evaluate import evaluate as evaluate_tape
        from engine.evaluation.evaluate_tables import findings
    chosen = settings(config)
    tape = Tape(*tapes)
    plan = Plan(
        walk_forward=walk_forward,
        train=train,
        step=step,
        embargo=embargo,
        resamples=resamples,
        seed=seed,
        limit=limit,
        default_baseline=chosen.core.policy.default_baseline,
    )
    with busy("compiling, at the first start only"):
        warm_up()
    with process_fitter() as fitter, progress() as bar:
        tasks = {}

        def tell(stage: str, done: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=done)

        found = findings(
            evaluate_tape(lambda: new_core(chosen, fitter), tape, plan, tell),
            "Evaluation of " + ", ".join(path.name for path in tapes),
        )
    present(found, as_json, html)
