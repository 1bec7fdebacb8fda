import hmac
import struct
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType

import numpy as np
import orjson
import pytest
import zstandard

from snapshots import (
    Manifest,
    SnapshotDamaged,
    SnapshotForeign,
    SnapshotIncompatible,
    SnapshotUnsupported,
    read,
    verify,
)
from snapshots.format import MAGIC
from tests.snapshots.trained import encoded
from tests.snapshots.trees import KEY

TREE: dict[str, object] = {"array": np.arange(3), "object": {1}, "list": [1.5, None]}
HEADER = struct.Struct("<8sIIQ")


def signed(body: bytes, key: bytes = KEY) -> bytes:
    """`body` as its owner would sign it, whatever it says."""
    body_digest = sha256(body).digest()
    signature = hmac.digest(key, MAGIC + body_digest, "sha256")
    return body + signature + sha256(body + signature).digest()


def remade(
    version: int = 1,
    manifest: dict[str, object] | None = None,
    parts: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """A snapshot that its owner signed, with changes that `encode` would never make."""
    data = encoded(TREE)
    _, _, size, _ = HEADER.unpack_from(data)
    head = orjson.loads(data[HEADER.size : HEADER.size + size])
    stored = b""
    start = HEADER.size + size
    for part in head["parts"]:
        old = data[start : start + part["size"]]
        start += part["size"]
        if part["name"] in parts:
            raw = parts[part["name"]]
            old = zstandard.compress(raw)
            part.update(size=len(old), raw_size=len(raw), sha256=sha256(old).hexdigest())
        stored += old
    new = orjson.dumps({**head, **(manifest or {})})
    total = HEADER.size + len(new) + len(stored) + 64
    return signed(HEADER.pack(MAGIC, version, len(new), total) + new + stored)


def test_the_same_state_has_the_same_bytes() -> None:
    assert encoded(TREE) == encoded(dict(TREE)) == remade()


def test_a_snapshot_says_what_it_is_of() -> None:
    snapshot = read(encoded(TREE), KEY)
    manifest = snapshot.manifest
    assert manifest == verify(encoded(TREE), KEY)
    assert (manifest.position, manifest.events, manifest.lineage) == ("1-0", 500, "one")
    assert set(manifest.libraries) == {"closeloop", "lightgbm", "numpy", "python", "river"}
    assert snapshot.file_digest == sha256(encoded(TREE)[:-32]).hexdigest()


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_a_change_of_any_byte_is_damage_and_nothing_is_decoded(change: int) -> None:
    data = encoded(TREE)
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= change
        with pytest.raises(SnapshotDamaged, match=r"^the-file"):
            read(bytes(flipped), KEY, name="the-file")


def test_a_cut_at_any_byte_is_damage() -> None:
    data = encoded(TREE)
    for size in range(len(data)):
        with pytest.raises(SnapshotDamaged, match=r"^the-file"):
            read(data[:size], KEY, name="the-file")


@pytest.mark.parametrize("trailing", [b"\0", b"\n", b"x" * 1000])
def test_bytes_left_over_are_damage(trailing: bytes) -> None:
    with pytest.raises(SnapshotDamaged, match="were written"):
        read(encoded(TREE) + trailing, KEY)


def test_bytes_put_in_with_a_fresh_digest_but_no_signature_are_foreign() -> None:
    data = bytearray(encoded(TREE)[:-32])
    data[100] ^= 1
    with pytest.raises(SnapshotForeign, match="another key"):
        read(bytes(data) + sha256(data).digest(), KEY)


def test_another_key_makes_it_foreign() -> None:
    with pytest.raises(SnapshotForeign, match="another key"):
        read(encoded(TREE), b"x" * 32)


@pytest.mark.parametrize("key", [b"", b"short"])
def test_a_key_that_could_be_guessed_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        read(encoded(TREE), key)


def test_a_pickle_is_never_loaded_before_digest_and_signature_hold(
    capfd: pytest.CaptureFixture[str],
) -> None:
    exploit = b"\x80\x04\x8c\x08builtins\x8c\x05print\x93\x8c\x03ran\x85R."
    data = remade(parts={"objects": exploit})
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    for bad, error in (
        (damaged, SnapshotDamaged),
        (signed(data[:-64], b"x" * 32), SnapshotForeign),
        (data, SnapshotUnsupported),
    ):
        with pytest.raises(error):
            read(bad, KEY)
    assert capfd.readouterr().out == ""


def test_another_format_is_incompatible() -> None:
    with pytest.raises(SnapshotIncompatible, match="format 2, and this version reads 1"):
        read(remade(version=2), KEY)


def test_another_library_is_incompatible_and_named() -> None:
    libraries = {**read(encoded(TREE), KEY).manifest.libraries, "river": "0.1", "python": "2.7"}
    with pytest.raises(SnapshotIncompatible, match=r"python 2\.7 there .*; river 0\.1 there"):
        read(remade(manifest={"libraries": libraries}), KEY)


def test_another_config_is_incompatible_and_named() -> None:
    assert read(encoded(TREE), KEY, config_digest="c" * 64).tree
    with pytest.raises(SnapshotIncompatible, match="config cccccccccccc there and eeeeeeeeeeee"):
        read(encoded(TREE), KEY, config_digest="e" * 64)


def test_what_the_caller_cannot_use_is_incompatible_with_the_callers_reason() -> None:
    def usable(manifest: Manifest) -> str | None:
        return f"{manifest.position} was trimmed"

    with pytest.raises(SnapshotIncompatible, match="1-0 was trimmed"):
        read(remade(parts={"objects": b"never loaded"}), KEY, usable=usable)


@pytest.mark.parametrize(
    "parts",
    [
        {"document": b"{"},
        {"document": b"[" * 5000},
        {"document": b'{"arrays":[],"tree":[]}'},
        {"document": b'{"tree":{}}'},
        {"document": b'{"arrays":[],"tree":{"a":{"$object":7}}}', "arrays": b""},
        {"document": b'{"arrays":[],"tree":{"a":{"$array":"x"}}}', "arrays": b""},
        {"document": b'{"arrays":[],"tree":{"a":{"$float":"00"}}}', "arrays": b""},
        {"document": b'{"arrays":[["<f8",[9]]],"tree":{}}', "arrays": b"x"},
        {"document": b'{"arrays":[["<f8",[-1]]],"tree":{}}', "arrays": b"x" * 8},
        {"document": b'{"arrays":[["<f8",[1099511627776,1099511627776]]],"tree":{}}'},
        {"document": b'{"arrays":[["O",[1]]],"tree":{}}', "arrays": b"x" * 8},
        {"arrays": b"left over" * 9},
        {"objects": b"\x80\x04N."},
        {"objects": b"garbage"},
    ],
)
def test_nonsense_that_is_signed_is_an_error_too(parts: dict[str, bytes]) -> None:
    with pytest.raises(SnapshotUnsupported, match="is signed, but"):
        read(remade(parts=parts), KEY)


@pytest.mark.parametrize(
    "manifest",
    [{"parts": []}, {"events": -1}, {"unknown": 1}, {"lineage": None}],
)
def test_a_signed_manifest_that_is_none_is_damage(manifest: dict[str, object]) -> None:
    with pytest.raises(SnapshotDamaged):
        read(remade(manifest=manifest), KEY)


def test_a_part_that_would_fill_the_memory_is_not_decompressed() -> None:
    parts = [part.model_dump() for part in read(encoded(TREE), KEY).manifest.parts]
    parts[0]["raw_size"] = 1 << 40
    with pytest.raises(SnapshotDamaged, match="more than"):
        read(remade(manifest={"parts": parts}), KEY)
    parts[0]["raw_size"] = 1
    with pytest.raises(SnapshotDamaged, match="its size"):
        read(remade(manifest={"parts": parts}), KEY)
