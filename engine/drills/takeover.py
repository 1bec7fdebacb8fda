"""Takeover: the leader is killed at work, the standby goes on, and nothing is lost or doubled."""

from time import monotonic

from engine.drills.processes import Worker
from engine.drills.reference import Reference
from engine.drills.report import Report
from engine.drills.shadow_copy import ShadowCopy
from streams import order

SPARE_S = 3.0
"""Seconds that a standby may take beyond twice the lease."""


def drill(copy: ShadowCopy) -> Report:
    """Kill the leader in the middle of the input."""
    report, half = Report(), copy.events // 2
    leader = copy.start()
    copy.progress(f"deciding the first half of {copy.events:,} events")
    copy.publish_and_wait(half, leader)
    epoch = copy.transport.checkpoint().epoch
    copy.progress("starting a standby")
    standby = copy.start("--standby")
    copy.wait(lambda: standby.told("recovered") is not None, "the standby follows", standby)

    copy.progress("killing the leader at work")
    one = _OneMore(copy)
    before = copy.transport.checkpoint().position
    copy.wait(
        lambda: copy.transport.checkpoint().position != before, "the leader goes on", leader, one
    )
    killed = leader.kill()
    left = copy.transport.checkpoint().position
    copy.publish(copy.published + 1)
    copy.wait(
        lambda: order(copy.transport.checkpoint().position) > order(left),
        "the standby commits",
        standby,
        one,
    )
    seconds = monotonic() - killed
    copy.progress("the standby leads; going on")
    copy.publish_and_wait(copy.events, standby)
    standby.stop()

    lease = copy.config.worker.lease_ms / 1_000.0
    limit = 2.0 * lease + SPARE_S
    report.holds(
        "seconds until the standby's first commit",
        f"at most {limit:g}, at a lease of {lease:g}",
        round(seconds, 2),
        seconds <= limit,
    )
    report.equal("epoch of the lease", epoch + 1, copy.transport.checkpoint().epoch)
    _check_whole(copy, standby, report)
    return report


class _OneMore:
    """Puts in one more event each time it is called, while there are any."""

    def __init__(self, copy: ShadowCopy) -> None:
        self._copy = copy

    def __call__(self) -> None:
        if self._copy.published < self._copy.events:
            self._copy.publish(self._copy.published + 1)


def _check_whole(copy: ShadowCopy, standby: Worker, report: Report) -> None:
    """Compare all that is published with a run that was never interrupted."""
    never = Reference(copy)
    never.catch_up()
    decisions = list(copy.decisions())
    outcomes = [entry for entry, _ in copy.read(copy.keys.outcomes)]
    for name, asked, seen in (
        ("decisions", list(never.decisions), decisions),
        ("outcomes", never.outcomes, outcomes),
    ):
        missing = len(set(asked) - set(seen))
        doubled = len(seen) - len(set(seen) & set(asked))
        report.holds(
            f"{name} lost, doubled",
            f"0, 0 of {len(asked):,}",
            f"{missing}, {doubled} of {len(seen):,}",
            asked == seen,
        )
    manifest = copy.snapshots()[0].manifest
    at_end = manifest.position == copy.transport.checkpoint().position
    digest = manifest.state_digest if at_end else "no snapshot there"
    report.equal("state, against a run never interrupted", never.digest[:12], digest[:12])
    digest = copy.transport.checkpoint().decisions_digest
    report.equal("decisions' digest likewise", never.core.decisions_digest[:12], digest[:12])
