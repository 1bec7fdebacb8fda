"""What a shadow copy is made of: a piece of a live shard's input, or a tape, and where it begins.

The live server is asked for what it has and told nothing; of the live snapshots one is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from engine.bootstrap import KEY_FILE, keys_of, store_of
from engine.config import Config
from engine.drills.processes import DrillError
from engine.recording import next_id, recorded
from engine.recovery import unusable
from snapshots import Snapshot, SnapshotError, SnapshotInfo
from streams import START, Connection, Keys, RedisTransport, Tape, connect

LEAST = 100
"""Events below which a drill says nothing."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a copy begins with and what happens in it.

    Parameters
    ----------
    name
        Where it comes from, for people.
    entries
        The input, as bytes, in order.
    state
        The core's to begin with; None: an empty one.
    began_with
        The same in words.
    notes
        What people should know of it.
    """

    name: str
    entries: list[bytes]
    state: dict[str, Any] | None = None
    began_with: str = "an empty model"
    notes: list[str] = field(default_factory=list)


def read_tape(tapes: list[Path], events: int) -> Source:
    """The first `events` of tapes. Raises `DrillError` when there are too few."""
    entries = [line.data for line in islice(Tape(*tapes), events)]
    return _enough(Source(", ".join(map(str, tapes)), entries))


def read_live(config: Config, events: int) -> Source:
    """At most `events` of the configured shard's newest input, from a state of its own on.

    It begins at the newest snapshot that leaves so many events, or else at the oldest that leaves
    enough. Without one it is the last `events` of the input, on an empty model.

    Raises `DrillError` when there are too few.
    """
    keys = keys_of(config)
    with connect(config.stream.address) as connection:
        notes: list[str] = []
        found: tuple[Snapshot, list[bytes]] | None = None
        for snapshot in _snapshots(config, RedisTransport(connection, keys), notes):
            position = snapshot.manifest.position or START
            entries = list(islice(_after(connection, keys, position), events))
            if len(entries) >= LEAST:
                found = snapshot, entries
            if len(entries) == events:
                break
        if found is not None:
            snapshot, entries = found
            began = f"{Path(snapshot.name).name} at {snapshot.manifest.position}"
            return Source(connection.address, entries, snapshot.tree, began, notes)
        newest: Any = connection.retrying(
            lambda: connection.redis.xrevrange(keys.events, count=events)
        )
        first = newest[-1][0].decode() if newest else START
        entries = list(islice(_from(connection, keys, first), events))
        notes.append("no live snapshot was of use: the model begins empty, not as it is live")
        return _enough(Source(connection.address, entries, notes=notes))


def _enough(source: Source) -> Source:
    if len(source.entries) < LEAST:
        raise DrillError(
            f"{source.name} has {len(source.entries)} events; a drill needs {LEAST} at least: give"
            " more with --events, or a tape with --tape"
        )
    return source


def _snapshots(config: Config, transport: RedisTransport, notes: list[str]) -> Iterator[Snapshot]:
    """The live snapshots that can be used, newest first."""
    folder = config.snapshots.directory
    # Looking must not make a folder or a key.
    if config.snapshots.key is None and not (folder / KEY_FILE).is_file():
        return
    if not folder.is_dir():
        return
    store = store_of(config)
    for info in store.list():
        if not isinstance(info, SnapshotInfo):
            continue
        why = unusable(info.manifest, transport)
        if why is None:
            try:
                yield store.load(info.path, config_digest=config.core.digest)
                continue
            except SnapshotError as error:
                why = str(error)
        notes.append(f"{info.snapshot_id} was passed over: {why}")


def _after(connection: Connection, keys: Keys, position: str) -> Iterator[bytes]:
    return _from(connection, keys, next_id(position))


def _from(connection: Connection, keys: Keys, first: str) -> Iterator[bytes]:
    for found in recorded(connection, keys.events, first, follow=False):
        for _, data in found:
            yield data
