"""The benches as commands, on a tape of a few hundred events, and the machine they name."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench import growth
from bench.machine import cpu_seconds, machine, resident_bytes
from bench.replay import ECHOES
from bench.results import run
from tests.bench.short_tapes import short_tape

BENCH = Path(__file__).parents[2] / "bench"
DEADLINE_S = 120


def bench(folder: Path, name: str, *arguments: str) -> tuple[dict[str, object], str]:
    """The figures and the tables of a bench."""
    out = folder / "figures.json"
    done = subprocess.run(
        [sys.executable, BENCH / f"{name}.py", *arguments, "--json", out],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = orjson.loads(out.read_bytes())
    assert figures["bench"] == name
    assert figures["machine"]["cpus"] >= 1
    return figures, done.stdout


def test_the_replay_bench_holds_the_engine_against_the_plain_loop_and_the_echo(tmp_path):
    tape = str(short_tape(tmp_path, 150))
    options = ["--peer-events", "200", "--rounds", "1", "--no-refits", "--echo"]
    figures, tables = bench(tmp_path, "replay", tape, *options)
    assert figures["engine"]["events"] == 300
    assert figures["engine"]["events_per_s"] > 0
    plain = figures["plain_loop"]
    assert plain["events"] == 200
    assert plain["ratio_on_the_same_events"] > 0
    assert plain["log_loss"] > 0 and plain["engine_log_loss"] > 0
    shares = [stage["share"] for stage in figures["where"]["stages"]]
    assert abs(sum(shares) - 1.0) < 1e-9
    assert figures["where"]["not_found"] == []
    assert all(figures["echo"][name]["core_of_it"] > 0 for name in ECHOES)
    assert "where the time goes" in tables


def test_what_goes_wrong_is_told_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["growth.py", "nowhere.jsonl"])
    with pytest.raises(SystemExit) as ended:
        run(growth.main)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere.jsonl" in line


def test_the_machine_is_named():
    found = machine()
    assert found["python"].startswith("3.")
    assert found["versions"]["river"]
    assert resident_bytes(os.getpid()) > 10_000_000
    assert cpu_seconds(os.getpid()) > 0.0
