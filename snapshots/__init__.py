"""Snapshots: states frozen, digested, signed, stored, and read again without running code.

`freeze` is the only step that has to happen between two events; `encode` and
`SnapshotStore.save` may follow in another thread. `SnapshotStore.newest` is how recovery reads.
"""

from snapshots.canonical import digest, state_digest
from snapshots.errors import (
    SnapshotDamaged,
    SnapshotError,
    SnapshotForeign,
    SnapshotIncompatible,
    SnapshotKeyError,
    SnapshotStoreError,
    SnapshotUnsupported,
)
from snapshots.format import Snapshot, encode, read, verify
from snapshots.frozen import Frozen, freeze, thaw
from snapshots.keyfile import load_key
from snapshots.manifest import Manifest, libraries
from snapshots.store import PassedOver, SnapshotInfo, SnapshotStore

__all__ = [
    "Frozen",
    "Manifest",
    "PassedOver",
    "Snapshot",
    "SnapshotDamaged",
    "SnapshotError",
    "SnapshotForeign",
    "SnapshotIncompatible",
    "SnapshotInfo",
    "SnapshotKeyError",
    "SnapshotStore",
    "SnapshotStoreError",
    "SnapshotUnsupported",
    "digest",
    "encode",
    "freeze",
    "libraries",
    "load_key",
    "read",
    "state_digest",
    "thaw",
    "verify",
]
