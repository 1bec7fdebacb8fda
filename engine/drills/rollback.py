"""Rollback: the champion before decides with the next event, and the newer one again after that."""

from time import monotonic

from engine.drills.processes import DrillError, Worker
from engine.drills.reference import Reference
from engine.drills.report import Report
from engine.drills.shadow_copy import ShadowCopy
from engine.safety.registry import RegistryError
from streams import ModelChange, Signal, order, read_entry
from streams.events import decode_output

LEFT = 10
"""Signals that must come after the rollback."""


def drill(copy: ShadowCopy) -> Report:
    """Roll back in the middle of the input, or as soon after as there are two champions.

    Raises `DrillError` when there never are.
    """
    copy.progress("looking for two champions")
    where = _where(copy)
    report = Report()
    worker = copy.start()
    copy.progress(f"deciding the first {where:,} of {copy.events:,} events")
    copy.publish_and_wait(where, worker)
    copy.publish_to_signal(worker)
    before = Reference(copy)
    before.catch_up()
    registry = before.core.model.champions.registry
    older, newer = registry.previous.id, registry.champion
    assert newer is not None
    report.measured("models kept", ", ".join(registry.ids))

    back = _change(copy, worker, report, older, "rollback")
    copy.progress(f"back to {older}")
    forced = not registry[newer].accepted
    copy.publish_to_signal(worker)
    again = _change(copy, worker, report, newer, "install", model=newer, force=forced)
    copy.progress(f"on to {newer}")
    copy.publish_and_wait(copy.events, worker)
    worker.stop()

    told = [decode_output(ModelChange, data) for _, data in copy.read(copy.keys.models)]
    said = [(one.change, one.model) for one in told if one.by == "drill"]
    asked = [("rolled_back", older), ("installed", newer)]
    report.holds(
        "the models stream tells of both", "rolled_back, installed",
        ", ".join(change for change, _ in said), said == asked,
    )  # fmt: skip
    verified = copy.verify()
    covered = order(verified.first) <= order(back) < order(again) <= order(verified.last)
    tally = verified.verdict.decisions
    report.holds(
        "everything replayed", "the same bytes",
        f"{tally.equal:,} decisions equal, {tally.differing} not",
        verified.verdict.holds and covered,
    )  # fmt: skip
    return report


def _where(copy: ShadowCopy) -> int:
    """After how much of the input to roll back: half of it, or when there are two champions."""
    core, signals = copy.core(), 0
    found: int | None = None
    for number, data in enumerate(copy.source.entries):
        entry = read_entry(f"0-{number + 1}", data)
        core.apply(entry)
        signals += found is not None and isinstance(entry.event, Signal)
        if found is None and 2 * (number + 1) >= copy.events and core.model.champion is not None:
            try:
                previous = core.model.champions.registry.previous
            except RegistryError:
                continue
            found = number + 1 if previous.id != core.model.champion else None
    registry = core.model.champions.registry
    if found is None:
        kept = ", ".join(registry.ids) or "none"
        raise DrillError(
            f"there is no champion before: after {copy.events:,} events the champion is"
            f" {core.model.champion or 'none'}, kept are {kept}; give more events with --events,"
            " or a tape in which refits are installed with --tape"
        )
    if signals < LEFT:
        raise DrillError(
            f"a second champion comes too late, after {found:,} of {copy.events:,} events; give"
            " more events with --events"
        )
    return found


def _change(
    copy: ShadowCopy,
    worker: Worker,
    report: Report,
    champion: str,
    command: str,
    **args: str | bool,
) -> str:
    """Give a command that makes `champion` one, and see when it decides; its entry's ID."""
    started = monotonic()
    entry = copy.tell(command, **args)
    copy.next_decision(worker)
    milliseconds = 1_000.0 * (monotonic() - started)
    copy.require_obeyed(entry)
    decided = [d.model.champion for d in copy.decisions(entry).values()]
    took = decided.index(champion) + 1 if champion in decided else None
    report.equal(f"{command}: first decision by {champion}", 1, took)
    report.measured(f"{command}: ms until that decision", round(milliseconds, 1))
    return entry
