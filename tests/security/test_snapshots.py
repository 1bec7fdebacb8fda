"""Snapshots as an attacker would have them: nothing is decoded before digest and signature hold."""

import hmac
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256

import orjson
import pytest
import zstandard

from engine.snapshotting import TAPE, take, to_bytes
from snapshots import (
    SnapshotDamaged,
    SnapshotError,
    SnapshotForeign,
    SnapshotIncompatible,
    SnapshotUnsupported,
    freeze,
    pickles,
    read,
)
from snapshots.format import MAGIC, MAX_BYTES
from tests.engine.histories import entries, history, new_core, run
from tests.snapshots.test_format import HEADER, remade, signed
from tests.snapshots.trained import encoded, train, untrained
from tests.snapshots.trees import KEY

_decoded: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    # Python itself reports every name that a pickle looks up.
    if _watching and event == "pickle.find_class":
        _decoded.append(str(arguments[0]))


@pytest.fixture
def unpickled() -> Iterator[list[str]]:
    """The modules that pickles have named since."""
    global _watching
    if not getattr(_watch, "hooked", False):
        sys.addaudithook(_watch)  # there is no taking it back: it sleeps between tests
        _watch.hooked = True  # type: ignore[attr-defined]
    _decoded.clear()
    _watching = True
    yield _decoded
    _watching = False


@pytest.fixture(scope="module")
def whole() -> bytes:
    state = untrained()
    train(state, range(60))
    return encoded({"bayes": state["bayes"], "linear": state["linear"]})


def resigned(data: bytes, key: bytes) -> bytes:
    return signed(data[:-64], key)


TAMPERED: dict[str, tuple[Callable[[bytes], bytes], type[SnapshotError]]] = {
    "cut": (lambda data: data[:-1], SnapshotDamaged),
    "longer": (lambda data: data + b"\0", SnapshotDamaged),
    "a changed digest": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), SnapshotDamaged),
    "a new digest over a changed part": (
        lambda data: (body := data[:-100] + b"x" * 68) + sha256(body).digest(),
        SnapshotForeign,
    ),
    "another's signature": (lambda data: resigned(data, b"x" * 32), SnapshotForeign),
    "no signature": (
        lambda data: (body := data[:-64] + bytes(32)) + sha256(body).digest(),
        SnapshotForeign,
    ),
    "a signature without the magic": (
        lambda data: (
            (body := data[:-64] + hmac.digest(KEY, sha256(data[:-64]).digest(), "sha256"))
            + sha256(body).digest()
        ),
        SnapshotForeign,
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_nothing_is_unpickled_before_digest_and_signature_hold(
    how: str, whole: bytes, unpickled: list[str]
) -> None:
    change, error = TAMPERED[how]
    with pytest.raises(error):
        read(change(whole), KEY)
    assert unpickled == []
    read(whole, KEY)
    assert any(module.startswith("river") for module in unpickled)


def test_nothing_is_unpickled_with_any_one_byte_changed(whole: bytes, unpickled: list[str]) -> None:
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 0x40
        with pytest.raises(SnapshotError):
            read(bytes(changed), KEY)
    assert unpickled == []


def test_nothing_is_unpickled_of_what_was_made_for_something_else(
    whole: bytes, unpickled: list[str]
) -> None:
    with pytest.raises(SnapshotIncompatible):
        read(whole, KEY, config_digest="e" * 64)
    with pytest.raises(SnapshotIncompatible):
        read(whole, KEY, usable=lambda manifest: "no")
    assert unpickled == []


class _Mine:
    """Runs what its pickle names."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


@pytest.mark.parametrize(
    "payload",
    [
        _Mine(__import__, "os"),
        _Mine(eval, "1"),
        _Mine(open, "/etc/passwd"),
        _Mine(getattr, b"", "fromhex"),
        _Mine(sys.setrecursionlimit, 10),
        _Mine(pickle.loads, b"N."),
        _Mine(exec, ""),
        _Mine(type, "X", (), {}),
    ],
)
def test_a_signed_pickle_may_name_nothing_but_what_states_hold(payload: object) -> None:
    with pytest.raises(SnapshotUnsupported):
        read(remade(parts={"objects": pickle.dumps([payload], 4)}), KEY)


def test_a_pickle_that_takes_too_long_is_given_up() -> None:
    data = pickles.dump([list(range(100_000)) for _ in range(3)])
    assert len(pickles.load(data, seconds=60)) == 3
    with pytest.raises(SnapshotUnsupported, match="longer than 0 s"):
        pickles.load(data, seconds=0)


def bomb(stored: bytes, claimed: int) -> bytes:
    """A snapshot that its owner signed, whose document is `stored` and claims to be so long."""
    data = encoded({"a": 1})
    _, version, size, _ = HEADER.unpack_from(data)
    head = orjson.loads(data[HEADER.size : HEADER.size + size])
    parts = data[HEADER.size + size + head["parts"][0]["size"] : -64]
    head["parts"][0] |= {
        "size": len(stored),
        "raw_size": claimed,
        "sha256": sha256(stored).hexdigest(),
    }
    new = orjson.dumps(head)
    total = HEADER.size + len(new) + len(stored) + len(parts) + 64
    return signed(HEADER.pack(MAGIC, version, len(new), total) + new + stored + parts)


@pytest.mark.parametrize("claimed", [10, MAX_BYTES + 1])
def test_a_part_decompresses_to_what_it_says_and_to_no_more_than_may_be(claimed: int) -> None:
    data = bomb(zstandard.compress(bytes(50_000_000), 19), claimed)
    assert len(data) < 20_000
    with pytest.raises(SnapshotDamaged, match=r"size|more than"):
        read(data, KEY)


def test_a_frame_that_lies_about_its_size_is_damage() -> None:
    frame = bytearray(zstandard.compress(bytes(100_000)))
    # The frame's own header says how long it will be.
    at = frame.index(struct.pack("<I", 100_000))
    frame[at : at + 4] = struct.pack("<I", 1_000)
    with pytest.raises(SnapshotDamaged):
        read(bomb(bytes(frame), 1_000), KEY)


def test_a_deep_document_is_an_error_and_no_crash() -> None:
    for depth in (900, 100_000):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        document = b'{"arrays":[],"tree":' + nested + b"}"
        with pytest.raises(SnapshotUnsupported):
            read(remade(parts={"document": document}), KEY)
    loop: dict[str, object] = {}
    loop["self"] = loop
    with pytest.raises(SnapshotUnsupported, match="deeper"):
        freeze(loop)


def test_no_secret_of_the_core_is_part_of_its_state() -> None:
    core = new_core(control_key=b"hush-control-key")
    run(core, entries(*history(20)))
    data = to_bytes(take(core, TAPE, None), b"hush-snapshot-key")
    assert b"hush" not in data
    snapshot = read(data, b"hush-snapshot-key")
    assert "hush" not in repr(snapshot.tree)
