"""The long form, cut short: it runs, counts its cases and says that it found nothing."""

import subprocess
import sys
from pathlib import Path

import orjson

FUZZ = Path(__file__).parents[2] / "bench" / "fuzz.py"


def test_the_long_form_counts_what_it_did_and_ends_with_0_when_nothing_was_found(
    tmp_path: Path,
) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, FUZZ, "--cases", "200", "--hostile", "100", "--json", out],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout
    figures = orjson.loads(out.read_bytes())
    assert figures["found"] == 0
    assert {name: part["cases"] >= 100 for name, part in figures["parts"].items()} == {
        "hostile events": True,
        "decoders": True,
        "core": True,
    }
