"""Where alerts go: what a receiver is, and how it says that it wasn't reached."""

import ssl
from http.client import RemoteDisconnected
from smtplib import SMTPResponseException, SMTPServerDisconnected
from typing import Protocol
from urllib.error import URLError

from engine.notify.deadline import Deadline
from engine.notify.message import Message
from streams.events import Severity


class Undelivered(Exception):
    """A message didn't reach its receiver; the text says why, and holds no secret.

    Parameters
    ----------
    cause
        Why.
    again
        Whether another try may help.
    after_s
        How long the receiver asked to be left alone, seconds.
    """

    def __init__(self, cause: str, again: bool = True, after_s: float | None = None) -> None:
        super().__init__(cause)
        self.again = again
        self.after_s = after_s


class Receiver(Protocol):
    """Somewhere that alerts go.

    `most` is how many messages it gets in a row when many wait; the rest is summed up. None: all of
    them, one by one.
    """

    name: str
    least: Severity
    most: int | None

    def send(self, message: Message, deadline: Deadline) -> None:
        """Tell it, before the deadline. Raises `Undelivered`, or whatever went wrong."""


def attempt(receiver: Receiver, message: Message, timeout_s: float) -> Undelivered | None:
    """One try, of `timeout_s` in all; why it failed, if it did."""
    deadline = Deadline(timeout_s)
    try:
        with deadline:
            receiver.send(message, deadline)
    except Undelivered as failure:
        return failure
    except Exception as error:  # noqa: BLE001 - whatever libraries make of odd servers
        return Undelivered(_cause_of(error, deadline))
    return None


def _cause_of(error: Exception, deadline: Deadline) -> str:
    """Why a try failed, without what the error's own text may quote: a URL, a password."""
    if deadline.passed or isinstance(error, TimeoutError):
        return f"not done within {deadline.seconds:g} s"
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        return _cause_of(error.reason, deadline)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate doesn't hold: {error.verify_message}"
    if isinstance(error, SMTPResponseException):
        return f"it answered {error.smtp_code}"
    if isinstance(error, SMTPServerDisconnected | RemoteDisconnected | ssl.SSLEOFError):
        return "it hung up"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
