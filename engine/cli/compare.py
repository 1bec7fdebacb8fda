"""`closeloop compare`: every expert, the mixture and other people's learners in one table."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from engine.bootstrap import process_fitter
from engine.cli.findings import HtmlOption, present
from engine.cli.options import (
    ConfigOption,
    JsonOption,
    evaluation_extra,
    progress,
    settings,
)
from engine.config import ConfigError
from streams.tape import Tape


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("compare")(compare)


def compare(
    tapes: Annotated[
        list[Path], typer.Argument(help="Tapes, in order: .jsonl, .jsonl.gz or .jsonl.zst.")
    ],
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Peers to run; none: only the engine.", show_default="all"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use N events at most.", show_default="all")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Peers that run side by side.")] = 2,
    config: ConfigOption = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge every expert, the mixture and other people's learners on the same closes.

    All get the same encoded features, predict where the engine decided and learn a close where the
    engine did. River's ensembles of trees are slow: about a millisecond an event or more. A peer
    that isn't installed is listed as such.
    """
    with evaluation_extra():
        from engine.evaluation.compare import compared, observe
        from engine.evaluation.compare_findings import findings
        from engine.evaluation.peer_runs import run_peers
        from engine.evaluation.peers import PEERS
    names = _chosen(peers, list(PEERS))
    core = settings(config).core
    tape = Tape(*tapes)
    with progress() as bar:
        task = bar.add_task("the engine", total=1.0)
        with process_fitter() as fitter:
            observed = observe(
                core,
                fitter,
                islice(tape, limit),
                lambda events: bar.update(
                    task, completed=events / limit if limit else tape.progress
                ),
            )
        bar.remove_task(task)
        steps = len(observed.course.steps)
        tasks = {name: bar.add_task(name, total=steps) for name in names}
        ran = run_peers(
            names,
            observed.course,
            core.seed,
            min(processes, max(len(names), 1)),
            lambda name, done: bar.update(tasks[name], completed=done),
        )
        bar.add_task("judging", total=None)
        title = "Comparison on " + ", ".join(path.name for path in tapes)
        found = findings(title, compared(observed, ran, core.seed))
    present(found, as_json, html)


def _chosen(given: str | None, known: list[str]) -> list[str]:
    if given is None:
        return known
    names = [name.strip() for name in given.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in known:
            raise ConfigError(f"--peers: there is no {name!r}; use some of {', '.join(known)}")
    return list(dict.fromkeys(names))
