"""`closeloop features`: what each feature is worth, and which needn't be sent."""

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


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("features")(features)


def features(
    tapes: Annotated[list[Path], typer.Argument(help="Tapes, in order: .jsonl, .gz or .zst.")],
    windows: Annotated[
        int, typer.Option(min=3, help="Windows that are fitted and judged; fewer are faster.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the permutations.")] = 1,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    html: HtmlOption = None,
) -> None:
    """Say what each feature is worth, how steadily, and which needn't be sent.

    LightGBM is fitted on windows as the refits are, and asked about the closes that come next:
    importance by gain and by permutation, its ranks over time, features that say the same, the
    loss without each group, and a list to drop, judged on later windows.
    """
    chosen = settings(config)
    with evaluation_extra():
        from engine.evaluation.features import analyse
        from engine.evaluation.features_findings import findings
    with progress() as bar:
        task = bar.add_task("", total=1.0)
        analysis = analyse(
            tapes,
            chosen.core,
            windows,
            seed,
            lambda what, done: bar.update(task, description=what, completed=done),
        )
    found = findings(analysis)
    present(found, as_json, html)
