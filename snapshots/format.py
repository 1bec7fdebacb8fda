"""The file format: one file, every byte covered by a SHA-256, signed with a keyed HMAC.

| bytes | what |
|---|---|
| 8 | magic ``clsnap\\r\\n`` |
| 4 | format version |
| 4 | size of the manifest |
| 8 | size of the whole file |
| … | manifest, JSON |
| … | the parts, each a zstd frame: the document (JSON), the arrays, the objects (a pickle) |
| 32 | HMAC-SHA256 by the key over the magic and the SHA-256 of all bytes before |
| 32 | SHA-256 of all bytes before |

Integers are unsigned and little-endian. The document begins with a table of the arrays (dtype and
shape), whose items lie one after another in C order. Reading goes from outside in, and nothing is
decoded before the digest and then the signature over it hold: sizes and magic, digest, signature,
version, manifest, document and arrays, and at the very last the pickle through its allow-list.
"""

import hmac
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import SEEK_END
from typing import BinaryIO, NamedTuple

import numpy as np
import orjson
import zstandard
from pydantic import JsonValue, ValidationError

from snapshots import pickles
from snapshots.canonical import state_digest
from snapshots.errors import (
    SnapshotDamaged,
    SnapshotForeign,
    SnapshotIncompatible,
    SnapshotUnsupported,
)
from snapshots.frozen import Array, Frozen, thaw, tree_of
from snapshots.manifest import FORMAT, Manifest, Part, PartName, libraries, require_compatible

MAGIC = b"clsnap\r\n"
MAX_BYTES = 1 << 30
"""Of a file, and of its parts decompressed."""
MAX_MANIFEST_BYTES = 1 << 20
MAX_SECONDS = 60.0
"""How long the pickle may take to load. All else takes a time that its size bounds."""
MIN_KEY_BYTES = 16

_ORDER: tuple[PartName, ...] = ("document", "arrays", "objects")
_HEADER = struct.Struct("<8sIIQ")
_SHA256_BYTES = 32
_TRAILER_BYTES = 2 * _SHA256_BYTES
_LEVEL = 3

Usable = Callable[[Manifest], str | None]
"""Why a snapshot, whole and ours, is of no use to the caller; None when it is."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that was read, whole and verified.

    Parameters
    ----------
    name
        What it was read from.
    file_digest
        The SHA-256 that its file ends with, hex.
    manifest
        Verified too.
    tree
        The state, the caller's own: its arrays may be written to.
    """

    name: str
    file_digest: str
    manifest: Manifest
    tree: dict[str, object]


class Head(NamedTuple):
    """What the first and last bytes of a file claim, unverified."""

    manifest: Manifest
    file_digest: str


def encode(
    frozen: Frozen,
    key: bytes,
    *,
    created: str,
    config_digest: str,
    lineage: str,
    position: str | None,
    events: int,
    decisions_digest: str,
    metrics: dict[str, JsonValue] | None = None,
) -> bytes:
    """`frozen` as the bytes of a file, signed with `key`. May run in any thread.

    The keywords are the fields of `Manifest`. Before anything is written, the pickle is loaded once
    as a reader would, for the state's digest: raises `SnapshotUnsupported` for a state that could
    be written but not read again.
    """
    _require_key(key)
    table = [[array.dtype.str, array.shape] for array in frozen.arrays]
    try:
        document = orjson.dumps({"arrays": table, "tree": frozen.document})
    except TypeError as error:
        raise SnapshotUnsupported(f"a state can't be written as JSON: {error}") from error
    compressor = zstandard.ZstdCompressor(_LEVEL)
    raw = (document, b"".join(map(_bytes_of, frozen.arrays)), frozen.objects)
    stored = [compressor.compress(part) for part in raw]
    manifest = Manifest(
        format=FORMAT,
        created=created,
        libraries=libraries(),
        config_digest=config_digest,
        lineage=lineage,
        position=position,
        events=events,
        state_digest=state_digest(thaw(frozen)),
        decisions_digest=decisions_digest,
        metrics=metrics or {},
        parts=tuple(
            Part(name=name, size=len(s), raw_size=len(r), sha256=sha256(s).hexdigest())
            for name, s, r in zip(_ORDER, stored, raw, strict=True)
        ),
    )
    head = manifest.model_dump_json().encode()
    size = _HEADER.size + len(head) + sum(map(len, stored)) + _TRAILER_BYTES
    if size > MAX_BYTES or sum(map(len, raw)) > MAX_BYTES or len(head) > MAX_MANIFEST_BYTES:
        raise SnapshotUnsupported(
            f"a state of {sum(map(len, raw))} bytes with a manifest of {len(head)}; at most "
            f"{MAX_BYTES} and {MAX_MANIFEST_BYTES} are read again. Bound the experts' memory"
        )
    body = b"".join((_HEADER.pack(MAGIC, FORMAT, len(head), size), head, *stored))
    covered = sha256(body)
    signature = _sign(key, covered.digest())
    covered.update(signature)
    return b"".join((body, signature, covered.digest()))


def read(
    data: bytes,
    key: bytes,
    *,
    name: str = "snapshot",
    config_digest: str | None = None,
    usable: Usable | None = None,
) -> Snapshot:
    """The snapshot in `data`, the bytes of a whole file; `name` is for messages.

    Raises
    ------
    SnapshotDamaged
        Bytes are missing, changed or left over.
    SnapshotForeign
        It was signed with another key.
    SnapshotIncompatible
        Another format, library, or config than `config_digest`, or `usable` said why not. The
        manifest it sees is verified, and nothing beyond it has been decoded yet.
    SnapshotUnsupported
        Its signer put something into it that a snapshot may not hold.
    """
    manifest = verify(data, key, name=name)
    require_compatible(manifest, name, config_digest)
    if usable is not None and (reason := usable(manifest)) is not None:
        raise SnapshotIncompatible(f"{name}: {reason}")
    document, arrays, objects = _parts(data, manifest, name)
    try:
        table = orjson.loads(document)
        loaded = pickles.load(objects, MAX_SECONDS)
        tree = tree_of(table["tree"], _arrays(table["arrays"], arrays), loaded)
    except (SnapshotUnsupported, LookupError, TypeError, ValueError) as error:
        raise SnapshotUnsupported(f"{name} is signed, but {error}") from error
    return Snapshot(name, data[-_SHA256_BYTES:].hex(), manifest, tree)


def verify(data: bytes, key: bytes, *, name: str = "snapshot") -> Manifest:
    """The manifest of `data`, once every byte is proven to be what the key's owner wrote.

    Raises `SnapshotDamaged`, `SnapshotForeign` or, for another format, `SnapshotIncompatible`.
    """
    _require_key(key)
    version, manifest_size = _header(data, len(data), name)
    view = memoryview(data)
    covered = sha256(view[:-_TRAILER_BYTES])
    expected = _sign(key, covered.digest())
    signature = data[-_TRAILER_BYTES:-_SHA256_BYTES]
    covered.update(signature)
    if covered.digest() != data[-_SHA256_BYTES:]:
        raise SnapshotDamaged(f"{name} doesn't have its SHA-256: bytes were changed")
    if not hmac.compare_digest(signature, expected):
        raise SnapshotForeign(f"{name} is signed with another key; use the key it was made with")
    return _manifest(view[_HEADER.size : _HEADER.size + manifest_size], version, name)


def peek(file: BinaryIO, name: str) -> Head:
    """What a file claims to be, cheaply and unverified: to list it, never to load it.

    Raises `SnapshotDamaged` or `SnapshotIncompatible` when it doesn't even claim anything.
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    start = file.read(_HEADER.size)
    version, manifest_size = _header(start, size, name)
    manifest = _manifest(file.read(min(manifest_size, MAX_MANIFEST_BYTES)), version, name)
    file.seek(-_SHA256_BYTES, SEEK_END)
    return Head(manifest, file.read().hex())


def _header(start: bytes | memoryview, size: int, name: str) -> tuple[int, int]:
    """Format version and size of the manifest, if a file of `size` bytes can begin with `start`."""
    if size > MAX_BYTES:
        raise SnapshotDamaged(f"{name} has {size} bytes; at most {MAX_BYTES} are read")
    if size < _HEADER.size + _TRAILER_BYTES:
        raise SnapshotDamaged(f"{name} has {size} bytes: it was cut off")
    magic, version, manifest_size, written = _HEADER.unpack_from(start)
    if magic != MAGIC:
        raise SnapshotDamaged(f"{name} doesn't begin like a snapshot")
    if size != written:
        raise SnapshotDamaged(f"{name} has {size} bytes; {written} were written")
    return version, manifest_size


def _manifest(data: bytes | memoryview, version: int, name: str) -> Manifest:
    if version != FORMAT:
        raise SnapshotIncompatible(
            f"{name} has format {version}, and this version reads {FORMAT}; rebuild by replaying"
        )
    try:
        return Manifest.model_validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SnapshotDamaged(f"{name}'s manifest is none: {first['msg']}") from None


def _parts(data: bytes, manifest: Manifest, name: str) -> list[bytes]:
    """The decompressed parts, in their order."""
    if tuple(part.name for part in manifest.parts) != _ORDER:
        raise SnapshotDamaged(f"{name}'s parts are not {', '.join(_ORDER)}")
    if sum(part.raw_size for part in manifest.parts) > MAX_BYTES:
        raise SnapshotDamaged(f"{name} decompresses to more than {MAX_BYTES} bytes")
    end = len(data) - _TRAILER_BYTES
    start = end - sum(part.size for part in manifest.parts)
    parts = []
    for part in manifest.parts:
        stored = memoryview(data)[start : start + part.size]
        start += part.size
        try:
            if sha256(stored).hexdigest() != part.sha256:
                raise SnapshotDamaged(f"{name}'s part {part.name} doesn't have its SHA-256")
            if zstandard.frame_content_size(stored) != part.raw_size:
                raise SnapshotDamaged(f"{name}'s part {part.name} doesn't have its size")
            parts.append(zstandard.ZstdDecompressor().decompress(stored))
        except zstandard.ZstdError as error:
            raise SnapshotDamaged(f"{name}'s part {part.name}: {error}") from error
    return parts


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _arrays(table: list[tuple[str, list[int]]], data: bytes) -> list[Array]:
    """The arrays that `table` lists, as writable copies. Raises `ValueError` if they don't fit."""
    arrays: list[Array] = []
    offset = 0
    for name, shape in table:
        dtype = np.dtype(name)
        if dtype.hasobject:
            raise ValueError(f"an array of dtype {name} holds objects")
        size = math.prod(shape) * dtype.itemsize
        array: Array = np.empty(shape, dtype)
        _bytes_of(array)[:] = data[offset : offset + size]
        arrays.append(array)
        offset += size
    if offset != len(data):
        raise ValueError(f"its arrays take {offset} bytes of {len(data)}")
    return arrays


def _sign(key: bytes, body_digest: bytes) -> bytes:
    return hmac.digest(key, MAGIC + body_digest, "sha256")


def _require_key(key: bytes) -> None:
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes; at least {MIN_KEY_BYTES} are needed")
