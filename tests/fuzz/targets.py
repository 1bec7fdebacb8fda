"""The decoders under fuzzing: what any bytes at all may do to each of them.

Each target takes bytes and asserts what its decoder promises. Whatever else it raises is a find.
"""

import atexit
import io
import pickletools
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from snapshots import SnapshotError, read, verify
from snapshots.format import peek
from streams import (
    Alert,
    Dead,
    Decision,
    EventError,
    Outcome,
    SnapshotNotice,
    Tape,
    TapeError,
    dead,
    decode,
    encode,
    read_entry,
)
from streams.events import decode_output
from streams.tape import MAX_LINE_BYTES
from tests.security.test_snapshots import resigned
from tests.snapshots.test_format import remade
from tests.snapshots.trees import KEY

_OUTPUTS: tuple[type[Struct], ...] = (Decision, Outcome, Alert, Dead, SnapshotNotice)
_folder = Path(tempfile.mkdtemp(prefix="closeloop-fuzz-"))
atexit.register(shutil.rmtree, _folder, True)


def input_event(data: bytes) -> None:
    """An entry is an event or has a reason. Both survive being written and read again."""
    entry = read_entry("1-1", data)
    assert (entry.event is None) != (entry.error is None)
    if entry.event is not None:
        assert decode(encode(entry.event)) == entry.event
        return
    assert entry.error
    assert "\n" not in entry.error
    letter = dead("events", "1-1", "invalid", entry.error, data)
    assert decode_output(Dead, encode(letter)) == letter
    if letter.data is not None:
        assert letter.data.encode() == data


def output_event(data: bytes) -> None:
    """An output stream's entry is what it should be, or an `EventError`."""
    for model in _OUTPUTS:
        with suppress(EventError):
            decode_output(model, data)


def snapshot(data: bytes) -> None:
    """A snapshot is read, or refused with a `SnapshotError`, also when listed and verified."""
    for decoder in (
        lambda: read(data, KEY, name="fuzz"),
        lambda: verify(data, KEY),
        lambda: peek(io.BytesIO(data), "fuzz"),
    ):
        with suppress(SnapshotError):
            decoder()


def signed_snapshot(data: bytes) -> None:
    """The same for one whose digest and signature hold, so that its manifest is reached."""
    if len(data) > 64:
        with suppress(SnapshotError):
            read(resigned(data, KEY), KEY)


def snapshot_document(data: bytes) -> None:
    """The same for a document that was signed."""
    with suppress(SnapshotError):
        read(remade(parts={"document": data}), KEY)


def snapshot_pickle(data: bytes) -> None:
    """The same for a pickle that was signed, but for one that has Python reserve memory."""
    if not _reserves(data):
        with suppress(SnapshotError):
            read(remade(parts={"objects": data}), KEY)


def _reserves(data: bytes) -> bool:
    """Whether a pickle's own opcodes ask for more memory than it has bytes.

    Python's machine grows its memo to any index it is told, and no pickle of ours names one. Only
    who holds the key can do that to us.
    """
    with suppress(Exception):
        for opcode, argument, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(str(argument)) > len(data):
                return True
    return False


def _tape(data: bytes, suffix: str) -> None:
    path = _folder / f"tape{suffix}"
    path.write_bytes(data)
    with suppress(TapeError):
        for line in Tape(path):
            assert len(line.data) <= MAX_LINE_BYTES
            entry = line.entry()
            assert (entry.event is None) != (entry.error is None)


def plain_tape(data: bytes) -> None:
    """A tape is read line by line, or breaks off with a `TapeError`."""
    _tape(data, ".jsonl")


def gzip_tape(data: bytes) -> None:
    """The same for gzip."""
    _tape(data, ".jsonl.gz")


def zstd_tape(data: bytes) -> None:
    """The same for Zstandard."""
    _tape(data, ".jsonl.zst")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        input_event,
        output_event,
        snapshot,
        signed_snapshot,
        snapshot_document,
        snapshot_pickle,
        plain_tape,
        gzip_tape,
        zstd_tape,
    )
}
