"""Taking snapshots while decisions flow on.

Between two batches the state is only frozen (arrays copied); encoding, digests, writing and syncing
happen on a thread of their own. The notice and the trimming of the input follow from the worker's
thread, once the file is safe.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter, time

import structlog

from engine.config import SnapshotConfig
from engine.core import Core
from engine.metrics import Metrics
from snapshots import Frozen, SnapshotError, SnapshotInfo, SnapshotStore, encode, freeze
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
        below the oldest snapshot of this stream goes.
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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing: Future[tuple[SnapshotInfo, str]] | None = None
        self._last_events = 0

    def due(self, core: Core) -> bool:
        """Whether it is time for the next one, and the last one is written."""
        passed = core.counts["events"] - self._last_events
        return self._writing is None and passed >= self._config.every

    def begin(self, core: Core, lineage: str, position: str) -> None:
        """Freeze `core` now, and write it meanwhile."""
        started = perf_counter()
        taken = take(core, lineage, position)
        self._last_events = taken.events
        self._writing = self._thread.submit(self._write, taken)
        self._metrics.snapshot_pause_seconds.observe(perf_counter() - started)

    def settle(self, lease: Lease, wait: bool = False) -> None:
        """Announce the snapshot under way and trim the input, if its file is safe by now."""
        if self._writing is None or not (wait or self._writing.done()):
            return
        try:
            info, oldest = self._writing.result()
        except SnapshotError as error:
            self._writing = None
            # Decisions go on: the stream keeps what the snapshot would have held.
            self._log.error("snapshot_failed", detail=str(error))
            return
        manifest = info.manifest
        notice = SnapshotNotice(
            snapshot_id=info.snapshot_id,
            position=manifest.position,
            events=manifest.events,
            file_digest=info.file_digest,
            state_digest=manifest.state_digest,
            decisions_digest=manifest.decisions_digest,
        )
        self._transport.notify(lease, encode_event(notice))
        trimmed = 0
        if self._transport.length() > self._config.retain:
            trimmed = self._transport.trim(lease, oldest)
        self._writing = None
        self._metrics.last_snapshot.set(time())
        self._log.info("snapshot", id=info.snapshot_id, bytes=info.size, trimmed=trimmed)

    def close(self) -> None:
        """Wait for what is being written."""
        self._thread.shutdown()

    def _write(self, taken: _Taken) -> tuple[SnapshotInfo, str]:
        """Save, and find below which position the input isn't needed any more."""
        info = self.store.save(to_bytes(taken, self._key))
        kept = [
            found.manifest.position or START
            for found in self.store.list()
            if isinstance(found, SnapshotInfo) and found.manifest.lineage == taken.lineage
        ]
        return info, min(kept, key=order)
