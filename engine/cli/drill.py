"""`closeloop drill`: the safety systems, tried on a shadow copy of a live system."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM
from types import FrameType
from typing import Annotated

import typer

from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    busy,
    note,
    print_json,
    print_table,
    settings,
    shown,
)
from engine.drills import DRILLS, DrillError, Report, read_live, read_tape, shadow_copy
from learners import warm_up

EventsOption = Annotated[
    int, typer.Option("--events", min=1, metavar="N", help="How much input the copy gets, at most.")
]
TapeOption = Annotated[
    list[Path] | None,
    typer.Option("--tape", metavar="FILE", help="Events of tapes, instead of a live shard's."),
]
KeepOption = Annotated[
    bool, typer.Option("--keep", help="Leave the copy's folder, with its logs and snapshots.")
]
Drill = Callable[..., None]

_MEANINGS = {
    "kill-switch": "Halt and arm a shadow copy of the live system, and check every answer.",
    "rollback": "Go back to the champion before on a shadow copy, and forward again.",
    "restore": "Kill a shadow copy's worker, take away or damage its newest snapshot, and recover.",
    "takeover": "Kill the leader of a shadow copy, and see its standby take over.",
}
_COPY = (
    "The live system is only read: its newest snapshot that leaves enough input, and the input"
    " after it. The copy has a server, keys and workers of its own in a temporary folder, alerts"
    " nobody, and is gone afterwards. The exit status is 1 when a check failed."
)


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Try the safety systems on a shadow copy of a live system."
    )
    for name in DRILLS:
        group.command(name)(_subcommand(name))
    app.add_typer(group, name="drill")


def _subcommand(name: str) -> Drill:
    def run(
        events: EventsOption = 5_000,
        tape: TapeOption = None,
        keep: KeepOption = False,
        config: ConfigOption = None,
        address: AddressOption = None,
        as_json: JsonOption = False,
    ) -> None:
        _run(name, events, tape, keep, config, address, as_json)

    run.__doc__ = f"{_MEANINGS[name]}\n\n{_COPY}"
    return run


def _run(
    name: str,
    events: int,
    tape: list[Path] | None,
    keep: bool,
    config: Path | None,
    address: str | None,
    as_json: bool,
) -> None:
    chosen = settings(config, address)
    try:
        with _ended_in_order():
            source = read_tape(tape, events) if tape else read_live(chosen, events)
            note(f"{len(source.entries):,} events of {source.name}, on {source.began_with}")
            with busy("compiling, at the first start only"):
                warm_up()
            with shadow_copy(chosen, source, keep, note) as copy:
                report = DRILLS[name](copy)
    except DrillError as error:
        note(f"closeloop: {error}")
        raise typer.Exit(1) from None
    report.notes[:0] = source.notes
    if as_json:
        about = {
            "drill": name,
            "copy_of": source.name,
            "began_with": source.began_with,
            "events": len(source.entries),
        }
        print_json(about | report.figures())
    else:
        _show(name, report)
    if not report.held:
        raise typer.Exit(1)


def _show(name: str, report: Report) -> None:
    words = {True: "yes", False: "NO", None: ""}
    rows: list[list[object]] = [
        [check.name, _shown(check.expected), _shown(check.seen), words[check.ok]]
        for check in report.checks
    ]  # fmt: skip
    print_table(f"drill {name}", ["check", "expected", "seen", "ok"], rows)
    for line in report.notes:
        note(line)


def _shown(value: str | int | float | None) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Asked to end, it raises, so that what the drill has started is ended first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (SIGINT, SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
