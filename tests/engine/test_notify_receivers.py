"""The receivers of alerts against real servers on loopback, good ones and bad ones."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest
import structlog

from engine.notify import attempt
from tests.engine.receivers import (
    LIMIT_S,
    PASSWORD,
    Answer,
    authority,
    closed_port,
    hang,
    hang_up,
    mailbox,
    never_read,
    odd,
    server_tls,
    trickle,
    web,
)
from tests.engine.telling import login, mail, message, webhook
from tests.security import certificates

QUICK_S = 0.3
# On loopback the tests' server may ask for a login in the clear.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' authority is known to this system."""
    monkeypatch.setenv("SSL_CERT_FILE", authority(tmp_path))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


ENDLESS_STATUS = trickle(b"HTTP/1.1 2")
ENDLESS_GREETING = trickle(b"220 a")
ENDLESS_HANDSHAKE = trickle(b"\x16\x03\x03\x40\x00\x02")
ENDLESS_HELO = trickle(b"220 hello\r\n250-a\r\n250-")


@pytest.mark.parametrize("behave", [hang, never_read, ENDLESS_STATUS, ENDLESS_HANDSHAKE])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_webhook_that_never_ends_its_answer_takes_its_time_out_in_all(
    behave: Callable[..., None], scheme: str
) -> None:
    with odd(behave) as server:
        started = monotonic()
        failure = attempt(webhook(f"{scheme}://127.0.0.1:{server.port}/x"), message(), QUICK_S)
        # Rubbish may be found out before.
        assert monotonic() - started < QUICK_S + 2
    assert failure is not None
    assert failure.again


@pytest.mark.parametrize("behave", [hang, never_read, ENDLESS_GREETING, ENDLESS_HELO])
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_a_mail_server_that_never_ends_its_answer_takes_its_time_out_in_all(
    behave: Callable[..., None], security: str
) -> None:
    with odd(behave) as server:
        started = monotonic()
        failure = attempt(mail(server.port, security=security), message(), QUICK_S)
        assert monotonic() - started < QUICK_S + 2
    assert failure is not None
    assert failure.again


@pytest.mark.usefixtures("trusting")
def test_so_it_does_behind_tls(tmp_path: Path) -> None:
    context = server_tls(tmp_path)
    with odd(ENDLESS_STATUS, context) as hooked, odd(ENDLESS_GREETING, context) as posted:
        for receiver in (
            webhook(f"https://127.0.0.1:{hooked.port}/x"),
            mail(posted.port, security="tls"),
        ):
            started = monotonic()
            assert str(attempt(receiver, message(), 1.0)) == "not done within 1 s"
            assert monotonic() - started < 3


def test_the_log_says_that_the_time_was_up() -> None:
    with odd(ENDLESS_GREETING) as server:
        assert str(attempt(mail(server.port), message(), QUICK_S)) == "not done within 0.3 s"
    with odd(ENDLESS_STATUS) as server:
        failure = attempt(webhook(f"http://127.0.0.1:{server.port}/x"), message(), QUICK_S)
        assert str(failure) == "not done within 0.3 s"
    with odd(ENDLESS_HANDSHAKE) as server:
        failure = attempt(mail(server.port, security="tls"), message(), QUICK_S)
        assert str(failure) == "not done within 0.3 s"


def test_an_answer_of_200_counts_though_its_body_never_ends() -> None:
    with odd(trickle(b"HTTP/1.1 200 OK\r\n\r\nok")) as server:
        started = monotonic()
        assert attempt(webhook(f"http://127.0.0.1:{server.port}/x"), message(), LIMIT_S) is None
        assert monotonic() - started < LIMIT_S / 2


@pytest.mark.parametrize("greeting", [b"", b"220 he"])
def test_servers_that_are_away_or_hang_up_are_worth_another_try(greeting: bytes) -> None:
    with odd(hang_up(greeting)) as server:
        port = server.port
        for receiver in (mail(port), webhook(f"http://127.0.0.1:{port}/x")):
            failure = attempt(receiver, message(), LIMIT_S)
            assert failure is not None
            assert failure.again
    for receiver in (mail(closed_port()), webhook(f"http://127.0.0.1:{closed_port()}/x")):
        failure = attempt(receiver, message(), LIMIT_S)
        assert failure is not None
        assert (str(failure), failure.again) == ("Connection refused", True)


@pytest.mark.parametrize(
    ("answer", "said", "again", "after_s"),
    [
        (Answer(500), "it answered HTTP 500", True, None),
        (Answer(503, {"Retry-After": "7"}), "it answered HTTP 503", True, 7.0),
        (Answer(429, {"retry-after": "30"}), "it answered HTTP 429", True, 30.0),
        (Answer(429, {"Retry-After": "soon"}), "it answered HTTP 429", True, None),
        (Answer(404, body="no_service"), "it answered HTTP 404, no_service", False, None),
        (Answer(404, body="no /services/T0/B0/sEcReT"), "it answered HTTP 404", False, None),
        (Answer(404, body="\xff" * 100_000), "it answered HTTP 404", False, None),
    ],
)
def test_a_webhooks_status_says_whether_to_try_again(
    answer: Answer, said: str, again: bool, after_s: float | None
) -> None:
    with web(answer) as server:
        failure = attempt(webhook(server.url), message(), LIMIT_S)
    assert failure is not None
    assert (str(failure).replace(", ok", ""), failure.again, failure.after_s) == (
        said,
        again,
        after_s,
    )


def test_a_proxy_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with web() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        elsewhere = "http://hooks.example.invalid/services/x"
        assert attempt(webhook(elsewhere), message(), LIMIT_S) is None
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert attempt(webhook(proxy.url), message(), LIMIT_S) is None
    assert proxy.paths == [elsewhere, "/services/T0/B0/sEcReT"]


def test_a_redirect_is_not_followed() -> None:
    with web() as elsewhere, web(Answer(302, {"Location": elsewhere.url})) as server:
        failure = attempt(webhook(server.url), message(), LIMIT_S)
    assert str(failure).startswith("it answered HTTP 302")
    assert elsewhere.posted.items == []


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.usefixtures("trusting")
def test_over_tls_mail_is_sent_with_a_login(security: str, tmp_path: Path) -> None:
    context = server_tls(tmp_path)
    with mailbox(login=True, **{security: context}) as server:
        receiver = mail(server.port, security=security, **login())
        assert attempt(receiver, message(), LIMIT_S) is None
    assert len(server.mails.items) == 1


@pytest.mark.usefixtures("trusting")
def test_a_webhook_is_reached_over_tls(tmp_path: Path) -> None:
    with web(tls=server_tls(tmp_path)) as server:
        assert attempt(webhook(server.url), message(), LIMIT_S) is None
    assert len(server.posted.items) == 1


def test_a_certificate_of_unknown_origin_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority(tmp_path, certificates.STRANGER))
    context = server_tls(tmp_path)
    hooked = stack.enter_context(web(tls=context))
    secure = stack.enter_context(mailbox(tls=context))
    upgraded = stack.enter_context(mailbox(starttls=context))
    for receiver in (
        webhook(hooked.url),
        mail(secure.port, security="tls", **login()),
        mail(upgraded.port, security="starttls", **login()),
    ):
        failure = attempt(receiver, message(), LIMIT_S)
        assert str(failure).startswith("its certificate doesn't hold: ")
    assert hooked.posted.items + secure.mails.items + upgraded.mails.items == []


def test_without_starttls_offered_nothing_is_sent_in_the_clear() -> None:
    with mailbox() as server:
        failure = attempt(mail(server.port, security="starttls"), message(), LIMIT_S)
    assert failure is not None
    assert ("STARTTLS" in str(failure), failure.again) == (True, False)
    assert server.mails.items == []


def test_a_refused_login_is_not_tried_again_and_its_password_not_told() -> None:
    wrong = "wrong-password-0815"
    with mailbox(login=True) as server:
        failure = attempt(mail(server.port, **login(wrong)), message(), LIMIT_S)
    assert failure is not None
    assert (str(failure), failure.again) == ("it refused the login: 535", False)
    assert server.mails.items == []


def test_recipients_unknown_to_the_server_are_told_of() -> None:
    both = ("ops@example.com", "gone@example.com")
    with mailbox(refuse=("gone@example.com",)) as server:
        failure = attempt(mail(server.port, recipients=both[1:]), message(), LIMIT_S)
        assert failure is not None
        assert (str(failure), failure.again) == ("it answered 550 no such mailbox", False)
        with structlog.testing.capture_logs() as logs:
            assert attempt(mail(server.port, recipients=both), message(), LIMIT_S) is None
    assert [(log["event"], log["recipients"]) for log in logs] == [
        ("mail_refused_in_part", ["gone@example.com"])
    ]


@pytest.mark.parametrize(("code", "again"), [(451, True), (554, False)])
def test_a_mail_servers_code_says_whether_to_try_again(code: int, again: bool) -> None:
    with mailbox(data_reply=f"{code} not now, {PASSWORD}") as server:
        failure = attempt(mail(server.port), message(), LIMIT_S)
        assert failure is not None
        assert (str(failure), failure.again) == (f"it answered {code} not now, {PASSWORD}", again)
    with mailbox(data_reply=f"{code} not now, {PASSWORD}", login=True) as server:
        failure = attempt(mail(server.port, **login()), message(), LIMIT_S)
        assert str(failure) == f"it answered {code} ..."
