"""The README is true: its bot is served by its worker."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
DEADLINE_S = 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def test_the_readmes_bot_gets_a_decision_from_the_readmes_worker(tmp_path):
    (bot,) = blocks("python")
    (run,) = [block for block in blocks("sh") if block.startswith("closeloop run")]
    program, *arguments = shlex.split(run)
    assert program == "closeloop"
    worker = subprocess.Popen(
        [sys.executable, "-c", "from engine.cli import main; main()", *arguments],
        cwd=tmp_path,
        env={"CLOSELOOP_HTTP__PORT": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stderr is not None
        while "recovered" not in (line := worker.stderr.readline()):
            assert line, "the worker ended before it was ready"
        done = subprocess.run(
            [sys.executable, "-c", bot],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.stderr == ""
        assert "warming_up" in done.stdout
    finally:
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=DEADLINE_S)
    assert worker.returncode == 0
    assert '"outcomes": 1' in log
