"""The worker: owns a shard, reads its events in order, applies the core, commits what follows.

The life of a worker:
  acquire   the lease, waiting while another worker holds it
  recover   newest usable snapshot, then re-apply without publishing up to the checkpoint
            (a standby does this all the time, and writes the snapshots)
  go on     read a batch, apply it, commit it; now and then take a snapshot
  stop      when told, when idle (if asked), or when the lease is lost; a last snapshot on the way

The commit is the only effect that counts. What happens before it is done again after a crash;
after it nothing happens twice. A commit whose answer was lost is sent again: the server knows it.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import perf_counter, time
from typing import TypeVar

import structlog

from engine.api.mailbox import Mailbox
from engine.config import WorkerConfig
from engine.core import Core
from engine.heap import BATCHES, quiet_heap, tidy
from engine.metrics import Metrics
from engine.recovery import RecoveryError, read_raw, reapply, recover
from engine.snapshotting import Snapshotter
from engine.watch import Watch
from streams import (
    START,
    Alert,
    Commit,
    ConnectionLost,
    Decision,
    Diverged,
    InputGap,
    Keys,
    Lease,
    LeaseHeld,
    ModelChange,
    Outcome,
    Output,
    RawEntry,
    RedisTransport,
    StreamError,
    WritesRefused,
    encode,
    order,
)

IDLE_MS = 1_000
"""With `until_idle`, this long without a new entry ends the run."""
RETRY_SECONDS = 0.2
ATTEMPTS = 3
"""Recoveries in a row, without a commit between, after which a diverged server is given up; and how
often a worker that was told to stop tries what it has left to do."""
FOLLOW_SECONDS = 0.05
"""How often a standby looks at the checkpoint and the lease."""

T = TypeVar("T")


class Worker:
    """Serves one shard.

    Parameters
    ----------
    transport, keys
        The shard's streams.
    snapshotter
        Takes its snapshots, and knows where they are.
    new_core
        Makes an empty core.
    config
        Batch size and lease.
    owner
        This worker's name in the lease, unique among all workers.
    metrics
        What it measures about itself.
    stop
        Set from outside (a signal handler) to end the run in good order.
    mailbox
        Questions to the core, answered between two batches.
    watch
        What its clock knows, and what people look at.
    start_from
        A snapshot to begin with on a stream of which nothing is committed.
    """

    def __init__(
        self,
        transport: RedisTransport,
        keys: Keys,
        snapshotter: Snapshotter,
        new_core: Callable[[], Core],
        config: WorkerConfig,
        owner: str,
        metrics: Metrics,
        stop: Event,
        mailbox: Mailbox,
        watch: Watch,
        start_from: Path | None = None,
    ) -> None:
        self._transport = transport
        self._keys = keys
        self._snapshotter = snapshotter
        self._new_core = new_core
        self._config = config
        self._owner = owner
        self._metrics = metrics
        self._stop = stop
        self._mailbox = mailbox
        self._watch = watch
        self._start_from = start_from
        self._log = structlog.get_logger().bind(owner=owner)
        self._lease: Lease | None = None
        self._lineage = ""
        # Up to where the server is known to have held everything, and recoveries since a commit.
        self._known = START
        self._attempts = 0
        self.core = new_core()
        self.position = START
        self.ready = False
        """Whether it holds the lease and has recovered."""

    def run(self, until_idle: bool = False, standby: bool = False) -> None:
        """Serve until told to stop, or until there is nothing left to read.

        With `standby` it first follows the worker that holds the lease, ready to take over.

        Raises
        ------
        LeaseLost
            Another worker owns the shard now; nothing of ours was published since.
        RecoveryError
            The state up to the checkpoint can't be rebuilt.
        ConnectionLost
            The server is away, and we were told to stop.
        Diverged
            The server's keys contradict each other; recovering again and again leads nowhere.
        """
        while (lease := self._follow() if standby else self._acquire()) is not None:
            self._lease = lease
            try:
                self._serve_under(lease, until_idle)
                break
            except Diverged as diverged:
                # The server has forgotten something: it was restarted from an older file, failed
                # over, or flushed. What it still has is where we go on.
                self._log.critical("stream_lost_its_tail", detail=str(diverged))
                self._lineage = ""
                self._known = max(self._known, self.position, key=order)
                self._attempts += 1
                if self._attempts == ATTEMPTS:
                    raise
            finally:
                self.ready = False
                self._lease = None
                with suppress(StreamError):
                    self._transport.release(lease)
        self._log.info("stopped", position=self.position, **self.core.counts)

    def _serve_under(self, lease: Lease, until_idle: bool) -> None:
        """Recover, then read and serve until there is a reason to stop."""
        if not self._patiently(self._catch_up):
            self._recover(lease)
        self._report_loss(lease)
        self.ready = True
        with quiet_heap():
            self._read_and_serve(lease, until_idle)
        self._snapshot(lease)

    def _read_and_serve(self, lease: Lease, until_idle: bool) -> None:
        wait_ms = min(IDLE_MS, self._config.lease_ms // 3)
        idle_ms = batches = 0
        while not self._stop.is_set():
            raw = self._patiently(
                lambda: self._transport.read(self.position, self._config.batch, wait_ms)
            )
            if raw:
                idle_ms = 0
                self._serve(lease, raw)
                batches += 1
                if batches % BATCHES == 0:
                    tidy()
            else:
                tidy()
                idle_ms += wait_ms
                if until_idle and idle_ms >= IDLE_MS:
                    break
                self._metrics.lag.set(0)
                # A server that lost its tail is to be found out now, not at the next event.
                self._despite_gaps(lease, lambda: self._transport.renew(lease, self.position))
            self._snapshot_if_due(leading=True)
            self._patiently(lambda: self._snapshotter.settle(lease))
            self._mailbox.serve(self.core)
            self._watch.look(self.core, self.position, self._snapshotter.saved)

    def _follow(self) -> Lease | None:
        """Hold the state at the checkpoint until the lease can be had; None when told to stop."""
        self._log.info("standing_by")
        while not self._stop.is_set():
            self._patiently(
                lambda: self._transport.announce_standby(self._owner, self._config.lease_ms)
            )
            if not self._patiently(self._catch_up):
                self._recover(None)
            self._snapshot_if_due(leading=False)
            self._snapshotter.settle(None)
            self._mailbox.serve(self.core)
            with suppress(LeaseHeld):
                lease = self._patiently(
                    lambda: self._transport.acquire(self._owner, self._config.lease_ms)
                )
                self._metrics.epoch.set(lease.epoch)
                self._log.info("took_over", epoch=lease.epoch)
                return lease
            self._stop.wait(FOLLOW_SECONDS)
        return None

    def _catch_up(self) -> bool:
        """Re-apply what was committed since; False when that doesn't go on from our state."""
        checkpoint = self._transport.checkpoint()
        lineage = self._lineage
        if checkpoint.lineage != lineage or order(checkpoint.position) < order(self.position):
            return False
        # Interrupted half-way, the core is neither here nor there: it won't be gone on from.
        self._lineage = ""
        try:
            reapply(
                self._transport,
                self.core,
                self.position,
                checkpoint.position,
                self._config.batch,
                self.keep_lease,
            )
        except RecoveryError as error:
            self._log.warning("fell_behind", detail=str(error))
            return False
        self.position, self._lineage = checkpoint.position, lineage
        if checkpoint.decisions_digest in ("", self.core.decisions_digest):
            return True
        self._log.critical("state_differs", position=self.position)
        return False

    def keep_lease(self) -> None:
        """Renew the lease while something takes long, if the server can be reached.

        An event that is half applied mustn't fail because it can't: the commit will know.
        """
        if self._lease is not None:
            with suppress(ConnectionLost, WritesRefused):
                self._transport.renew(self._lease)

    def _acquire(self) -> Lease | None:
        """Wait for the lease; None when told to stop first."""
        waiting = False
        while not self._stop.is_set():
            try:
                lease = self._patiently(
                    lambda: self._transport.acquire(self._owner, self._config.lease_ms)
                )
            except LeaseHeld as held:
                if not waiting:
                    self._log.info("waiting_for_the_lease", detail=str(held))
                waiting = True
                self._stop.wait(RETRY_SECONDS)
                continue
            self._metrics.epoch.set(lease.epoch)
            self._log.info("lease_acquired", epoch=lease.epoch)
            return lease
        return None

    def _recover(self, lease: Lease | None) -> None:
        """Rebuild the core at the server's checkpoint."""
        self.ready = False
        self._snapshotter.forget()
        started = perf_counter()
        recovered = self._patiently(
            lambda: recover(
                self._transport,
                self._snapshotter.store,
                self._new_core,
                self._config.batch,
                self.keep_lease,
                self._start_from,
            )
        )
        for passed in recovered.passed_over:
            self._log.warning("snapshot_passed_over", detail=str(passed.error))
        if not recovered.as_published:
            self._log.warning(
                "rebuilt_otherwise",
                detail="without a usable snapshot the state was rebuilt from the stream, under this"
                " configuration and these libraries; decisions already published were others",
            )
        self.core, self.position = recovered.core, recovered.position
        self._lineage = recovered.lineage
        self._snapshotter.go_on_from(self.core.counts["events"])
        self._metrics.recoveries.inc()
        self._log.info(
            "recovered",
            position=recovered.position,
            snapshot=recovered.snapshot,
            reapplied=recovered.reapplied,
            seconds=round(perf_counter() - started, 3),
        )
        if lease is not None and recovered.position == START and recovered.snapshot is not None:
            # What we start from must be found again after a crash, whoever starts us then.
            self._snapshot(lease)

    def _report_loss(self, lease: Lease) -> None:
        """Say what the server has lost, as far as it is known, and put snapshots of it aside.

        The lease held, nobody but us moves the checkpoint: whatever lies ahead of it is lost.
        """
        ahead = self._snapshotter.ahead_of(self._lineage, self.position)
        positions = [info.manifest.position or START for info in ahead]
        known = max([self._known, *positions], key=order)
        if order(known) > order(self.position):
            survived = self._patiently(lambda: self._transport.last_until(known))
            message = (
                f"the server went back from {known} to {self.position}; no input up to there is"
                " missing, and its decisions are made again"
                if survived == known
                else f"the server lost its input after {survived} up to {known}, and perhaps what"
                f" came then; publish again what was published after {survived}"
            )
            alert = Alert(
                ts=datetime.now(UTC),
                severity="critical",
                code="stream_lost_its_tail",
                subject=survived,
                message=message,
            )
            self._patiently(lambda: self._transport.report_loss(lease, encode(alert)))
        self._known = START
        self._snapshotter.set_aside(ahead)

    def _despite_gaps(self, lease: Lease, effect: Callable[[], None]) -> None:
        """Do it; when input was deleted before it was read, say so first, and go on."""
        try:
            self._patiently(effect)
        except InputGap as gap:
            self._log.critical("input_gap", detail=str(gap))
            alert = Alert(
                ts=datetime.now(UTC),
                severity="critical",
                code="input_gap",
                subject=self.position,
                message=str(gap),
            )
            self._patiently(lambda: self._transport.report_gap(lease, encode(alert)))
            self._patiently(effect)
            # From no snapshot before the gap could the state be rebuilt.
            self._snapshotter.hasten()

    def _serve(self, lease: Lease, raw: list[RawEntry]) -> None:
        """Apply a batch, and commit what follows from it."""
        started = renewed = perf_counter()
        decided = self.core.counts["decisions"]
        outputs: list[tuple[str, str, bytes]] = []
        for entry in map(read_raw, raw):
            outputs.extend(self._address(output, entry.id) for output in self.core.apply(entry))
            if perf_counter() - renewed > lease.ttl_ms / 3_000:
                self.keep_lease()
                renewed = perf_counter()
        commit = Commit(self.position, raw[-1].id, len(raw), outputs, self.core.decisions_digest)
        applied = perf_counter()
        self._despite_gaps(lease, lambda: self._transport.commit(lease, commit))
        self.position = commit.position
        self._attempts = 0
        done = perf_counter()
        self._measure(started, applied, done)
        if len(raw) < self._config.batch:
            self._watch.decided(self.core.counts["decisions"] - decided, done - started)

    def _address(self, output: Output, entry_id: str) -> tuple[str, str, bytes]:
        """Stream, ID and bytes of an output. Decisions and outcomes have their cause's ID."""
        keys = self._keys
        if isinstance(output, Decision):
            return keys.decisions, entry_id, encode(output)
        if isinstance(output, Outcome):
            return keys.outcomes, entry_id, encode(output)
        if isinstance(output, Alert):
            return keys.alerts, "*", encode(output)
        return (keys.models if isinstance(output, ModelChange) else keys.dead), "*", encode(output)

    def _snapshot_if_due(self, leading: bool) -> None:
        if self._patiently(lambda: self._snapshotter.due(self.core, self._lineage, leading)):
            self._snapshotter.begin(self.core, self._lineage, self.position)

    def _snapshot(self, lease: Lease) -> None:
        """Take a snapshot here, and see it through."""
        self._patiently(lambda: self._snapshotter.settle(lease, self.keep_lease))
        self._snapshotter.begin(self.core, self._lineage, self.position)
        self._patiently(lambda: self._snapshotter.settle(lease, self.keep_lease))

    def _measure(self, started: float, applied: float, done: float) -> None:
        metrics = self._metrics
        metrics.batch_seconds.observe(done - started)
        metrics.commit_seconds.observe(done - applied)
        metrics.last_commit.set(time())

    def _patiently(self, operation: Callable[[], T]) -> T:
        """Do it, again and again while the server can't be reached or takes no writes."""
        ready, failures = self.ready, 0
        while True:
            try:
                result = operation()
            except (ConnectionLost, WritesRefused) as error:
                self.ready = False
                failures += 1
                self._metrics.reconnects.inc()
                lost = isinstance(error, ConnectionLost)
                self._log.warning("server_lost" if lost else "writes_refused", detail=str(error))
                if self._stop.wait(RETRY_SECONDS) and failures >= ATTEMPTS:
                    raise
                self._transport.reconnect()
            else:
                self.ready = ready
                return result
