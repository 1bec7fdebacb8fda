"""What can go wrong with snapshots, split by what the caller should do.

SnapshotError
├── SnapshotDamaged         pass it over: bytes are missing, changed or left over
├── SnapshotForeign         pass it over: it was signed with another key
├── SnapshotIncompatible    pass it over and rebuild by replaying: another format, library or config
├── SnapshotUnsupported     stop: the state holds something that no snapshot may carry
├── SnapshotStoreError      retry later: the folder can't be read or written; old ones are untouched
└── SnapshotKeyError        stop: the key file can't be used as it is

Every message names the thing, the value and the mend.
"""


class SnapshotError(Exception):
    """The base of all errors that this package raises."""


class SnapshotDamaged(SnapshotError):
    """Bytes that are not what was written. Nothing of them was decoded."""


class SnapshotForeign(SnapshotError):
    """Whole, but not signed with this key. Nothing of it was decoded."""


class SnapshotIncompatible(SnapshotError):
    """Whole and ours, but made for something else; the message says what differs."""


class SnapshotUnsupported(SnapshotError):
    """A state with a type that isn't on the allow-list, a cycle of plain containers, too much."""


class SnapshotStoreError(SnapshotError):
    """The operating system's word on why the folder can't be used; it is the ``__cause__``."""


class SnapshotKeyError(SnapshotError):
    """A key file that others may read, or that holds no key."""
