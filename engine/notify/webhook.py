"""Alerts to a webhook in Slack's format (needs the extra `slack`).

The format: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/
"""

import re
import ssl
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from logging import CRITICAL, Logger
from typing import Any
from urllib.parse import urlsplit
from urllib.request import AbstractHTTPHandler, OpenerDirector, ProxyHandler, Request

from slack_sdk.webhook import WebhookClient, WebhookResponse

from engine.config import ConfigError
from engine.notify.deadline import Deadline
from engine.notify.message import Message
from engine.notify.receiver import Undelivered
from streams.events import Severity

MOST = 20
MAX_ANSWER_BYTES = 1_024
MAX_BLOCK = 3_000
"""Characters that Slack takes in one."""
_REASON = re.compile(r"[a-z_]{1,40}")
"""What Slack says in words, as in `channel_is_archived`. Any other answer may quote the URL."""


class Webhook:
    """A URL that takes messages as Slack does.

    Parameters
    ----------
    url
        Where; it is a secret.
    least
        The least severity sent.

    Raises `ConfigError` when the URL is none.
    """

    name = "webhook"
    most: int | None = MOST

    def __init__(self, url: str, least: Severity) -> None:
        if not url.isascii() or not url.isprintable() or " " in url or not _is_http(url):
            raise ConfigError(
                "notify.webhook.url (hidden here) is no URL; it must be as Slack shows it:"
                " https://HOST/PATH"
            )
        self.least = least
        self._url = url
        self._tls = ssl.create_default_context()

    def send(self, message: Message, deadline: Deadline) -> None:
        """Post it; only an answer of 2xx says that it is there."""
        client = _Client(self._url, deadline, self._tls)
        answer = client.send(
            text=_text(message), blocks=_blocks(message), unfurl_links=False, unfurl_media=False
        )
        status = answer.status_code
        if 200 <= status < 300:
            return
        body = answer.body
        known = _REASON.fullmatch(body) and body not in self._url
        raise Undelivered(
            f"it answered HTTP {status}{f', {body}' if known else ''}",
            again=status in (408, 429) or status >= 500,
            after_s=_seconds(answer.headers.get("retry-after")),
        )


class _Client(WebhookClient):
    """Slack's client, over connections that end with the deadline.

    Unlike its own it follows no redirect, whose end would say 200 about something else, and reads
    no more of an answer than is looked at.
    """

    def __init__(self, url: str, deadline: Deadline, tls: ssl.SSLContext) -> None:
        silent = Logger("closeloop.webhook", CRITICAL + 1)
        super().__init__(
            url, ssl=tls, logger=silent, retry_handlers=[], user_agent_prefix="closeloop"
        )
        # Without the processors that `urlopen` adds, a status is an answer and no exception.
        self._opener = OpenerDirector()
        self._opener.add_handler(ProxyHandler())
        self._opener.add_handler(_Handler(deadline, tls))
        self._seconds = deadline.seconds

    def _perform_http_request_internal(self, url: str, req: Request) -> WebhookResponse:
        answer = self._opener.open(req, timeout=self._seconds)
        assert isinstance(answer, HTTPResponse)
        with answer:
            taken = 200 <= answer.status < 300
            body = "" if taken else answer.read(MAX_ANSWER_BYTES).decode("ascii", "replace")
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return WebhookResponse(url=url, status_code=answer.status, body=body, headers=headers)


class _Handler(AbstractHTTPHandler):
    def __init__(self, deadline: Deadline, tls: ssl.SSLContext) -> None:
        super().__init__()
        self._deadline = deadline
        self._tls = tls

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._guarded(HTTPConnection), req)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._guarded(HTTPSConnection), req, context=self._tls)

    http_request = https_request = AbstractHTTPHandler.do_request_

    def _guarded(self, kind: type[HTTPConnection]) -> Any:
        def make(host: str, **given: Any) -> HTTPConnection:
            connection = kind(host, **given)
            # Set, because the handshake and a proxy's answer belong to the time, too.
            connection._create_connection = (  # type: ignore[attr-defined]  # not in typeshed
                lambda address, *_: self._deadline.connect(address)
            )
            return connection

        return make


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _seconds(retry_after: str | None) -> float | None:
    """What Retry-After says, where it says seconds."""
    digits = re.fullmatch(r"[0-9]{1,9}", retry_after or "")
    return float(digits[0]) if digits else None


def _escaped(text: str) -> str:
    """`text` that Slack's mrkdwn takes as it is: no link, no mention.

    https://docs.slack.dev/messaging/formatting-message-text/#escaping; the mark that joins words
    keeps those who imitate Slack from reading a mention into an @.
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("@", "@\u2060")


def _text(message: Message) -> str:
    """For notifications, and for those who know no blocks."""
    facts = (f"{name}: {value}" for name, value in message.facts)
    return _escaped("\n".join([message.title, message.text, *facts]))


def _blocks(message: Message) -> list[dict[str, Any]]:
    # Verbatim: Slack makes no link of what looks like one.
    facts = "\n".join(f"*{name}:* {_escaped(value)}" for name, value in message.facts)
    return [
        {"type": "section", "text": {"type": "mrkdwn", "text": text[:MAX_BLOCK], "verbatim": True}}
        for text in (f"*{_escaped(message.title)}*\n{_escaped(message.text)}", facts)
    ]
