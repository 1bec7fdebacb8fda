"""Alerts in the log."""

import structlog

from engine.notify.deadline import Deadline
from engine.notify.message import Message
from streams.events import Severity


class Log:
    """The process's own log: every alert, at its severity's level."""

    name = "log"
    least: Severity = "info"
    most: int | None = None

    def send(self, message: Message, deadline: Deadline) -> None:
        """Write a line."""
        alert = message.alert
        said: dict[str, object] = {
            "code": alert.code,
            "subject": alert.subject,
            "detail": alert.message,
            "event_time": alert.ts.isoformat(),
            "entry_id": message.entry_id,
            "state": alert.state,
            "unsaid": alert.unsaid,
            "untold": dict(message.untold) or None,
        }
        log = structlog.get_logger()
        write = {"critical": log.critical, "warning": log.warning, "info": log.info}
        write[alert.severity](
            "alert", **{name: value for name, value in said.items() if value is not None}
        )
