import fcntl
import os
import resource
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapshots import (
    Manifest,
    PassedOver,
    Snapshot,
    SnapshotDamaged,
    SnapshotForeign,
    SnapshotIncompatible,
    SnapshotInfo,
    SnapshotStore,
    SnapshotStoreError,
    encode,
    freeze,
)
from tests.snapshots.trees import KEY


def taken(
    events: int, lineage: str = "one", created: str = "2026-05-01", key: bytes = KEY
) -> bytes:
    return encode(
        freeze({"events": events}),
        key,
        created=created,
        config_digest="c" * 64,
        lineage=lineage,
        position=f"{events}-0",
        events=events,
        decisions_digest="d" * 64,
    )


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots", KEY, keep=3)


def damage(info: SnapshotInfo) -> None:
    data = bytearray(info.path.read_bytes())
    data[-100] ^= 1
    info.path.write_bytes(data)


def events_in(store: SnapshotStore) -> list[int]:
    return [entry.manifest.events for entry in store.list() if isinstance(entry, SnapshotInfo)]


def test_what_was_saved_is_found_again(store: SnapshotStore) -> None:
    info = store.save(taken(7))
    assert store.list() == (info,)
    assert info.path.name == f"snapshot-000000000007-{info.file_digest[:12]}.clsnap"
    assert info.snapshot_id == info.path.stem
    [found] = store.newest()
    assert isinstance(found, Snapshot)
    assert found.tree == {"events": 7}
    assert found.file_digest == info.file_digest


def test_a_snapshot_is_for_its_owner_alone(store: SnapshotStore) -> None:
    assert stat.S_IMODE(store.save(taken(1)).path.stat().st_mode) == 0o600


def test_only_the_newest_are_kept(store: SnapshotStore) -> None:
    for events in (1, 2, 3, 4, 5):
        store.save(taken(events))
    assert events_in(store) == [5, 4, 3]


def test_saving_the_same_twice_leaves_one(store: SnapshotStore) -> None:
    assert store.save(taken(1)) == store.save(taken(1))
    assert events_in(store) == [1]


def test_a_new_lineage_is_newer_than_an_old_one_of_more_events(store: SnapshotStore) -> None:
    for events in (1000, 2000, 3000):
        store.save(taken(events, "old", "2026-05-01"))
    store.save(taken(1, "new", "2026-05-02"))
    store.save(taken(2, "new", "2026-05-03"))
    assert events_in(store) == [2, 1, 3000, 2000, 1000]


def test_the_one_just_saved_is_kept_even_if_it_is_the_oldest(store: SnapshotStore) -> None:
    for events in (5, 6, 7):
        store.save(taken(events))
    saved = store.save(taken(1))
    assert saved in store.list()
    assert events_in(store) == [7, 6, 1]


def test_damaged_ones_are_passed_over_with_the_reason(store: SnapshotStore) -> None:
    infos = [store.save(taken(events)) for events in (1, 2, 3)]
    damage(infos[2])
    infos[1].path.write_bytes(b"garbage")
    one, two, three = store.newest()
    assert isinstance(one, PassedOver) and isinstance(one.error, SnapshotDamaged)
    assert (one.path, three) == (infos[2].path, PassedOver(infos[1].path, three.error))  # type: ignore[union-attr] # passed over
    assert isinstance(two, Snapshot) and two.tree == {"events": 1}
    assert [type(entry) for entry in store.list()] == [SnapshotInfo, SnapshotInfo, PassedOver]


def test_damaged_ones_go_before_the_last_that_is_whole(store: SnapshotStore) -> None:
    for events in (1, 2, 3):
        store.save(taken(events)).path.write_bytes(b"garbage")
    store.save(taken(4))
    assert events_in(store) == [4]
    store.save(taken(5))
    store.save(taken(6))
    assert events_in(store) == [6, 5, 4] == [entry.manifest.events for entry in store.list()]  # type: ignore[union-attr] # none is damaged


def test_those_of_another_key_config_or_use_are_passed_over(store: SnapshotStore) -> None:
    store.save(taken(1))
    store.save(taken(2))
    other = SnapshotStore(store.directory, b"x" * 32)
    assert [type(found.error) for found in other.newest() if isinstance(found, PassedOver)] == [
        SnapshotForeign,
        SnapshotForeign,
    ]

    def reached(manifest: Manifest) -> str | None:
        return "trimmed" if manifest.events == 2 else None

    first, second = store.newest(config_digest="c" * 64, usable=reached)
    assert isinstance(first, PassedOver) and isinstance(first.error, SnapshotIncompatible)
    assert isinstance(second, Snapshot) and second.manifest.events == 1
    assert all(isinstance(found, PassedOver) for found in store.newest(config_digest="e" * 64))


def test_what_is_not_a_snapshot_of_ours_is_not_written(store: SnapshotStore) -> None:
    with pytest.raises(SnapshotDamaged):
        store.save(taken(1)[:-1])
    with pytest.raises(SnapshotForeign):
        store.save(taken(1, key=b"x" * 32))
    assert list(store.directory.iterdir()) == []


def test_what_a_dead_writer_left_is_swept_and_what_a_live_one_writes_is_not(
    store: SnapshotStore,
) -> None:
    dead = store.directory / ".snapshot-000000000001-abc.clsnap.1.tmp"
    live = store.directory / ".snapshot-000000000002-abc.clsnap.2.tmp"
    dead.write_bytes(b"half")
    with live.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        SnapshotStore(store.directory, KEY)
        assert list(store.directory.iterdir()) == [live]
    assert store.list() == ()


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the disk is full as soon as it is written to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_full_disk_leaves_the_old_ones_untouched(store: SnapshotStore, size: int) -> None:
    infos = [store.save(taken(events)) for events in (1, 2, 3)]
    data = taken(4)
    with limited(size), pytest.raises(SnapshotStoreError, match="can't be written") as caught:
        store.save(data)
    assert isinstance(caught.value.__cause__, OSError)
    assert store.list() == tuple(reversed(infos))
    assert len(list(store.directory.iterdir())) == 3
    assert store.save(data) == store.list()[0]


def test_a_read_only_folder_leaves_the_old_ones_untouched() -> None:
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SnapshotStore(folder, KEY, keep=1)
        store.save(taken(1))
        folder.chmod(0o555)
        data = taken(2)
        if root:  # To whom no folder is read-only.
            os.seteuid(65534)
        try:
            with pytest.raises(SnapshotStoreError, match="the right to write there"):
                store.save(data)
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
        assert events_in(store) == [1]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SnapshotStoreError, match="file/snapshots can't be made: Not a directory"):
        SnapshotStore(tmp_path / "file" / "snapshots", KEY)


def test_a_folder_that_went_away_is_an_error(store: SnapshotStore) -> None:
    info = store.save(taken(1))
    info.path.unlink()
    with pytest.raises(SnapshotStoreError, match="No such file"):
        store.load(info.path)
    store.directory.rmdir()
    with pytest.raises(SnapshotStoreError, match="No such file"):
        store.save(taken(2))


def test_at_least_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SnapshotStore(tmp_path, KEY, keep=0)


def test_a_snapshot_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_told_of(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        done.append("folder synced" if stat.S_ISDIR(mode) else "file synced")
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    store.save(taken(7))
    assert done == ["file synced", "renamed", "folder synced"]
