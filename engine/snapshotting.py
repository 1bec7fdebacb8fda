"""Taking snapshots while decisions flow on.

Between two batches the state is only frozen (arrays copied); encoding, digests, writing and syncing
happen on a thread of their own. The notice and the trimming of the input follow from the worker's
thread, once the file is safe.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter, time

import structlog

from engine.config import SnapshotConfig
from engine.core import Core
from engine.metrics import Metrics
from snapshots import Frozen, SnapshotError, SnapshotInfo, SnapshotStore, encode, freeze, verify
from streams import START, Lease, RedisTransport, SnapshotNotice, order
from streams import encode as encode_event

TAPE = "tape"
"""The lineage of states that come from a replay."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A state frozen at a position, with what its manifest says."""

    frozen: Frozen
    lineage: str
    position: str | None
    events: int
    decisions_digest: str
    config_digest: str
    metrics: dict[str, float | int | None]


def take(core: Core, lineage: str, position: str | None) -> _Taken:
    """Freeze `core`. Costs what copying its arrays costs."""
    weights = zip(core.model.mixture.names, core.model.mixture.weights, strict=True)
    return _Taken(
        freeze(core.state()),
        lineage,
        position,
        core.counts["events"],
        core.decisions_digest,
        core.config.digest,
        {**core.counts, **{f"weight.{name}": weight for name, weight in weights}},
    )


def to_bytes(taken: _Taken, key: bytes) -> bytes:
    """The snapshot file's bytes. May run in any thread."""
    return encode(
        taken.frozen,
        key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config_digest=taken.config_digest,
        lineage=taken.lineage,
        position=taken.position,
        events=taken.events,
        decisions_digest=taken.decisions_digest,
        metrics=dict(taken.metrics),
    )


class Snapshotter:
    """Takes a shard's snapshots.

    Parameters
    ----------
    store, key
        Where they go, and what signs them.
    transport
        Tells the world, and trims the input: when it is longer than it has to be, all that lies
        below the oldest snapshot of this stream goes, once there are two.
    config
        How often, and how much input stays in any case.
    """

    def __init__(
        self,
        store: SnapshotStore,
        key: bytes,
        transport: RedisTransport,
        config: SnapshotConfig,
        metrics: Metrics,
    ) -> None:
        self.store = store
        self._key = key
        self._transport = transport
        self._config = config
        self._metrics = metrics
        self._log = structlog.get_logger()
        self.saved = 0
        """Snapshots saved so far, by us or by a standby for us."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing: Future[SnapshotInfo] | None = None
        # The newest snapshot that the world hasn't been told of, and the events at the last one.
        self._untold: SnapshotInfo | None = None
        self._last = 0
        self._next = config.every

    def go_on_from(self, events: int) -> None:
        """Count from here: so many events are behind us, and there are snapshots of them."""
        self._last, self._next = events, events + self._config.every

    def due(self, core: Core, lineage: str, leading: bool) -> bool:
        """Whether it is time to take one.

        One that a standby has taken counts as ours. While there is a standby, the leader gives it
        the time to.
        """
        events, every = core.counts["events"], self._config.every
        if self._writing is not None or events < self._next:
            return False
        if leading and self._transport.has_standby():
            theirs = self._kept(lineage)
            if theirs and theirs[0].manifest.events > self._last:
                self._untold = theirs[0]
                self.saved += 1
                self.go_on_from(theirs[0].manifest.events)
                return False
            if events < self._last + 2 * every:
                self._next = events + every // 10
                return False
        return True

    def hasten(self) -> None:
        """Have the next one taken as soon as there is something new to be kept."""
        self._next = 0

    def begin(self, core: Core, lineage: str, position: str) -> None:
        """Freeze `core` now, and write it meanwhile."""
        started = perf_counter()
        taken = take(core, lineage, position)
        self.go_on_from(taken.events)
        self._writing = self._thread.submit(self._write, taken)
        self._metrics.snapshot_pause_seconds.observe(perf_counter() - started)

    def settle(self, lease: Lease | None, wait: Callable[[], None] | None = None) -> None:
        """See to what was written: with the lease, announce it and trim the input.

        With `wait`, which is called about twice a second, only return when it is written.
        """
        if self._writing is not None and (wait is not None or self._writing.done()):
            self._finish(self._writing, wait)
        if lease is None or self._untold is None:
            return
        manifest = self._untold.manifest
        notice = SnapshotNotice(
            snapshot_id=self._untold.snapshot_id,
            position=manifest.position,
            events=manifest.events,
            file_digest=self._untold.file_digest,
            state_digest=manifest.state_digest,
            decisions_digest=manifest.decisions_digest,
        )
        self._transport.notify(lease, encode_event(notice))
        self._untold = None
        kept = [info.manifest.position or START for info in self._kept(manifest.lineage)]
        # Below a single one nothing goes: were it damaged, there would be no other way back.
        if len(kept) > 1 and self._transport.length() > self._config.retain:
            oldest = min(kept, key=order)
            self._log.info("trimmed", entries=self._transport.trim(lease, oldest))

    def _finish(self, writing: Future[SnapshotInfo], wait: Callable[[], None] | None) -> None:
        while wait is not None and not writing.done():
            wait()
            with suppress(TimeoutError, SnapshotError):
                writing.result(timeout=0.4)
        self._writing = None
        try:
            self._untold = writing.result()
        except SnapshotError as error:
            # Decisions go on: the stream keeps what the snapshot would have held.
            self._log.error("snapshot_failed", detail=str(error))
            return
        self.saved += 1
        self._metrics.last_snapshot.set(time())
        self._log.info("snapshot", id=self._untold.snapshot_id, bytes=self._untold.size)

    def _write(self, taken: _Taken) -> SnapshotInfo:
        return self.store.save(to_bytes(taken, self._key))

    def _kept(self, lineage: str) -> list[SnapshotInfo]:
        """What the store has of a stream history, newest first; nothing while it can't be read."""
        try:
            found = self.store.list()
        except SnapshotError as error:
            self._log.error("snapshots_unreadable", detail=str(error))
            return []
        return [
            info
            for info in found
            if isinstance(info, SnapshotInfo) and info.manifest.lineage == lineage
        ]

    def forget(self) -> None:
        """Finish what is being written, and tell nobody: the history it is of may be lost."""
        if self._writing is not None:
            self._finish(self._writing, lambda: None)
        self._untold = None

    def ahead_of(self, lineage: str, position: str) -> list[SnapshotInfo]:
        """The proven snapshots of a stream history taken beyond `position`, newest first."""
        found = []
        for info in self._kept(lineage):
            if order(info.manifest.position or START) > order(position):
                with suppress(SnapshotError, OSError):
                    verify(info.path.read_bytes(), self._key)
                    found.append(info)
        return found

    def set_aside(self, infos: list[SnapshotInfo]) -> None:
        """Take snapshots of what the server has lost out of the store, and keep their files."""
        for info in infos:
            try:
                self.store.set_aside(info.path)
            except SnapshotError as error:
                self._log.error("snapshots_unreadable", detail=str(error))
            else:
                self._log.warning("snapshot_set_aside", id=info.snapshot_id)

    def close(self) -> None:
        """Wait for what is being written."""
        self._thread.shutdown()
