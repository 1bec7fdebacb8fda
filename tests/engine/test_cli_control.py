"""`closeloop control`: every command there is, what it sends, and what the engine makes of it."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
import redis
import structlog
import typer

from engine.bootstrap import keys_of, new_worker
from engine.cli import app, control
from engine.cli.control import OPERATORS
from engine.commands import COMMANDS
from engine.config import Config, SnapshotConfig, StreamConfig, WorkerConfig
from engine.controls import Controls
from engine.metrics import Metrics
from engine.view import write_view
from streams import START, Control, connect, decode
from tests.engine.conftest import Command
from tests.engine.histories import QUICK

KEY = "a control key of a fair length"
GIVEN: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "refit": (("--full", "--force"), {"full": True, "force": True}),
    "mode": (("canary", "--percent", "10"), {"mode": "canary", "percent": 10.0}),
    "install": (("refit-60", "--force"), {"model": "refit-60", "force": True}),
    "rollback": (("refit-60",), {"model": "refit-60"}),
    "pin": (("refit-60",), {"model": "refit-60"}),
    "set": (("policy.max_risk_pct", "0.5"), {"setting": "policy.max_risk_pct", "value": 0.5}),
    "approve": (("3",), {"proposal": 3.0}),
    "reject": (("3",), {"proposal": 3.0}),
}
"""What is typed after a command that takes arguments, and what that means."""


IN_VIEW_OF = {"approve", "arm", "install", "mode", "reject", "rollback"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSELOOP_CONTROL_KEY", KEY)


def sent(address: str) -> list[Control]:
    with connect(address) as connection:
        found = [decode(fields[b"e"]) for _, fields in connection.redis.xrange(EVENTS)]
    return [each for each in found if isinstance(each, Control)]


EVENTS = keys_of(Config()).events


def said(*words: str, address: str) -> tuple[str, ...]:
    return ("control", *words, "--reason", "bad day", "--by", "ann", "--address", address)


def test_every_command_but_the_workers_own_can_be_typed() -> None:
    group = typer.main.get_command(app).commands["control"]  # type: ignore[attr-defined]
    assert set(group.commands) == set(COMMANDS) - {"measure"}
    for name, command in OPERATORS.items():
        assert {*command.required, *command.optional} == set(GIVEN.get(name, ((), {}))[1])


@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_typed_is_what_is_sent(closeloop: Command, name: str) -> None:
    address = f"memory://typed-{name}"
    words, args = GIVEN.get(name, ((), {}))
    ran = closeloop(*said(name, *words, address=address))
    assert ran.status == 0, ran.err
    (found,) = sent(address)
    assert (found.command, found.by, found.reason) == (name, "ann", "bad day")
    assert (found.args or {}) == args


def test_what_is_left_out_is_not_sent_and_nothing_else_is_left_out(closeloop: Command) -> None:
    for words in (("refit",), ("rollback",), ("mode", "live"), ("set", "policy.take", "0")):
        assert closeloop(*said(*words, address="memory://left-out")).status == 0
    zero = {"setting": "policy.take", "value": 0.0}
    found = [each.args for each in sent("memory://left-out")]
    assert found == [None, None, {"mode": "live"}, zero]


@pytest.mark.parametrize(
    "words",
    [("mode",), ("set", "policy.take"), ("set", "policy.take", "much"), ("approve", "last"),
     ("halt", "now"), ("halt", "--revision", "3"), ("measure",), ("refit", "--fast"),
     ("arm", "--revision", "-1"), ("set", "x" * 300, "1")],
)  # fmt: skip
def test_what_cannot_be_right_is_not_sent(closeloop: Command, words: tuple[str, ...]) -> None:
    assert closeloop(*said(*words, address="memory://wrong")).status == 2
    assert sent("memory://wrong") == []


@pytest.mark.parametrize("name", OPERATORS)
def test_a_command_that_depends_on_what_stands_carries_its_revision(
    closeloop: Command, name: str
) -> None:
    address = f"memory://revision-{name}"
    words, _ = GIVEN.get(name, ((), {}))
    with connect(address) as connection:
        write_view(connection, keys_of(Config()), {"revision": 7, "position": START})
    assert closeloop(*said(name, *words, address=address)).status == 0
    if name != "halt":
        ran = closeloop(*said(name, *words, "--revision", "5", address=address))
        assert ran.status == 0
    controls = sent(address)
    assert [Controls(KEY.encode()).refusal(each) for each in controls] == [None] * len(controls)
    revisions = [(each.args or {}).get("revision") for each in controls]
    assert revisions == [7.0 if name in IN_VIEW_OF else None, 5.0][: len(revisions)]


@pytest.fixture
def worked(address: str, tmp_path: Path) -> Iterator[str]:
    """The address of a shard with a worker."""
    config = Config(
        stream=StreamConfig(address=address),
        core=QUICK,
        worker=WorkerConfig(lease_ms=60_000),
        snapshots=SnapshotConfig(directory=tmp_path / "snapshots"),
    )
    stop = Event()
    with (
        # Else its log, not set up here, would stand among the output.
        structlog.testing.capture_logs(),
        connect(address) as connection,
        new_worker(config, connection, Metrics(), stop) as worker,
    ):
        thread = Thread(target=worker.run)
        thread.start()
        try:
            while not connection.redis.exists(keys_of(config).lease):
                assert thread.is_alive()
            yield address
        finally:
            stop.set()
            thread.join()


def test_the_engines_answer_is_waited_for(closeloop: Command, worked: str) -> None:
    ran = closeloop(*said("halt", address=worked))
    assert (ran.status, ran.out) == (0, "")
    assert "obeyed: halted by ann: bad day" in ran.err
    again = closeloop(*said("halt", address=worked))
    assert again.status == 1
    assert "refused: " in again.err
    assert "already" in again.err
    stale = closeloop(*said("arm", "--revision", "99", "--json", address=worked))
    assert stale.status == 1
    assert stale.json["answer"]["state"] == "refused"
    assert "stale" in stale.json["answer"]["message"]
    assert closeloop(*said("pin", "refit-9", "--no-wait", address=worked)).status == 0


def test_commands_may_follow_each_other_at_once(closeloop: Command, worked: str) -> None:
    for _ in range(2):
        assert closeloop(*said("halt", address=worked)).status == 0
        armed = closeloop(*said("arm", address=worked))
        assert armed.status == 0, armed.err
        assert "obeyed: armed by ann: bad day" in armed.err


def test_a_worker_that_does_not_come_to_it_is_not_waited_for_long(
    closeloop: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_S", 0.0)
    with connect("memory://busy") as connection:
        connection.redis.set(keys_of(Config()).lease, "1:somebody")
    ran = closeloop(*said("halt", "--json", address="memory://busy"))
    assert (ran.status, ran.json["answer"]["state"]) == (0, "unanswered")
    assert ran.json["revision"] is None
    with connect("memory://busy") as connection:
        connection.redis.delete(keys_of(Config()).lease)
    assert "no worker is at work" in closeloop(*said("halt", address="memory://busy")).err


def test_who_may_only_publish_may_halt(closeloop: Command, redis_server: str) -> None:
    with redis.Redis.from_url(redis_server) as admin:
        admin.flushall()
        rules = ("reset", "on", ">halter-password", "+ping", "+xadd", f"%W~{EVENTS}")
        admin.execute_command("ACL", "SETUSER", "halter", *rules)
        address = redis_server.replace("redis://", "redis://halter:halter-password@")
        ran = closeloop(*said("halt", address=address))
        admin.acl_deluser("halter")
    assert ran.status == 0, ran.err
    assert [each.command for each in sent(redis_server)] == ["halt"]
