"""What receivers of alerts are told, and what nobody is: a bot's injections, a secret."""

import json
import sys

import pytest

from engine.config import ConfigError, NotifyConfig
from engine.notify import attempt, receivers_of
from tests.engine.receivers import LIMIT_S, Answer, hang_up, mailbox, odd, web
from tests.engine.telling import mail, message, webhook


def test_a_webhook_gets_the_whole_alert_in_slacks_format() -> None:
    told = message(state="firing", unsaid=4)
    with web() as server:
        assert attempt(webhook(server.url), told, LIMIT_S) is None
    (body,) = server.posted.items
    assert server.paths == ["/services/T0/B0/sEcReT"]
    shown = "\n".join(block["text"]["text"] for block in body["blocks"])
    for text in (shown, body["text"]):
        for part in (
            "CRITICAL: halted (firing)",
            "three losses in a row",
            "s17",
            "2026-01-05 09:30:00+00:00",
            "closeloop, shard 0",
            "4",
        ):
            assert part in text
    assert {block["type"] for block in body["blocks"]} == {"section"}


def test_a_mail_holds_the_whole_alert() -> None:
    with mailbox() as server:
        assert attempt(mail(server.port), message(state="resolved", unsaid=4), LIMIT_S) is None
    (got,) = server.mails.items
    assert got["Subject"] == "[closeloop] CRITICAL: halted (resolved): three losses in a row"
    assert (got["From"], got["To"]) == ("closeloop@localhost", "ops@example.com")
    for part in ("three losses in a row", "s17", "2026-01-05 09:30:00+00:00", "shard 0", ": 4"):
        assert part in got.get_content()


def test_a_mail_sent_again_has_the_same_id() -> None:
    with mailbox() as server:
        for _ in range(2):
            assert attempt(mail(server.port), message(), LIMIT_S) is None
    first, second = server.mails.items
    assert first["Message-ID"] == second["Message-ID"]


def test_what_a_bot_writes_makes_no_link_and_no_mention_in_slack() -> None:
    bad = "<!channel> <https://evil.example|log in> @here & https://evil.example"
    with web() as server:
        assert attempt(webhook(server.url), message(subject=bad, message=bad), LIMIT_S) is None
    (body,) = server.posted.items
    texts = [block["text"] for block in body["blocks"]]
    assert all(text["verbatim"] for text in texts)
    for shown in (body["text"], *(text["text"] for text in texts)):
        assert "<" not in shown
        assert "@here" not in shown
        assert "&lt;!channel&gt;" in shown


BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x00\x1b\u202e\u200b"


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_what_a_bot_writes_adds_no_line_to_a_mails_head_or_body(line_break: str) -> None:
    bad = f"x{line_break}Bcc: all@example.com{line_break}{line_break}hello"
    with mailbox() as server:
        sent = attempt(mail(server.port), message(code=bad, subject=bad, message=bad), LIMIT_S)
        assert sent is None
        assert attempt(mail(server.port), message(), LIMIT_S) is None
    got, plain = server.mails.items
    assert got["Bcc"] is None
    assert got.keys() == plain.keys()
    assert len(got.get_content().splitlines()) == len(plain.get_content().splitlines())
    assert line_break in "\r\n" or line_break not in got.get_content()


def test_a_long_text_is_cut() -> None:
    long = "&" * 100_000
    told = message(code=long, subject=long, message=long)
    with web() as hooked, mailbox() as posted:
        assert attempt(webhook(hooked.url), told, LIMIT_S) is None
        assert attempt(mail(posted.port), told, LIMIT_S) is None
    # Slack takes 3,000 characters a block.
    assert all(len(block["text"]["text"]) <= 3_000 for block in hooked.posted.items[0]["blocks"])
    assert len(posted.mails.items[0]["Subject"]) <= 150


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"webhook": {"url": "hooks.example.com/sEcReT"}}, "notify.webhook.url"),
        ({"webhook": {"url": "https://hooks.example.com/sEcReT x"}}, "notify.webhook.url"),
        ({"webhook": {"url": "https://hooks.example.com:sEcReT/"}}, "notify.webhook.url"),
        ({"webhook": {"url": "file:///etc/sEcReT"}}, "notify.webhook.url"),
        ({"email": {"host": "mail.example.com"}}, "notify.email.recipients is empty"),
        (
            {"email": {"host": "h", "recipients": ["a@example.com"], "password": "sEcReT"}},
            "notify.email.user",
        ),
        ({"email": {"host": "h", "recipients": ["a@example.com\nBcc: b@example.com"]}}, "address"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        receivers_of(NotifyConfig.model_validate(settings))
    assert "sEcReT" not in str(refused.value)


def test_without_slack_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "engine.notify.webhook", raising=False)
    monkeypatch.setitem(sys.modules, "slack_sdk.webhook", None)
    with pytest.raises(ConfigError, match=r'pip install "closeloop\[slack\]"'):
        webhook("https://hooks.example.com/services/x")


def test_no_answer_and_no_error_shows_the_url_or_the_password(
    capfd: pytest.CaptureFixture[str],
) -> None:
    failures = []
    with web(Answer(500, body="sEcReT"), Answer(404, body="sEcReT")) as server:
        failures += [attempt(webhook(server.url), message(), LIMIT_S) for _ in range(2)]
    failures.append(attempt(webhook(server.url), message(), LIMIT_S))
    with odd(hang_up(b"no web server, but /services/sEcReT\r\n")) as rude:
        url = f"http://127.0.0.1:{rude.port}/services/sEcReT"
        failures.append(attempt(webhook(url), message(), LIMIT_S))
    assert all(failure is not None for failure in failures)
    assert "sEcReT" not in json.dumps([str(failure) for failure in failures])
    assert capfd.readouterr() == ("", "")
