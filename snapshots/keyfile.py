"""The key that signs snapshots: a file that only its owner may read, made on first run."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from snapshots.errors import SnapshotKeyError

KEY_BYTES = 32


def load_key(path: Path) -> bytes:
    """The key in the file `path`, made with mode 0600 and 32 random bytes if there is none.

    A new key is written beside and linked into place, so that of two processes on their first run
    both end with the same one. Raises `SnapshotKeyError` when the file is another user's, when
    others may read or write it, when it holds no key, or when it can't be read or made.
    """
    try:
        if not path.exists():
            _make(path)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise SnapshotKeyError(
            f"the key file {path} can't be used: {error.strerror}; mend that, or name another file"
        ) from error
    if status.st_uid != os.geteuid():
        raise SnapshotKeyError(
            f"the key file {path} belongs to user {status.st_uid}, who knows the key; put a file of"
            f" this user's own ({os.geteuid()}) there"
        )
    if mode & 0o077:
        raise SnapshotKeyError(
            f"the key file {path} has mode {mode:04o}, so others can get at it; "
            f"run: chmod 600 '{path}'"
        )
    if len(key) != KEY_BYTES:
        raise SnapshotKeyError(
            f"the key file {path} doesn't hold {KEY_BYTES} bytes; put the key back from a copy, or "
            "delete the file for a new key (snapshots signed with the old one are then foreign)"
        )
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # Another process was first, and its key is the key.
            os.link(beside, path)
    finally:
        beside.unlink()
