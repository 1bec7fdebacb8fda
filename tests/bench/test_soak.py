"""The soak bench: a short run whole, and what it would say if something grew."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from bench.footprint import footprint
from bench.soak import FLAT, Sample, Scale, broken

SOAK = Path(__file__).parents[2] / "bench" / "soak.py"
EVENTS = 3_000
STEADY = Sample(300.0, 140.0, 21.0, 9.0, 30.0, 20_000, 20_000)
SCALE = Scale(1_000_000)
HOLDER = """
import subprocess, sys, threading
waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
child = subprocess.Popen(waiting, stdin=subprocess.PIPE)
print("there", flush=True)
held = []
for line in sys.stdin:
    if line == "memory\\n":
        held.append(bytearray(b"x" * 20_000_000))
    elif line == "file\\n":
        held.append(open(sys.executable, "rb"))
    elif line == "thread\\n":
        held.append(threading.Thread(target=threading.Event().wait, daemon=True))
        held[-1].start()
    elif line == "child\\n":
        child.communicate()
    print("done", flush=True)
"""


def test_a_short_run_sees_everything_and_says_whether_it_holds(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, SOAK, "--events", str(EVENTS), "--json", out],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    figures = orjson.loads(out.read_bytes())
    assert done.returncode == (0 if figures["holds"] else 1), done.stdout + done.stderr
    tenths = figures["tenths"]
    assert len(tenths) == 10
    assert all(tenth["resident_mb"] > 50 < tenth["children_mb"] for tenth in tenths)
    assert all(tenth["server_mb"] > 1 for tenth in tenths)
    # Streams fill up to their bounds, and no further.
    assert max(tenth["output"] for tenth in tenths) >= 1_000
    assert max(tenth["input"] for tenth in tenths) > 500
    # So short a run has not filled everything else, but nothing runs away.
    assert set(figures["last_over_second"]) >= {"resident_mb", "children_mb", "server_mb"}
    if sys.platform == "linux":
        assert tenths[-1]["files"] > 10
        assert tenths[-1]["threads"] > 5
        assert figures["last_over_second"]["files"] < 1.2
        assert figures["last_over_second"]["threads"] < 1.2
    assert figures["last_over_second"]["resident_mb"] < 1.2
    assert not [fault for fault in figures["broken"] if "entries" in fault]


@pytest.mark.parametrize("name", FLAT)
def test_what_grows_by_more_than_a_twentieth_breaks_the_run(name: str) -> None:
    start = replace(STEADY, **{name: getattr(STEADY, name) / 2})
    little, much = (
        [start, *[STEADY] * 8, replace(STEADY, **{name: factor * getattr(STEADY, name)})]
        for factor in (1.049, 1.051)
    )
    assert broken(little, SCALE) == []
    (fault,) = broken(much, SCALE)
    assert fault.startswith(f"{name} grew to 1.051 times")


@pytest.mark.parametrize("name", ["input", "output"])
def test_a_stream_longer_than_its_bound_breaks_the_run_in_any_tenth(name: str) -> None:
    for at in range(10):
        tenths = [STEADY] * 10
        tenths[at] = replace(STEADY, **{name: 44_001})
        (fault,) = broken(tenths, SCALE)
        assert fault.startswith(f"the {name} had 44,001 entries")


def test_where_files_and_threads_are_not_known_the_rest_is_judged() -> None:
    unknown = replace(STEADY, files=None, threads=None)
    assert broken([unknown] * 10, SCALE) == []
    assert len(broken([*[unknown] * 9, replace(unknown, server_mb=40.0)], SCALE)) == 1


def test_a_million_events_run_on_the_cores_own_windows() -> None:
    settings = SCALE.settings()
    assert settings["CORE__REFIT__WINDOW"] == 8_000
    assert settings["CORE__REFIT__EVERY"] == 500
    assert settings["CORE__REFIT__LAG"] == 400
    assert settings["CORE__REFIT__HOLDOUT"] == 500
    assert settings["CORE__LEDGER__REMEMBER"] == 50_000
    assert SCALE.retain == 20_000


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process with a child, that holds more of what it is told."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        try:
            yield process
        finally:
            process.kill()


def tell(holder: subprocess.Popen[str], what: str) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(f"{what}\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "done\n"


def test_memory_files_threads_and_children_are_seen_from_outside(
    holder: subprocess.Popen[str],
) -> None:
    before = footprint(holder.pid)
    assert before.children_resident > 1_000_000
    tell(holder, "memory")
    grown = footprint(holder.pid)
    assert 19_000_000 < grown.resident - before.resident < 25_000_000
    if sys.platform == "linux":
        assert before.files is not None
        assert before.threads is not None
        tell(holder, "file")
        assert footprint(holder.pid).files == before.files + 1
        tell(holder, "thread")
        assert footprint(holder.pid).threads == before.threads + 1
    tell(holder, "child")
    assert footprint(holder.pid).children_resident == 0
