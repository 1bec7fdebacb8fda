"""Alerts, receivers and couriers as the tests of `engine.notify` make them."""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event

from redis.backoff import ConstantBackoff

from engine.config import EmailConfig, NotifyConfig, WebhookConfig
from engine.metrics import Metrics
from engine.notify import Message, receivers_of
from engine.notify.courier import Courier, Patience
from engine.notify.deadline import Deadline
from engine.notify.marks import AlertStream
from engine.notify.receiver import Receiver
from streams import Alert, Connection, Keys, encode
from streams.events import Severity
from tests.engine.receivers import PASSWORD

KEYS = Keys()


def alert(subject: str, severity: Severity = "critical", code: str = "halted") -> Alert:
    return Alert(
        ts=datetime(2026, 1, 5, tzinfo=UTC),
        severity=severity,
        code=code,
        subject=subject,
        message="it happened",
    )


def publish(connection: Connection, *alerts: Alert) -> None:
    for one in alerts:
        connection.redis.xadd(KEYS.alerts, {"e": encode(one)})


class Listener:
    """A receiver that takes everything, but for what `troubles` says in turn."""

    name = "listener"

    def __init__(self, least: Severity = "warning", most: int | None = 20) -> None:
        self.least = least
        self.most = most
        self.got: list[Message] = []
        self.troubles: list[Exception | None] = []
        self.then: Callable[[], None] = lambda: None

    def send(self, message: Message, deadline: Deadline) -> None:
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None:
            raise trouble
        self.got.append(message)
        self.then()

    @property
    def subjects(self) -> list[str]:
        return [message.alert.subject for message in self.got]


class Unhurried(Event):
    """A stop that remembers how long it was to be waited for, and doesn't wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        self.meanwhile()
        return self.is_set()


class Office:
    """Everything around a courier."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.metrics = Metrics()
        self.stop = Unhurried()
        self.leads = True

    def courier(self, receiver: Receiver, attempts: int = 3) -> Courier:
        return Courier(
            receiver,
            AlertStream(self.connection, KEYS),
            "here",
            Patience(5.0, attempts, ConstantBackoff(2.0)),
            self.metrics.notifications,
            lambda: self.leads,
            self.stop,
        )

    def count(self, receiver: str, result: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                "closeloop_notifications_total", {"receiver": receiver, "result": result}
            )
            or 0.0
        )


def message(**fields: object) -> Message:
    given: dict[str, object] = {
        "ts": datetime(2026, 1, 5, 9, 30, tzinfo=UTC),
        "severity": "critical",
        "code": "halted",
        "subject": "s17",
        "message": "three losses in a row",
    }
    return Message("closeloop, shard 0", "17-0", Alert(**given | fields))


def webhook(url: str) -> Receiver:
    (receiver,) = receivers_of(NotifyConfig(webhook=WebhookConfig(url=url)))
    return receiver


def mail(port: int, **fields: object) -> Receiver:
    given = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "recipients": ("ops@example.com",),
    }
    (receiver,) = receivers_of(NotifyConfig(email=EmailConfig(**given | fields)))
    return receiver


def login(password: str = PASSWORD) -> dict[str, object]:
    return {"user": "bot", "password": password}
