"""The store: a folder of snapshots, each written whole or not at all, the newest few kept.

Writing is: beside under a ``.tmp`` name, sync, rename, sync the folder. A writer holds a lock on
its ``.tmp``, so that what one left behind when it died can be told from what is being written.
"""

import errno
import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from snapshots.errors import SnapshotDamaged, SnapshotError, SnapshotStoreError
from snapshots.format import MAX_BYTES, Snapshot, Usable, peek, read, verify
from snapshots.manifest import Manifest

SUFFIX = ".clsnap"
ASIDE = ".aside"
LINEAGES = 3
"""Of so many stream histories the store keeps snapshots."""

_MENDS = {
    errno.ENOSPC: "free space on its disk",
    errno.EDQUOT: "free space within its quota",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "mount it writable, or choose another folder",
    errno.EACCES: "give this user the right to write there, or choose another folder",
    errno.EPERM: "give this user the right to write there, or choose another folder",
}


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A file of the store, as it presents itself; only loading it proves it.

    Parameters
    ----------
    path
        The file. Its name without the suffix is the snapshot's ID.
    size
        In bytes.
    file_digest
        The SHA-256 that it ends with, hex.
    manifest
        What it claims to be.
    """

    path: Path
    size: int
    file_digest: str
    manifest: Manifest

    @property
    def snapshot_id(self) -> str:
        """``snapshot-EVENTS-DIGEST``."""
        return self.path.name.removesuffix(SUFFIX)


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A file of the store that couldn't be used, and why."""

    path: Path
    error: SnapshotError


class SnapshotStore:
    """The snapshots in one folder.

    Parameters
    ----------
    directory
        Made if there is none.
    key
        Signs and verifies; see `load_key`.
    keep
        How many are kept of each lineage, at least 1, and of the newest `LINEAGES` lineages. The
        one just saved is always among them.

    Raises
    ------
    SnapshotStoreError
        From every method, when the operating system says no.
    """

    def __init__(self, directory: Path, key: bytes, keep: int = 5) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}; it must be at least 1")
        self.directory = directory
        self._key = key
        self._keep = keep
        with self._mapped("made"):
            directory.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def save(self, data: bytes) -> SnapshotInfo:
        """Write what `encode` gave, durably, then delete all but the newest few.

        Raises `SnapshotDamaged` or `SnapshotForeign`, before anything is written, if `data` isn't a
        whole snapshot signed with this store's key.
        """
        manifest = verify(data, self._key)
        file_digest = data[-32:].hex()
        path = self.directory / f"snapshot-{manifest.events:012d}-{file_digest[:12]}{SUFFIX}"
        with self._mapped("written"):
            self._write(path, data)
            self._retire(path, manifest.lineage)
        return SnapshotInfo(path, len(data), file_digest, manifest)

    def set_aside(self, path: Path) -> None:
        """Take the file `path` out of the store without deleting it; the last few stay so."""
        with self._mapped("written"):
            path.rename(path.with_name(path.name + ASIDE))
            aside = sorted(self.directory.glob(f"snapshot-*{SUFFIX}{ASIDE}"), key=_modified)
            for old in aside[: -self._keep]:
                old.unlink(missing_ok=True)

    def _retire(self, saved: Path, lineage: str) -> None:
        """Delete all but the newest few of the newest few lineages; `saved` of `lineage` stays."""
        lineages = {lineage: [saved]}
        for entry in self.list():
            if entry.path != saved:
                # What can't even be listed comes last: it stays as long as there is room.
                of = entry.manifest.lineage if isinstance(entry, SnapshotInfo) else lineage
                lineages.setdefault(of, []).append(entry.path)
        for number, paths in enumerate(lineages.values()):
            for path in paths[self._keep if number < LINEAGES else 0 :]:
                path.unlink(missing_ok=True)

    def list(self) -> tuple[SnapshotInfo | PassedOver, ...]:
        """All files of the store, newest first, and last those that can't even be listed.

        A lineage is as new as the last snapshot taken of it; within it events count. (By events
        alone an old run of many events would for ever hide a new one.) Reads heads only.
        """
        infos: list[SnapshotInfo] = []
        unreadable: list[PassedOver] = []
        with self._mapped("read"):
            for path in sorted(self.directory.glob(f"snapshot-*{SUFFIX}"), reverse=True):
                try:
                    with path.open("rb") as file:
                        manifest, file_digest = peek(file, path.name)
                        infos.append(
                            SnapshotInfo(path, file.seek(0, os.SEEK_END), file_digest, manifest)
                        )
                except SnapshotError as error:
                    unreadable.append(PassedOver(path, error))
                except FileNotFoundError:
                    continue  # Another process's retention was faster.
        latest: dict[str, str] = {}
        for info in infos:
            lineage, created = info.manifest.lineage, info.manifest.created
            latest[lineage] = max(created, latest.get(lineage, created))
        infos.sort(
            key=lambda info: (
                latest[info.manifest.lineage],
                info.manifest.lineage,
                info.manifest.events,
                info.manifest.created,
            ),
            reverse=True,
        )
        return (*infos, *unreadable)

    def newest(
        self, *, config_digest: str | None = None, usable: Usable | None = None
    ) -> Iterator[Snapshot | PassedOver]:
        """Each file, newest first: loaded, or why it couldn't be. Take the first that is loaded.

        `config_digest` and `usable` are those of `snapshots.format.read`.
        """
        for entry in self.list():
            try:
                yield self.load(entry.path, config_digest=config_digest, usable=usable)
            except SnapshotError as error:
                yield PassedOver(entry.path, error)

    def load(
        self, path: Path, *, config_digest: str | None = None, usable: Usable | None = None
    ) -> Snapshot:
        """The snapshot in the file `path`. Raises what `snapshots.format.read` raises."""
        with self._mapped("read"), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise SnapshotDamaged(f"{path} has {size} bytes; at most {MAX_BYTES} are read")
            data = file.read()
        return read(data, self._key, name=str(path), config_digest=config_digest, usable=usable)

    def _write(self, path: Path, data: bytes) -> None:
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
                beside.rename(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _sweep(self) -> None:
        """Delete what writers left behind when they died."""
        for leftover in self.directory.glob(f".snapshot-*{SUFFIX}.*.tmp"):
            with suppress(BlockingIOError, FileNotFoundError), leftover.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()

    @contextmanager
    def _mapped(self, done: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            mend = _MENDS.get(error.errno or 0, "mend that, or choose another folder")
            raise SnapshotStoreError(
                f"the snapshot folder {self.directory} can't be {done}: {error.strerror}; {mend}"
            ) from error


def _modified(path: Path) -> float:
    return path.stat().st_mtime
