"""Restore: killed, without its newest snapshot or with a damaged one, and the same state again."""

from pathlib import Path
from time import monotonic

from engine.drills.processes import Worker
from engine.drills.reference import Reference
from engine.drills.report import Report
from engine.drills.shadow_copy import ShadowCopy
from snapshots import SnapshotInfo
from streams import START


def drill(copy: ShadowCopy) -> Report:
    """Kill the worker and take its newest snapshot away; then stop it and damage the newest."""
    report, quarter = Report(), copy.events // 4
    never = Reference(copy)
    worker = copy.start()
    for part in (1, 2):
        copy.progress(f"deciding quarter {part} of {copy.events:,} events")
        _with_snapshot(copy, worker, part * quarter)
    copy.progress("killing the worker at work")
    before = copy.transport.checkpoint().position
    copy.publish(3 * quarter)
    copy.wait(lambda: copy.transport.checkpoint().position != before, "it goes on", worker)
    worker.kill()

    newest, *others = copy.snapshots()
    newest.path.unlink()
    worker = _restart(copy, report, "newest snapshot gone", others)
    copy.publish_and_wait(3 * quarter, worker)
    worker.stop()
    never.catch_up()
    _compare(copy, report, never, "state then, against a run never killed")

    damaged, *others = copy.snapshots()
    _damage(damaged.path)
    worker = _restart(copy, report, "newest snapshot damaged", others)
    passed = worker.told("snapshot_passed_over")
    named = passed is not None and damaged.path.name in str(passed["detail"])
    report.holds("the damaged one is passed over", "and named", "named" if named else "not", named)
    damaged.path.unlink()
    copy.publish_and_wait(copy.events, worker)
    worker.stop()
    never.catch_up()
    _compare(copy, report, never, "state then, against a run never killed")
    report.holds(
        "decisions, each once and in order", f"{len(never.decisions):,}",
        f"{len(copy.decisions()):,}", list(copy.decisions()) == list(never.decisions),
    )  # fmt: skip
    return report


def _with_snapshot(copy: ShadowCopy, worker: Worker, until: int) -> None:
    """Put input in, until all of it is committed and a new snapshot is there."""
    kept = len(copy.snapshots())
    copy.publish_and_wait(until, worker)
    copy.wait(lambda: len(copy.snapshots()) > kept, "a snapshot is taken", worker)


def _restart(copy: ShadowCopy, report: Report, how: str, usable: list[SnapshotInfo]) -> Worker:
    """Start a worker and see what it recovers from: the newest of those that are `usable`."""
    copy.progress(f"starting again: {how}")
    until = copy.transport.checkpoint().position
    started = monotonic()
    worker = copy.start()
    copy.wait(lambda: worker.told("recovered") is not None, "it has recovered", worker)
    seconds = monotonic() - started
    said = worker.told("recovered") or {}
    newest = usable[0] if usable else None
    after = START if newest is None else newest.manifest.position or START
    between = len(copy.read(copy.keys.events, f"({after}", until))
    report.equal(
        f"{how}: goes on from",
        "nothing" if newest is None else _short(newest),
        "nothing" if said["snapshot"] is None else _name(Path(said["snapshot"]).name),
    )
    report.equal(f"{how}: events re-applied", between, said["reapplied"])
    report.equal(f"{how}: recovered at", until, said["position"])
    report.measured(f"{how}: seconds to recover", round(said["seconds"], 2))
    report.measured(f"{how}: seconds in all, with start and lease", round(seconds, 2))
    return worker


def _compare(copy: ShadowCopy, report: Report, never: Reference, name: str) -> None:
    """Hold the worker's last snapshot to a core that was never interrupted."""
    manifest = copy.snapshots()[0].manifest
    at_end = manifest.position == copy.transport.checkpoint().position
    digest = manifest.state_digest if at_end else "no snapshot there"
    report.equal(name, never.digest[:12], digest[:12])


def _damage(path: Path) -> None:
    """Flip a bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _short(info: SnapshotInfo) -> str:
    return _name(info.path.name)


def _name(file: str) -> str:
    """What tells a snapshot from others, for people: how many events it holds."""
    return f"that of {int(file.split('-')[1]):,} events"
