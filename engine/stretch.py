"""A stretch of a shard's recorded streams, re-run from the nearest state that is kept.

Reads only: it needs no lease and changes nothing. Deleted entries are no reason to refuse, they are
what is looked for; only a beginning that was trimmed away is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.alignment import ById, Published
from engine.core import Core
from engine.explain import ExplainError, Explanation, explain
from engine.recording import next_id, recorded
from engine.recovery import Base, RecoveryError, base_before, entries_between
from engine.snapshotting import TAPE
from engine.verify import Verdict, Verification, Waypoint
from snapshots import SnapshotIncompatible, SnapshotInfo, SnapshotStore, libraries
from streams import START, Checkpoint, Connection, Keys, RedisTransport, Signal, order
from streams.events import read_entry

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Edges:
    """What is known of a stream's missing entries.

    Parameters
    ----------
    kept_from
        Nothing is missing from this ID on, but for what was taken out singly.
    deleted
        The highest ID that was taken out singly, where the server tells; else `START`.
    """

    kept_from: str
    deleted: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found over which stretch, and what couldn't be checked."""

    first: str
    last: str
    snapshot: str | None
    verdict: Verdict
    notes: list[str]


class Stretches:
    """The recorded streams of a shard.

    Parameters
    ----------
    connection, keys
        Where, and which shard.
    store
        Its snapshots.
    new_core
        Makes an empty core.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        store: SnapshotStore,
        new_core: Callable[[], Core],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._store = store
        self._new_core = new_core
        self._transport = RedisTransport(connection, keys)

    def verify(
        self,
        first: str | None = None,
        last: str | None = None,
        snapshot: Path | None = None,
        progress: Callable[[float], None] = lambda done: None,
    ) -> Verified:
        """Re-run the entries from `first` to `last` and compare what was published.

        Parameters
        ----------
        first
            A stream ID; None: as far back as can be reached.
        last
            A stream ID; None: the checkpoint.
        snapshot
            The file to begin with, instead of the nearest one.
        progress
            Called now and then with how much is done, from 0 to 1.

        Raises `RecoveryError` when no state before `first` can be had, `SnapshotError` when the
        named snapshot won't do.
        """
        checkpoint = self._transport.checkpoint()
        until = checkpoint.position
        notes = []
        if last is not None and order(last) <= order(until):
            until = last
        elif last is not None:
            notes.append(f"nothing is committed after {until}")
        if snapshot is not None:
            base = self._loaded(snapshot, checkpoint)
        elif first is not None:
            base = base_before(
                self._transport, self._store, self._new_core, first, self._reaches_back_to
            )
        else:
            base = self._earliest(checkpoint)
            if base.position != START:
                notes.append(
                    f"what was published up to {base.position} can't be checked: the input begins"
                    f" at {self._transport.first_id()}, and no snapshot from before is kept"
                )
        first = first or next_id(base.position)
        if order(first) <= order(base.position):
            raise SnapshotIncompatible(
                f"{base.snapshot} is at {base.position}, not before {first}; name an earlier one"
            )
        if order(first) > order(until):
            notes.append(f"nothing is committed from {first} to {until}")
        decisions, outcomes = (self._edges(key) for key in self._outputs())
        verification = Verification(
            base.core,
            ById(self._published(self._keys.decisions, first, until), *_both(decisions)),
            ById(self._published(self._keys.outcomes, first, until), *_both(outcomes)),
            self._waypoints(first, until, checkpoint, base),
            self._made_with(checkpoint),
        )
        begun, whole = _milliseconds(base.position), _milliseconds(until)
        for entry in entries_between(self._transport, base.position, until, BATCH):
            if order(entry.id) < order(first):
                base.core.apply(entry)
            else:
                verification.apply(entry)
            begun = begun or _milliseconds(entry.id)
            progress((_milliseconds(entry.id) - begun) / max(whole - begun, 1))
        verdict = verification.finish()
        self._require_untrimmed(base, verdict, decisions, outcomes)
        for kind, tally, edges in (
            ("decisions", verdict.decisions, decisions),
            ("outcomes", verdict.outcomes, outcomes),
        ):
            if tally.unchecked:
                notes.append(
                    f"{tally.unchecked:,} {kind} can't be checked: their stream was trimmed below"
                    f" {edges.kept_from}"
                )
        return Verified(first, until, base.snapshot, verdict, notes)

    def explain(self, signal_id: str) -> Explanation:
        """The state just before a signal, taken apart.

        Raises `ExplainError` for a signal that isn't there, `RecoveryError` when the state before
        it can't be had.
        """
        published = self._find(self._keys.decisions, lambda found: found.signal_id == signal_id)
        signal = published or self._find(
            self._keys.events, lambda found: _is_signal(found, signal_id)
        )
        checkpoint = self._transport.checkpoint()
        if signal is None:
            gone = "" if checkpoint.trimmed == START else (
                f", as far as they are kept: below {checkpoint.trimmed} they were trimmed"
            )  # fmt: skip
            raise ExplainError(f"no signal {signal_id!r} in {self._keys.events}{gone}")
        if order(signal.id) > order(checkpoint.position):
            raise ExplainError(f"signal {signal_id!r} isn't decided yet; is a worker running?")
        base = base_before(
            self._transport, self._store, self._new_core, signal.id, self._reaches_back_to
        )
        for entry in entries_between(self._transport, base.position, signal.id, BATCH):
            if entry.id == signal.id:
                return explain(base.core, entry, published.data if published else None)
            base.core.apply(entry)
        raise ExplainError(f"the event {signal.id} of signal {signal_id!r} is gone from the stream")

    # Where to begin

    def _reaches_back_to(self, position: str) -> bool:
        """Whether nothing after `position` was trimmed away, whatever was deleted singly."""
        if self._transport.reaches_back_to(position):
            return True
        trimmed = self._transport.checkpoint().trimmed
        deleted = self._edges(self._keys.events).deleted
        return order(trimmed) <= order(position) < order(deleted)

    def _earliest(self, checkpoint: Checkpoint) -> Base:
        """The state from which the longest stretch can be re-run."""
        positions = {START, *(position for position, _ in self._made_with(checkpoint))}
        found: RecoveryError | None = None
        for position in sorted(positions, key=order):
            try:
                return base_before(
                    self._transport,
                    self._store,
                    self._new_core,
                    next_id(position),
                    self._reaches_back_to,
                )
            except RecoveryError as error:
                found = error
        assert found is not None
        raise found

    def _loaded(self, path: Path, checkpoint: Checkpoint) -> Base:
        """The state in the file `path`."""
        core = self._new_core()
        found = self._store.load(path, config_digest=core.config.digest)
        if found.manifest.lineage not in (TAPE, checkpoint.lineage):
            raise SnapshotIncompatible(
                f"{path} belongs to another stream history, {found.manifest.lineage}"
            )
        position = found.manifest.position or START
        if not self._reaches_back_to(position):
            raise RecoveryError(f"the stream no longer reaches back to {position}, where {path} is")
        core.restore(found.tree)
        return Base(core, position, found.name)

    # What is known of the past

    def _snapshots(self, checkpoint: Checkpoint) -> list[SnapshotInfo]:
        """Those of this stream history, by what they claim to be, in the order of the stream."""
        found = [
            info
            for info in self._store.list()
            if isinstance(info, SnapshotInfo) and info.manifest.lineage == checkpoint.lineage
        ]
        return sorted(found, key=lambda info: order(info.manifest.position or START))

    def _made_with(self, checkpoint: Checkpoint) -> list[tuple[str, dict[str, str]]]:
        return [
            (info.manifest.position or START, info.manifest.libraries)
            for info in self._snapshots(checkpoint)
        ]

    def _waypoints(
        self, first: str, until: str, checkpoint: Checkpoint, base: Base
    ) -> Iterator[Waypoint]:
        """Snapshots within the stretch, and the checkpoint."""
        for info in self._snapshots(checkpoint):
            manifest = info.manifest
            position = manifest.position or START
            within = order(first) <= order(position) <= order(until)
            if within and manifest.config_digest == base.core.config.digest:
                yield Waypoint(
                    info.snapshot_id,
                    position,
                    manifest.decisions_digest,
                    manifest.events,
                    manifest.state_digest if manifest.libraries == libraries() else None,
                )
        ends = order(first) <= order(until) == order(checkpoint.position)
        if ends and checkpoint.decisions_digest:
            entries = None if base.snapshot else checkpoint.entries
            yield Waypoint("the checkpoint", until, checkpoint.decisions_digest, entries)

    # The streams

    def _outputs(self) -> tuple[str, str]:
        return self._keys.decisions, self._keys.outcomes

    def _published(self, key: str, first: str, until: str) -> Iterator[Published]:
        for found in recorded(self._connection, key, first, follow=False):
            for entry_id, data in found:
                if order(entry_id) > order(until):
                    return
                yield Published(entry_id, data)

    def _find(self, key: str, fits: Callable[[Published], bool]) -> Published | None:
        """The first entry of a stream that fits."""
        for entries in recorded(self._connection, key, START, follow=False):
            for entry_id, data in entries:
                found = Published(entry_id, data)
                if fits(found):
                    return found
        return None

    def _edges(self, key: str) -> Edges:
        redis = self._connection.redis
        if not self._connection.retrying(partial(redis.exists, key)):
            return Edges(START, START)
        info: dict[str, Any] = self._connection.retrying(partial(redis.xinfo_stream, key))
        deleted = info.get("max-deleted-entry-id", START.encode()).decode()
        if info.get("entries-added") == info["length"]:
            return Edges(START, deleted)
        if not info["length"]:
            return Edges(next_id(info["last-generated-id"].decode()), deleted)
        return Edges(info["first-entry"][0].decode(), deleted)

    def _require_untrimmed(self, base: Base, verdict: Verdict, *before: Edges) -> None:
        """Raise when a worker trimmed a stream meanwhile, and that may be all that differs."""
        if verdict.first is None:
            return
        now = [self._edges(key) for key in self._outputs()]
        moved = any(
            order(old.kept_from) < order(new.kept_from)
            for old, new in zip(before, now, strict=True)
        )
        if moved or not self._reaches_back_to(base.position):
            raise RecoveryError("a stream was trimmed while it was read; verify again")


def _both(edges: Edges) -> tuple[str, str]:
    return edges.kept_from, edges.deleted


def _milliseconds(entry_id: str) -> int:
    return order(entry_id)[0]


def _is_signal(found: Published, signal_id: str) -> bool:
    event = read_entry(found.id, found.data).event
    return isinstance(event, Signal) and event.signal_id == signal_id
