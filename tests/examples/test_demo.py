"""The demo: the whole loop as real processes, and nothing left behind however it ends."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
DEADLINE_S = 120


class Demo:
    """The demo under way in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            [sys.executable, DEMO, "--bars", "hourly", "--keep", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def worker(self) -> int:
        """The worker's process, once it owns the shard; it says so in its log."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            log = self._folder / "worker.log"
            said = re.search(r'lease_acquired.*"owner": "[^:]+:(\d+):', _text(log))
            if said:
                return int(said[1])
            time.sleep(0.02)
        raise AssertionError(f"no worker came up: {_text(self._folder / 'worker.log')}")

    def end(self) -> tuple[int, str]:
        """Wait for the demo's end: its status, and what it said."""
        said, _ = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said

    def server_is_gone(self) -> bool:
        """Whether the folder's server has ended: it holds this lock while it lives."""
        with (self._folder / "server" / "server.lock").open("ab") as alive:
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    started = Demo(tmp_path / "demo")
    yield started
    if started.process.poll() is None:
        started.process.terminate()
        started.process.wait()


def test_every_signal_gets_its_decision_and_all_processes_end(demo):
    worker = demo.worker()
    status, said = demo.end()
    assert status == 0, said
    assert re.search(r"decisions +│ 2,244: ", said)
    assert re.search(r"dead letters +│ 0 ", said)
    assert "base rate" in said
    assert not _is_running(worker)
    assert demo.server_is_gone()


def test_a_worker_that_dies_fails_the_demo_which_says_so(demo):
    os.kill(demo.worker(), signal.SIGKILL)
    status, said = demo.end()
    assert status == 1, said
    assert "the worker ended with status -9" in said
    assert demo.server_is_gone()


def test_interrupted_again_and_again_it_ends_its_processes_first(demo):
    worker = demo.worker()
    deadline = time.monotonic() + DEADLINE_S
    while demo.process.poll() is None and time.monotonic() < deadline:
        demo.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    status, said = demo.end()
    assert status == 128 + signal.SIGINT, said
    assert "Traceback" not in said
    assert not _is_running(worker)
    assert demo.server_is_gone()


def test_a_folder_in_use_is_left_alone(tmp_path):
    status, said = Demo(tmp_path).end()
    assert status == 1
    assert said.startswith("demo: ")
    assert list(tmp_path.iterdir()) == []
