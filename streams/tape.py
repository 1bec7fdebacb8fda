"""Tapes: logs of events as JSON lines, plain, gzip (``.gz``) or Zstandard (``.zst``) by suffix.

Tapes are streamed; memory is bounded by `MAX_LINE_BYTES`, whatever the file holds. A line that is
no event is the reader's to bury, as on a live stream; only a file that can't be read raises.
"""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import zstandard

from streams.errors import TapeError
from streams.events import MAX_ENTRY_BYTES, Entry, read_entry

MAX_LINE_BYTES = 1_048_576
"""More of a line is not kept."""

# A few bytes can stand for a block of 128 KiB, so this many compressed ones for at most 4 MiB.
_ZST_CHUNK = 128
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a tape that isn't blank.

    Parameters
    ----------
    id
        ``0-N`` for the N-th line; over several tapes the count goes on.
    data
        The bytes without the line's end; of a line too long, the first `MAX_LINE_BYTES`.
    size
        How many bytes the line has.
    path, number
        Where it stands, for a person; the first line is number 1.
    """

    id: str
    data: bytes
    size: int
    path: Path
    number: int

    def entry(self) -> Entry:
        """The line as an input entry; never raises."""
        if self.size > len(self.data):
            error = f"the entry has {self.size} bytes; at most {MAX_ENTRY_BYTES} are read"
            return Entry(self.id, self.data, None, error)
        return read_entry(self.id, self.data)


class Tape:
    """One or more tapes, read one after another in the order given.

    Iterating gives a `Line` each, blank ones left out but counted. It can be iterated again.
    Raises `TapeError`, with the file and the line reached, for a file that can't be read or that
    breaks off; a missing one is noticed at once.
    """

    def __init__(self, *paths: str | Path) -> None:
        self._paths = [Path(path) for path in paths]
        self._sizes = [_size(path) for path in self._paths]
        self._done = 0
        self._current: IO[bytes] | None = None

    @property
    def progress(self) -> float:
        """How much of the files' bytes is read, from 0 to 1. For a progress bar."""
        total = sum(self._sizes)
        read = self._done + (self._current.tell() if self._current else 0)
        return min(read / total, 1.0) if total else 0.0

    def __iter__(self) -> Iterator[Line]:
        self._done = 0
        before = 0
        for path, size in zip(self._paths, self._sizes, strict=True):
            number = 0
            try:
                with ExitStack() as stack:
                    raw = stack.enter_context(path.open("rb"))
                    if raw.seekable():
                        stack.callback(setattr, self, "_current", None)
                        self._current = raw
                    lines = stack.enter_context(_decompressed(path, raw))
                    for number, (data, length) in enumerate(_lines(lines), 1):
                        if data and not data.isspace():
                            yield Line(f"0-{before + number}", data, length, path, number)
            except _BROKEN as error:
                raise TapeError(
                    f"{path}: broken after line {number}: {error}; copy it again, or unpack what "
                    "is left of it and name that"
                ) from error
            except OSError as error:
                raise _unreadable(path, error, f" after line {number}") from error
            before += number
            self._done += size


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Each line without its end, cut at `MAX_LINE_BYTES`, and its full length."""
    while line := file.readline(MAX_LINE_BYTES + 2):
        data = line.rstrip(b"\r\n")
        size = len(data)
        while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
            size += len(line.rstrip(b"\r\n"))
        yield data[:MAX_LINE_BYTES], size


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdReader(raw), 1 << 17)
    return raw


class _ZstdReader(io.RawIOBase):
    """Frame after frame of a .zst. zstandard's own reader takes a file cut short for its end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._begun = False
            chunk = chunk or self._raw.read(_ZST_CHUNK)
            if not chunk:
                if self._begun:
                    raise EOFError("compressed file ended before the end of its last frame")
                return 0
            self._begun = True
            self._ready = memoryview(self._frame.decompress(chunk))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


class TapeWriter:
    """Writes a tape's lines. Made by `write_tape`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        with self._named_errors():
            self._raw = self._beside.open("wb")
        self._file = _compressed(path, self._raw)

    def write(self, data: bytes) -> None:
        """Add one entry's bytes as a line. Raises `TapeError` when the disk refuses.

        A line can't hold a line's end, and can't be blank. In an event a line's end is white space
        and becomes a blank; in anything else it becomes a NUL, which is no JSON either, so that a
        dead letter stays one.
        """
        if b"\n" in data or b"\r" in data or not data.strip():
            blank = b"\0" if read_entry("", data).event is None else b" "
            data = data.replace(b"\r", blank).replace(b"\n", blank).strip() or b"\0"
        with self._named_errors():
            self._file.write(data + b"\n")

    def _finish(self) -> None:
        with self._named_errors():
            if self._file is not self._raw:
                self._file.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
            self._beside.replace(self._path)

    def _discard(self) -> None:
        for file in (self._file, self._raw):
            with suppress(OSError):
                file.close()
        with suppress(OSError):
            self._beside.unlink(missing_ok=True)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TapeError(
                f"{self._path}: can't be written: {error.strerror or error}; check the folder, "
                "its rights and the room on its disk"
            ) from error


@contextmanager
def write_tape(path: str | Path) -> Iterator[TapeWriter]:
    """Write a tape, compressed as its suffix says.

    It is written beside and renamed into place, synced, when the block ends well; otherwise nothing
    is left, and an older file of that name stays. Equal lines give equal bytes. Raises `TapeError`
    when the file can't be written.
    """
    writer = TapeWriter(Path(path))
    try:
        yield writer
        writer._finish()
    finally:
        writer._discard()


def _compressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    if path.suffix == ".gz":
        # Neither the name nor the time goes into the file: equal tapes have equal bytes.
        return cast(IO[bytes], gzip.GzipFile("", "wb", 6, raw, mtime=0))
    if path.suffix == ".zst":
        return zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
    return raw


def _size(path: Path) -> int:
    """The file's size, by opening it: what can't be read is told before anything is done."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError, where: str = "") -> TapeError:
    return TapeError(
        f"{path}: can't be read{where}: {error.strerror or error}; check its name and rights"
    )
