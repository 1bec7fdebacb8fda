"""Short tapes for the benches' tests."""

from pathlib import Path

from bench.tapes import generated
from streams import encode, write_tape


def short_tape(folder: Path, signals: int) -> Path:
    path = folder / "short.jsonl"
    with write_tape(path) as tape:
        for event in generated(signals):
            tape.write(encode(event))
    return path
