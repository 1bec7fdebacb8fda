"""Alerts of a serving process: they wait for nobody, and nobody waits for them."""

import signal as signals
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread, Timer
from time import monotonic
from typing import Any

import pytest
import structlog

from engine.config import EmailConfig, NotifyConfig, WebhookConfig
from engine.metrics import Metrics
from engine.notify import notifying
from streams import Client, Connection, Signal, connect
from tests.engine.histories import history
from tests.engine.receivers import LIMIT_S, Inbox, hang, mailbox, odd, web
from tests.engine.telling import KEYS, alert, publish
from tests.engine.test_worker import Shard
from tests.security.roles import loaded

NOTIFIER = """
import sys
from engine.config import LogConfig, NotifyConfig, WebhookConfig
from engine.logs import configure_logs
from engine.metrics import Metrics
from engine.notify import notifying
from streams import Keys

url, address = sys.argv[1:]
settings = NotifyConfig(webhook=WebhookConfig(url=url))
configure_logs(LogConfig())
with notifying(settings, address, Keys(), Metrics(), lambda: True):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def hook(url: str, timeout_s: float = LIMIT_S, **fields: object) -> NotifyConfig:
    return NotifyConfig(timeout_s=timeout_s, webhook=WebhookConfig(url=url, least="info"), **fields)


@contextmanager
def alerts_logged() -> Iterator[Inbox]:
    """What is logged of alerts, as it is logged."""
    inbox = Inbox()

    def keep(logger: object, name: str, event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "alert":
            inbox.add(event | {"level": name})
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[keep])
    try:
        yield inbox
    finally:
        structlog.configure(processors=before)


def subject(body: dict[str, Any]) -> str:
    """Of the alert in what a webhook was posted."""
    (line,) = [line for line in body["text"].splitlines() if line.startswith("Subject: ")]
    return line.removeprefix("Subject: ")


def test_decisions_keep_coming_while_the_webhook_hangs_over_an_alert_of_the_core(
    address: str, connection: Connection, tmp_path: Path, stack: ExitStack
) -> None:
    shard = Shard(connection, tmp_path)
    worker = shard.worker()
    # Left in this order: the server lets go, then nobody has to be waited for.
    notifier = ExitStack()
    stack.callback(notifier.close)
    server = stack.enter_context(odd(hang))
    url = f"http://127.0.0.1:{server.port}/x"
    notifier.enter_context(
        notifying(hook(url), address, shard.keys, Metrics(), lambda: worker.ready)
    )
    serving = Thread(target=worker.run)
    serving.start()
    stack.callback(serving.join)
    stack.callback(shard.stop.set)

    client = stack.enter_context(Client(address))
    events = history(140)
    client.publish_many(events[:200])
    assert server.reached.wait(LIMIT_S)
    for event in events[200:]:
        receipt = client.publish(event)
        if isinstance(event, Signal):
            assert client.decision(receipt, LIMIT_S).signal_id == event.signal_id


def test_a_receiver_that_hangs_holds_up_no_other(address: str, stack: ExitStack) -> None:
    # Left in this order: the server lets go, then nobody has to be waited for.
    notifier = ExitStack()
    stack.callback(notifier.close)
    server = stack.enter_context(odd(hang))
    inbox = stack.enter_context(mailbox())
    connection = stack.enter_context(connect(address))
    config = hook(
        f"http://127.0.0.1:{server.port}/x",
        email=EmailConfig(
            host="127.0.0.1", port=inbox.port, security="none", recipients=("ops@example.com",)
        ),
    )
    log = stack.enter_context(alerts_logged())
    notifier.enter_context(notifying(config, address, KEYS, Metrics(), lambda: True))
    publish(connection, alert("one"), alert("two"))
    assert server.reached.wait(LIMIT_S)
    publish(connection, alert("three"))
    mails = inbox.mails.wait_for(3)
    assert ["Subject: one" in mail.get_content() for mail in mails] == [True, False, False]
    assert [line["subject"] for line in log.wait_for(3)] == ["one", "two", "three"]


def test_leaving_waits_for_a_message_in_flight(address: str, stack: ExitStack) -> None:
    leaving = Event()
    server = stack.enter_context(web(before=lambda body: leaving.wait(LIMIT_S)))
    connection = stack.enter_context(connect(address))
    with notifying(hook(server.url), address, KEYS, Metrics(), lambda: True):
        publish(connection, alert("one"))
        server.posted.wait_for(1)
        Timer(0.2, leaving.set).start()
    (last,) = connection.redis.xrevrange(KEYS.alerts, count=1)
    assert connection.redis.hget(KEYS.notified, "webhook") == last[0]


def test_leaving_takes_no_longer_than_the_time_out_and_loses_nothing(
    address: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = Event(), Event()
    stack.callback(answered.set)
    look_up = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **named: Any) -> Any:
        if host == "slow.example":
            asked.set()
            answered.wait(LIMIT_S)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return look_up(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    connection = stack.enter_context(connect(address))
    slowly = hook("http://slow.example/x", timeout_s=0.3)
    with notifying(slowly, address, KEYS, Metrics(), lambda: True):
        publish(connection, alert("one"))
        assert asked.wait(LIMIT_S)
        started = monotonic()
    assert monotonic() - started < LIMIT_S / 2
    answered.set()
    # It waits for whoever serves next.
    working = stack.enter_context(web())
    with notifying(hook(working.url), address, KEYS, Metrics(), lambda: True):
        (body,) = working.posted.wait_for(1)
    assert subject(body) == "one"


def test_with_no_receiver_configured_alerts_are_in_the_log(
    address: str, connection: Connection
) -> None:
    with (
        alerts_logged() as log,
        notifying(NotifyConfig(), address, KEYS, Metrics(), lambda: True),
    ):
        publish(connection, alert("one"))
        (line,) = log.wait_for(1)
    assert (line["level"], line["subject"], line["code"]) == ("critical", "one", "halted")


def test_the_rights_of_a_worker_are_enough(redis_server: str) -> None:
    with loaded(redis_server) as roles, connect(redis_server) as admin, web() as server:
        admin.redis.flushall()
        with notifying(hook(server.url), roles["worker"], KEYS, Metrics(), lambda: True):
            publish(admin, alert("one"))
            server.posted.wait_for(1)
        assert admin.redis.hget(KEYS.notified, "webhook") is not None


def test_connections_to_the_server_that_break_lose_no_alert(redis_server: str) -> None:
    with connect(redis_server) as connection, web() as server:
        connection.redis.flushall()
        with notifying(hook(server.url), redis_server, KEYS, Metrics(), lambda: True):
            for count in range(1, 4):
                publish(connection, alert(str(count)))
                bodies = server.posted.wait_for(count)
                connection.redis.client_kill_filter(_type="normal", skipme=True)
    assert [subject(body) for body in bodies] == ["1", "2", "3"]


def test_killed_while_a_message_is_on_its_way_the_next_process_sends_it_again(
    redis_server: str, stack: ExitStack
) -> None:
    processes: list[subprocess.Popen[str]] = []

    def kill_at_the_third(body: dict[str, Any]) -> None:
        if subject(body) == "3" and len(processes) == 1:
            processes[0].send_signal(signals.SIGKILL)
            processes[0].wait(LIMIT_S)

    connection = stack.enter_context(connect(redis_server))
    connection.redis.flushall()
    server = stack.enter_context(web(before=kill_at_the_third))

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", NOTIFIER, server.url, redis_server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        stack.enter_context(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    processes.append(start())
    publish(connection, *(alert(str(i)) for i in range(1, 6)))
    server.posted.wait_for(3)
    assert processes[0].wait(LIMIT_S) == -signals.SIGKILL
    processes.append(start())
    bodies = server.posted.wait_for(6)
    processes[1].communicate(timeout=LIMIT_S)
    assert Counter(map(subject, bodies)) == {"1": 1, "2": 1, "3": 2, "4": 1, "5": 1}
