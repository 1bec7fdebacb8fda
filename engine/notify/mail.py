"""Alerts by e-mail, over SMTP."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from smtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPNotSupportedError,
    SMTPRecipientsRefused,
    SMTPResponseException,
)
from socket import socket

import structlog

from engine.config import ConfigError, EmailConfig
from engine.notify.deadline import Deadline
from engine.notify.message import Message, plain
from engine.notify.receiver import Undelivered

MOST = 20
MAX_SUBJECT = 150
MAX_REPLY = 200


class Mail:
    """An SMTP server and whom it is to tell.

    Raises `ConfigError` when the settings don't go together.
    """

    name = "email"
    most: int | None = MOST

    def __init__(self, config: EmailConfig) -> None:
        if config.host is None or not config.recipients:
            raise ConfigError(
                "notify.email.host is set but notify.email.recipients is empty; say who gets it"
            )
        if (config.user is None) != (config.password is None):
            raise ConfigError(
                "of notify.email.user and notify.email.password one is set and the other isn't;"
                " set both, or neither"
            )
        self.least = config.least
        self._host = config.host
        self._config = config
        self._tls = ssl.create_default_context() if config.security != "none" else None
        self._domain = parseaddr(config.sender)[1].rpartition("@")[2] or "localhost"
        try:
            for address in (config.sender, *config.recipients):
                EmailMessage()["To"] = address
        except (ValueError, MessageError):
            raise ConfigError(
                f"of notify.email.sender and recipients {address!r} is no address;"
                " write name@example.com"
            ) from None

    def send(self, message: Message, deadline: Deadline) -> None:
        """Hand it to the server; with its yes it is the server's to deliver."""
        mail = self._written(message)
        config = self._config
        tls = self._tls if config.security == "tls" else None
        smtp = _Smtp(deadline, tls, self._host, config.port, self._domain)
        try:
            if config.security == "starttls":
                smtp.starttls(context=self._tls)
            if config.user is not None and config.password is not None:
                smtp.login(config.user, config.password.get_secret_value())
            refused = smtp.send_message(mail)
            if refused:
                structlog.get_logger().warning("mail_refused_in_part", recipients=sorted(refused))
            # It has been taken; how the parting goes is all the same.
            with suppress(OSError, SMTPException):
                smtp.quit()
        except SMTPException as error:
            raise self._refusal(error) from None
        finally:
            smtp.close()

    def _refusal(self, error: SMTPException) -> Exception:
        """What the server's answer means, if it gave one."""
        if isinstance(error, SMTPAuthenticationError):
            # Its text is left out: it may be the password come back.
            return Undelivered(f"it refused the login: {error.smtp_code}", _temporary(error))
        if isinstance(error, SMTPNotSupportedError):
            return Undelivered(
                "it offers no STARTTLS or no login; see notify.email.security", again=False
            )
        if isinstance(error, SMTPRecipientsRefused):
            error = SMTPResponseException(*next(iter(error.recipients.values())))
        if isinstance(error, SMTPResponseException):
            reply = error.smtp_error
            said = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
            return Undelivered(
                f"it answered {error.smtp_code} {plain(self._hidden(said), MAX_REPLY)}",
                _temporary(error),
            )
        return error

    def _hidden(self, said: str) -> str:
        password = self._config.password
        return "..." if password is not None and password.get_secret_value() in said else said

    def _written(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._config.sender
        mail["To"] = ", ".join(self._config.recipients)
        mail["Subject"] = plain(f"[closeloop] {message.title}: {message.text}", MAX_SUBJECT)
        mail["Date"] = format_datetime(datetime.now(UTC))
        # The same when it is sent again, so that a mailbox can tell.
        name = message.entry_id or format(datetime.now(UTC).timestamp(), "f")
        source = "".join(
            char if char.isascii() and char.isalnum() else "." for char in message.source
        )
        mail["Message-ID"] = f"<closeloop.{source}.{name}@{self._domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        facts = (f"{name}: {value}" for name, value in message.facts)
        mail.set_content("\n".join([message.title, "", message.text, "", *facts, ""]))
        return mail


class _Smtp(SMTP):
    """Over a connection that ends with the deadline, encrypted from its first byte with `tls`."""

    def __init__(
        self, deadline: Deadline, tls: ssl.SSLContext | None, host: str, port: int, name: str
    ) -> None:
        self._deadline = deadline
        self._tls = tls
        # Its own name is given, because looking it up may take longer than there is.
        super().__init__(host, port, local_hostname=name, timeout=deadline.seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket:
        connected = self._deadline.connect((host, port))
        if self._tls is None:
            return connected
        return self._tls.wrap_socket(connected, server_hostname=host)


def _temporary(error: SMTPResponseException) -> bool:
    """Whether the code says to try again (RFC 5321, 4.2.1)."""
    return 400 <= error.smtp_code < 500
