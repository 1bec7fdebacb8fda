"""`closeloop verify` and `explain`: that decisions are what the inputs give, and how they came."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from engine.alignment import BySignal, Published
from engine.bootstrap import keys_of, new_core, process_fitter, store_of
from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    busy,
    note,
    print_json,
    print_table,
    progress,
    settings,
)
from engine.config import Config
from engine.core import Core
from engine.explain import ExplainError, Explanation, ForestView
from engine.explain import explain as explain_entry
from engine.fitting import InlineFitter
from engine.stretch import Stretches
from engine.verify import Verdict, Verification
from learners import warm_up
from snapshots import SnapshotError, SnapshotInfo
from streams import Signal, Tape, connect, order

TOP = 12
"""Rows of a table of contributions; --json has all."""

_TapeOption = Annotated[
    list[Path] | None,
    typer.Option("--tape", metavar="EVENTS", help="Tapes of the events, instead of the streams."),
]
_SnapshotOption = Annotated[
    str | None,
    typer.Option(
        "--snapshot", metavar="ID", help="Begin with this one: its ID, enough of it, or its file."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command("verify")(verify)
    app.command("explain")(explain)


def verify(
    first: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="The stream ID to begin with.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="ID", help="The stream ID to end with.")
    ] = None,
    snapshot: _SnapshotOption = None,
    tape: _TapeOption = None,
    decisions: Annotated[
        Path | None, typer.Option(metavar="TAPE", help="The decisions, as `record` wrote them.")
    ] = None,
    outcomes: Annotated[
        Path | None, typer.Option(metavar="TAPE", help="The outcomes likewise, if they are to be.")
    ] = None,
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the recorded events again and compare every decision published, byte for byte.

    From the nearest snapshot, or from the beginning; without --from from as far back as can be
    reached, without --to up to the last commit. Outcomes are compared as well, and the state at
    every snapshot in between. The first difference is named with its cause: the input, its order, a
    library's version, the configuration, or that what was published was altered. What can't be
    checked, because it was trimmed, is said. The exit status is 1 when anything differs.

    Reads only, so a worker may go on meanwhile.
    """
    chosen = settings(config, address)
    with busy("compiling, at the first start only"):
        warm_up()
    if tape:
        if decisions is None:
            raise typer.BadParameter("give the tape of decisions too", None, None, "--decisions")
        if first or last:
            raise typer.BadParameter("a tape has no stream IDs", None, None, "--from / --to")
        verdict = _verify_tapes(chosen, tape, decisions, outcomes, snapshot)
        found, notes = verdict.figures(), []
        if verdict.decisions.unchecked or verdict.outcomes.unchecked:
            notes.append("what only one of the tapes reaches can't be checked")
    else:
        if decisions or outcomes:
            raise typer.BadParameter("only with --tape", None, None, "--decisions / --outcomes")
        lower, upper = _stream_id(first, "--from", "0"), _stream_id(last, "--to", str(2**64 - 1))
        path = _snapshot(chosen, snapshot) if snapshot else None
        with _stretches(chosen) as stretches, progress() as bar:
            task = bar.add_task("verifying", total=1.0)
            verified = stretches.verify(
                lower, upper, path, lambda done: bar.update(task, completed=done)
            )
        verdict, notes = verified.verdict, verified.notes
        found = {
            "from": verified.first,
            "to": verified.last,
            "snapshot": verified.snapshot,
            **verdict.figures(),
        }
    if as_json:
        print_json({**found, "notes": notes})
    else:
        _show_verdict(verdict)
    for line in notes:
        note(line)
    if not verdict.holds:
        if verdict.first is None:
            note("nothing could be checked")
        raise typer.Exit(1)


def explain(
    signal_id: Annotated[str, typer.Argument(help="The signal, as its bot named it.")],
    tape: _TapeOption = None,
    decisions: Annotated[
        Path | None, typer.Option(metavar="TAPE", help="With --tape: the decisions published.")
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(metavar="ID", help="With --tape: the snapshot that the tape goes on from."),
    ] = None,
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the exact state before a signal and show how its decision came about.

    The frozen row, each expert's probability and weight, what moved them (LightGBM's exact TreeSHAP
    values, the linear expert's terms, the forest's paths), and the policy's reasons with its
    thresholds. The decision is made again on the way and compared with the one published; the exit
    status is 1 when they differ.
    """
    chosen = settings(config, address)
    if not tape and (decisions or snapshot):
        raise typer.BadParameter("only with --tape", None, None, "--decisions / --snapshot")
    with busy("compiling, at the first start only"):
        warm_up()
    try:
        if tape:
            explanation = _explain_tape(chosen, signal_id, tape, decisions, snapshot)
        else:
            with _stretches(chosen) as stretches, busy("rebuilding the state before the signal"):
                explanation = stretches.explain(signal_id)
    except ExplainError as error:
        raise typer.BadParameter(str(error), None, None, "SIGNAL_ID") from None
    if as_json:
        print_json(explanation.figures())
    else:
        _show(explanation)
    if explanation.as_published is False:
        note("the decision published is another one: see `closeloop verify`")
        raise typer.Exit(1)


@contextmanager
def _stretches(config: Config) -> Iterator[Stretches]:
    with connect(config.stream.address) as connection, process_fitter() as fitter:
        yield Stretches(
            connection, keys_of(config), store_of(config), lambda: new_core(config, fitter)
        )


def _verify_tapes(
    config: Config, events: list[Path], decisions: Path, outcomes: Path | None, snapshot: str | None
) -> Verdict:
    tape, published = Tape(*events), BySignal(_published(decisions))
    with process_fitter() as fitter, progress() as bar:
        core = _begun(config, new_core(config, fitter), snapshot)
        task = bar.add_task("verifying", total=1.0)
        closed = BySignal(_published(outcomes)) if outcomes else None
        verification = Verification(core, published, closed)
        for line in tape:
            verification.apply(line.entry())
            bar.update(task, completed=tape.progress)
        return verification.finish()


def _explain_tape(
    config: Config,
    signal_id: str,
    events: list[Path],
    decisions: Path | None,
    snapshot: str | None,
) -> Explanation:
    found = _published(decisions) if decisions else iter(())
    published = next((one.data for one in found if one.signal_id == signal_id), None)
    if decisions and published is None:
        raise ExplainError(f"no decision about signal {signal_id!r} in {decisions}")
    core = _begun(config, new_core(config, InlineFitter()), snapshot)
    tape = Tape(*events)
    with progress() as bar:
        task = bar.add_task("rebuilding the state", total=1.0)
        for line in tape:
            entry = line.entry()
            if isinstance(entry.event, Signal) and entry.event.signal_id == signal_id:
                return explain_entry(core, entry, published)
            core.apply(entry)
            bar.update(task, completed=tape.progress)
    raise ExplainError(f"no signal {signal_id!r} in {', '.join(map(str, events))}")


def _begun(config: Config, core: Core, snapshot: str | None) -> Core:
    if snapshot is not None:
        path = _snapshot(config, snapshot)
        core.restore(store_of(config).load(path, config_digest=config.core.digest).tree)
    return core


def _published(path: Path) -> Iterator[Published]:
    tape = Tape(path)  # opened now, so that a missing one is told at once
    return (Published(line.id, line.data) for line in tape)


def _snapshot(config: Config, wanted: str) -> Path:
    """The snapshot's file: named as it is, or by enough of its ID."""
    if Path(wanted).is_file():
        return Path(wanted)
    store = store_of(config)
    found = [
        info.path
        for info in store.list()
        if isinstance(info, SnapshotInfo) and wanted in info.snapshot_id
    ]
    if len(found) != 1:
        many = f"{len(found)} snapshots have" if found else "no file and no snapshot has"
        raise SnapshotError(
            f"{many} {wanted!r} in its ID in {store.directory}; see `closeloop snapshots list`"
        )
    return found[0]


def _stream_id(given: str | None, option: str, sequence: str) -> str | None:
    """A stream ID, with `sequence` where it has none."""
    if given is None:
        return None
    whole = given if "-" in given else f"{given}-{sequence}"
    try:
        order(whole)
    except ValueError:
        message = f"{given!r} is no stream ID like 1746105000000-0"
        raise typer.BadParameter(message, None, None, option) from None
    return whole


def _show_verdict(verdict: Verdict) -> None:
    tallies = {
        "decisions": verdict.decisions,
        "outcomes": verdict.outcomes,
        "states": verdict.states,
    }
    rows: list[list[object]] = [
        [name, tally.equal, tally.differing, tally.unchecked] for name, tally in tallies.items()
    ]
    title = f"{verdict.entries:,} entries run again"
    print_table(title, ["", "equal", "differing", "not checked"], rows)
    first = verdict.first
    if first is None:
        return
    about = f" of signal {first.signal_id}" if first.signal_id else ""
    typer.echo(f"\nthe first that differs: the {first.kind}{about} at {first.entry_id}")
    typer.echo(f"cause: {first.cause}. {first.why}")
    for name, data in (("published", first.published), ("run again", first.made)):
        if data is not None:
            typer.echo(f"{name}: {data}")


def _show(explanation: Explanation) -> None:
    decision, policy = explanation.decision, explanation.policy
    said = {None: "not known", True: "yes, byte for byte", False: "NO"}
    rows: list[list[object]] = [
        ["entry", explanation.entry_id],
        ["action", decision.action],
        ["size_multiplier", decision.size_multiplier],
        ["probability", decision.probability],
        ["expected_return_pct", decision.expected_return_pct],
        ["risk", decision.risk],
        ["reasons", ", ".join(decision.reasons)],
        ["regime", decision.regime],
        ["propensity", decision.propensity],
        ["rule", policy.rule],
        *(
            [["take at or above", policy.take], ["skip below", policy.skip]]
            if policy.rule == "thresholds"
            else [
                ["lower side, to take above", policy.take_margin_pct],
                ["expected return, to reduce above", policy.reduce_margin_pct],
                ["and that by, in usual sizes", policy.least_edge],
            ]
        ),
        ["closes learned", explanation.closes],
        ["warm-up until closes", policy.warmup_closes],
        ["as published", said[explanation.as_published]],
    ]
    print_table(f"decision of {explanation.signal_id}", ["", "value"], rows)
    rows = [[one.name, one.probability, one.weight, one.share] for one in explanation.experts]
    rows += [[one.name, one.probability, one.weight, one.share] for one in explanation.calibration]
    rows.append(["published", explanation.probability, None, None])
    print_table("experts", ["", "probability", "weight", "share"], rows)
    for name, terms in explanation.terms.items():
        title = f"{name}: what moved its log odds ({terms.method})"
        top = list(terms.terms.items())[:TOP]
        rest = sum(list(terms.terms.values())[TOP:])
        rows = [["at the start", None, terms.start]]
        rows += [[column, explanation.row.get(column), term] for column, term in top]
        rows.append(["all others", None, rest])
        print_table(title, ["", "value", "change"], rows)
    for name, forest in explanation.forests.items():
        _show_forest(name, forest, explanation)
    print_table("row", ["", "value"], [[name, x] for name, x in explanation.row.items()])


def _show_forest(name: str, forest: ForestView, explanation: Explanation) -> None:
    rows: list[list[object]] = [
        [seen.feature, explanation.row.get(seen.feature), seen.times, seen.mean_change]
        for seen in forest.features[:TOP]
    ]
    rows.append(["the leaves' naive Bayes", None, None, forest.leaf_change])
    title = f"{name}: {len(forest.trees)} trees' paths, mean vote {forest.mean:.4f}"
    print_table(title, ["", "value", "times", "mean change"], rows)
