"""Recovery: from the newest snapshot that can be used, through the stream, to the checkpoint.

What can't be had exactly is never guessed at. A snapshot that doesn't fit is passed over, and why
is kept to be told; when nothing reaches the checkpoint, `RecoveryError` says what can be done.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.core import Core
from snapshots import Manifest, PassedOver, SnapshotIncompatible, SnapshotStore
from streams import START, Entry, RawEntry, RedisTransport, order, read_entry


class RecoveryError(Exception):
    """The state at the checkpoint can't be rebuilt; the message has the mend."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The core at the checkpoint, and how it got there.

    Parameters
    ----------
    core, position, lineage
        The state, the input ID up to which it holds everything, and the stream history's name.
    snapshot
        The file it started from; None: from nothing.
    reapplied
        Entries applied again since.
    passed_over
        Snapshots that couldn't be used, and why.
    as_published
        Whether the decisions made again are those that were published. They may not be when there
        was no usable snapshot and the configuration or a library has changed since.
    """

    core: Core
    position: str
    lineage: str
    snapshot: str | None
    reapplied: int
    passed_over: list[PassedOver]
    as_published: bool = True


@dataclass(frozen=True, slots=True)
class Base:
    """A state to apply entries to: the core at `position`.

    `snapshot` is the file it was in; None: the state before the first entry.
    """

    core: Core
    position: str
    snapshot: str | None


def read_raw(raw: RawEntry) -> Entry:
    """A stream entry, decoded; one that isn't a single field `e` is no event."""
    if raw.problem is not None:
        return Entry(raw.id, raw.data, None, raw.problem)
    return read_entry(raw.id, raw.data)


def unusable(
    manifest: Manifest,
    transport: RedisTransport,
    reaches_back_to: Callable[[str], bool] | None = None,
) -> str | None:
    """Why recovery can't start from this snapshot; None when it can.

    `reaches_back_to` stands in for the transport's own, which takes no gap for granted.
    """
    reaches_back_to = reaches_back_to or transport.reaches_back_to
    checkpoint, position = transport.checkpoint(), manifest.position or START
    if manifest.lineage != checkpoint.lineage:
        return f"it belongs to another stream history, {manifest.lineage}"
    if order(position) > order(checkpoint.position):
        return f"it is at {position}, ahead of the checkpoint {checkpoint.position}"
    # At the checkpoint there is nothing to re-apply, whatever became of the stream.
    if position != checkpoint.position and not reaches_back_to(position):
        first = transport.first_id()
        return f"the stream no longer reaches back to its position {position}: it begins at {first}"
    return None


def recover(
    transport: RedisTransport,
    store: SnapshotStore,
    new_core: Callable[[], Core],
    batch: int,
    keep_lease: Callable[[], None],
    start_from: Path | None = None,
) -> Recovered:
    """The state at the checkpoint, without publishing anything.

    Parameters
    ----------
    batch
        Entries read at once.
    start_from
        A snapshot, of a replay say, to begin with while nothing is committed.
    keep_lease
        Called now and then, since this may take long.
    """
    checkpoint = transport.checkpoint()
    passed_over: list[PassedOver] = []
    for base in _bases(store, new_core, lambda m: unusable(m, transport), passed_over):
        core = base.core
        reapplied = reapply(transport, core, base.position, checkpoint.position, batch, keep_lease)
        if checkpoint.decisions_digest in ("", core.decisions_digest):
            return Recovered(
                core, checkpoint.position, checkpoint.lineage, base.snapshot, reapplied, passed_over
            )
        error = SnapshotIncompatible(
            f"{base.snapshot}: re-applying from there gives other decisions than were published"
        )
        passed_over.append(PassedOver(Path(base.snapshot or ""), error))
    if checkpoint.position == START and start_from is not None:
        core = new_core()
        found = store.load(start_from, config_digest=core.config.digest)
        core.restore(found.tree)
        return Recovered(core, START, checkpoint.lineage, found.name, 0, passed_over)
    if checkpoint.position != START and not transport.reaches_back_to(START):
        raise _out_of_reach(transport, store, passed_over)
    core = new_core()
    reapplied = reapply(transport, core, START, checkpoint.position, batch, keep_lease)
    if reapplied != checkpoint.entries:  # Redis 6.2 can't tell before
        raise _out_of_reach(transport, store, passed_over)
    same = checkpoint.decisions_digest in ("", core.decisions_digest)
    return Recovered(
        core, checkpoint.position, checkpoint.lineage, None, reapplied, passed_over, same
    )


def base_before(
    transport: RedisTransport,
    store: SnapshotStore,
    new_core: Callable[[], Core],
    entry_id: str,
    reaches_back_to: Callable[[str], bool],
) -> Base:
    """The nearest state from which the one just before `entry_id` is reached by re-applying.

    `reaches_back_to` says from which positions the stream will do. Raises `RecoveryError` when
    neither a snapshot nor the stream's beginning will.
    """

    def no_use(manifest: Manifest) -> str | None:
        position = manifest.position or START
        if order(position) >= order(entry_id):
            return f"it is at {position}, not before {entry_id}"
        return unusable(manifest, transport, reaches_back_to)

    passed_over: list[PassedOver] = []
    for base in _bases(store, new_core, no_use, passed_over):
        return base
    if not reaches_back_to(START):
        raise _out_of_reach(transport, store, passed_over)
    return Base(new_core(), START, None)


def entries_between(
    transport: RedisTransport, after: str, until: str, batch: int
) -> Iterator[Entry]:
    """The entries after `after` up to `until`, as far as the stream has them."""
    while entries := transport.read(after, batch):
        for raw in entries:
            if order(raw.id) > order(until):
                return
            yield read_raw(raw)
        after = entries[-1].id


def _bases(
    store: SnapshotStore,
    new_core: Callable[[], Core],
    no_use: Callable[[Manifest], str | None],
    passed_over: list[PassedOver],
) -> Iterator[Base]:
    """Each snapshot that can be used, newest first; the others are added to `passed_over`."""
    for found in store.newest(config_digest=new_core().config.digest, usable=no_use):
        if isinstance(found, PassedOver):
            passed_over.append(found)
            continue
        core = new_core()
        core.restore(found.tree)
        yield Base(core, found.manifest.position or START, found.name)


def _out_of_reach(
    transport: RedisTransport, store: SnapshotStore, passed_over: list[PassedOver]
) -> RecoveryError:
    """There is neither a snapshot nor all of the stream."""
    why = "; ".join(str(passed.error) for passed in passed_over) or "there is none"
    return RecoveryError(
        f"no snapshot in {store.directory} can be used ({why}), and the stream doesn't reach"
        f" back to its beginning (it begins at {transport.first_id()}, closeloop trimmed it below"
        f" {transport.checkpoint().trimmed}); bring back a snapshot, or the configuration and"
        " libraries it was made with"
    )


def reapply(
    transport: RedisTransport,
    core: Core,
    after: str,
    until: str,
    batch: int,
    keep_lease: Callable[[], None],
) -> int:
    """Apply the entries after `after` up to `until`, publishing nothing; how many they were.

    Raises `RecoveryError` when they aren't all there.
    """
    first, count = after, 0
    while after != until:
        entries = transport.read(after, batch)
        if not entries or order(entries[-1].id) > order(until):
            entries = [entry for entry in entries if order(entry.id) <= order(until)]
            if not entries:
                raise RecoveryError(
                    f"the checkpoint is at {until}, but no entry there comes after {after}:"
                    " entries were deleted; bring back a snapshot taken at the checkpoint"
                )
        for entry in entries:
            core.apply(read_raw(entry))
        count += len(entries)
        after = entries[-1].id
        keep_lease()
    # Only now: what is deleted while it is read is skipped by the server without a word.
    if count and not transport.reaches_back_to(first):
        raise RecoveryError(
            f"of the entries after {first} some were deleted, the stream begins at"
            f" {transport.first_id()}; bring back a snapshot taken later"
        )
    return count
