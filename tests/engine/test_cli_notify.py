"""`closeloop notify` as a user meets it."""

from pathlib import Path

import orjson

from tests.engine.conftest import Command
from tests.engine.receivers import Answer, closed_port, mailbox, web


def settings(url: str | None = None, port: int | None = None) -> None:
    """Write them into this folder."""
    webhook = f'[notify.webhook]\nurl = "{url}"\n' if url else ""
    email = (
        f'[notify.email]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\n'
        'recipients = ["ops@example.com"]\n'
        if port
        else ""
    )
    Path("closeloop.toml").write_text(webhook + email)


def test_every_receiver_gets_a_test_alert_however_severe_its_alerts_must_be(
    closeloop: Command,
) -> None:
    with web() as hooked, mailbox() as posted:
        settings(hooked.url, posted.port)
        ran = closeloop("notify")
    assert ran.status == 0, ran.err
    assert "INFO: test" in hooked.posted.items[0]["text"]
    assert "INFO: test" in posted.mails.items[0]["Subject"]
    assert "webhook" in ran.out
    assert "email" in ran.out


def test_when_one_is_not_reached_it_says_why_without_the_url_and_fails(
    closeloop: Command,
) -> None:
    with web(Answer(404, body="no_service")) as hooked, mailbox() as posted:
        settings(hooked.url, posted.port)
        ran = closeloop("notify", "--json")
    assert ran.status == 1
    found = {row["receiver"]: row for row in orjson.loads(ran.out)["receivers"]}
    assert (found["webhook"]["reached"], found["email"]["reached"]) == (False, True)
    assert found["webhook"]["detail"] == "it answered HTTP 404, no_service"
    assert "sEcReT" not in ran.out + ran.err


def test_a_server_that_is_away_is_said_in_a_table(closeloop: Command) -> None:
    settings(port=closed_port())
    ran = closeloop("notify")
    assert ran.status == 1
    assert "Connection refused" in ran.out


def test_with_nobody_to_tell_it_says_what_to_set(closeloop: Command) -> None:
    ran = closeloop("notify")
    assert ran.status == 2
    assert "notify.webhook.url" in ran.err
    assert "notify.email.host" in ran.err
