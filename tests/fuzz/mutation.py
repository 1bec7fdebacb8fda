"""Valid bytes to begin with, and seeded ways to break them."""

import gzip
import random
from collections.abc import Callable

import numpy as np
import orjson
import zstandard

from snapshots import freeze
from streams import Alert, Decision, Outcome, SnapshotNotice, dead, encode
from tests.engine.histories import at, close, entries, new_core, run, signal
from tests.snapshots.trained import encoded, train, untrained

_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"NaN", b"1e999", b"-0", b"\\u0000",
    b"\\ud800", b"\xef\xbb\xbf", b"\xff", b"\0", b'"type":"close"', b'"meta":{}', b"9" * 25,
    b"$array", b"$object", b"$dict", b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00Z",
)  # fmt: skip


def corpus() -> dict[str, list[bytes]]:
    """Valid bytes for each target."""
    events = [
        encode(signal("a", strategy="s", price=1.5, baseline="take", v=1, meta={"n": [1, "x"]})),
        encode(signal("b", features={"rsi": 1, "on": True, "session": "London", "gap": None})),
        encode(close("a", exit_reason="stop", executed=False, profit=-1.0, hold_minutes=5)),
        orjson.dumps(
            {"type": "control", "command": "refit", "ts": "2026-01-05T09:30:00Z", "by": "ann"}
            | {"reason": "why", "sig": "0" * 64, "args": {"x": 1}}
        ),
    ]  # fmt: skip
    made = run(new_core(), entries(signal("a"), close("a"), b"bad"))
    outputs = [encode(output) for output in made]
    assert {type(output) for output in made} >= {Decision, Outcome}
    outputs += [
        encode(dead("events", "1-1", "invalid", "why", b"\xff")),
        encode(Alert(ts=at(0), severity="info", code="x", subject="y", message="z")),
        encode(
            SnapshotNotice(
                snapshot_id="x", position="1-1", events=1, file_digest="0", state_digest="0",
                decisions_digest="0",
            )
        ),
    ]  # fmt: skip
    state = untrained()
    train(state, range(20))
    snapshots = [
        encoded({"a": 1, "b": [1.5, None, float("nan"), b"x", at(0), 2**70, {"$array": 1}]}),
        encoded({"bayes": state["bayes"], "linear": state["linear"]}),
    ]
    bayes = freeze({"a": [1.5, {"$x": 1}], "bayes": state["bayes"], "n": np.arange(3)})
    tables = [["<i8", [3]]]
    tape = b"\n".join(events) + b"\n"
    return {
        "input_event": events,
        "output_event": outputs,
        "snapshot": snapshots,
        "signed_snapshot": snapshots,
        "snapshot_document": [
            orjson.dumps({"arrays": [], "tree": {"a": {"$float": "0" * 16}, "b": {"$int": "0x1"}}}),
            orjson.dumps({"arrays": tables, "tree": bayes.document}),
        ],
        "snapshot_pickle": [bayes.objects, freeze({"x": {1, 2}}).objects],
        "plain_tape": [tape, b""],
        "gzip_tape": [gzip.compress(tape, mtime=0)],
        "zstd_tape": [zstandard.compress(tape), zstandard.compress(tape) + zstandard.compress(b"")],
    }


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """One of `seeds`, broken in one to four places."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_WAYS)(rng, data, seeds)
    return bytes(data)


def _place(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(len(data) + 1)


def _flip(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    del data[_place(rng, data) :]


def _drop(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    start = _place(rng, data)
    del data[start : start + rng.choice((1, 4, 30))]


def _double(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    start = _place(rng, data)
    part = data[start : start + rng.choice((1, 10, 100))]
    data[start:start] = part * rng.choice((1, 2, 50))


def _insert(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    start = _place(rng, data)
    data[start:start] = rng.choice(_TOKENS) * rng.choice((1, 1, 1, 300))


def _splice(rng: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    other = rng.choice(seeds)
    data[_place(rng, data) :] = other[rng.randrange(len(other) + 1) :]


_WAYS: tuple[Callable[[random.Random, bytearray, list[bytes]], None], ...] = (
    _flip, _set, _cut, _drop, _double, _insert, _splice,
)  # fmt: skip
