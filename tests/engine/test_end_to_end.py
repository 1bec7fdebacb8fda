"""The real processes on a real server: a worker killed again and again ends where replay does."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import orjson
import pytest
import redis

from streams import Decision, Keys, encode
from streams.events import decode_output
from tests.engine.histories import history

CLOSELOOP = [sys.executable, "-c", "from engine.cli import main; main()"]
SETTINGS = """
[worker]
batch = 64
lease_ms = 300

[snapshots]
directory = "snapshots"
every = 250

[http]
enabled = false

[core.refit]
every = 100
lag = 20
window = 400
holdout = 80

[core.experts.base_rate]
kind = "base_rate"

[core.experts.logistic]
kind = "logistic"
"""
DEADLINE_S = 60


def in_a_process(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [*CLOSELOOP, *arguments], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def server(redis_server: str) -> Iterator[str]:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    yield redis_server


def test_a_worker_killed_five_times_publishes_what_a_replay_decides(tmp_path, server, closeloop):
    events = history(300)
    tape = tmp_path / "tape.jsonl"
    tape.write_bytes(b"\n".join(encode(event) for event in events) + b"\n")
    (tmp_path / "closeloop.toml").write_text(SETTINGS)
    in_a_process(tmp_path, "replay", "tape.jsonl", "--json", "replayed.json")
    replayed = orjson.loads((tmp_path / "replayed.json").read_bytes())
    assert replayed["decisions"] == 300

    assert closeloop("publish", "tape.jsonl", "--address", server).status == 0
    with redis.Redis.from_url(server) as client:
        keys = Keys()
        for kill in range(1, 6):
            until = kill * len(events) // 6
            with subprocess.Popen(
                [*CLOSELOOP, "run", "--until-idle", "--address", server],
                cwd=tmp_path,
                stderr=subprocess.DEVNULL,
            ) as worker:
                deadline = monotonic() + DEADLINE_S
                while int(client.hget(keys.checkpoint, "entries") or 0) < until:
                    assert monotonic() < deadline
                    assert worker.poll() is None
                    sleep(0.002)
                worker.send_signal(signal.SIGKILL)
        in_a_process(tmp_path, "run", "--until-idle", "--address", server)
        status = closeloop("status", "--json", "--address", server).json
        decisions = [
            decode_output(Decision, fields[b"e"]) for _, fields in client.xrange(keys.decisions)
        ]

    assert status["state_is_current"]
    assert status["decisions_digest"] == replayed["decisions_digest"]
    assert status["state_digest"] == replayed["state_digest"]
    asked = [event.signal_id for event in events if event.type == "signal"]
    assert [decision.signal_id for decision in decisions] == asked


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (["run", "--address", "redis://127.0.0.1:1"], 3, "embedded://DIR"),
        (["run", "--address", "carrier-pigeon://home"], 2, "redis://"),
        (["run", "--config", "nowhere.toml"], 2, "closeloop init"),
        (["replay", "nowhere.jsonl"], 4, "nowhere.jsonl"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_a_status(tmp_path, arguments, status, hint):
    done = subprocess.run(
        [*CLOSELOOP, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == status
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("closeloop: ")]
    assert hint in line
    assert "Traceback" not in done.stderr
