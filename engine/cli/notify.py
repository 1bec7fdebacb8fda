"""`closeloop notify`: does an alert reach people?"""

from datetime import UTC, datetime
from time import perf_counter

import typer

from engine.bootstrap import keys_of
from engine.cli.options import ConfigOption, JsonOption, busy, print_json, print_table, settings
from engine.config import ConfigError
from engine.notify import Message, attempt, receivers_of, source_of
from streams.events import Alert


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("notify")(notify)


def notify(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send a test alert to each configured receiver now, and say what came of it.

    One try each, whatever the least severity it is to get. Exit status 1 if one wasn't reached.
    """
    chosen = settings(config)
    receivers = receivers_of(chosen.notify)
    if not receivers:
        raise ConfigError(
            "nobody is told of alerts: set notify.webhook.url, or notify.email.host and"
            " notify.email.recipients"
        )
    now = datetime.now(UTC)
    test = Message(
        source=source_of(keys_of(chosen)),
        entry_id="",
        alert=Alert(
            ts=now,
            severity="info",
            code="test",
            subject="closeloop notify",
            message="This is a test: alerts reach you here.",
        ),
    )
    found: list[dict[str, object]] = []
    for receiver in receivers:
        started = perf_counter()
        with busy(f"telling {receiver.name}"):
            failure = attempt(receiver, test, chosen.notify.timeout_s)
        found.append(
            {
                "receiver": receiver.name,
                "reached": failure is None,
                "detail": str(failure) if failure else None,
                "seconds": round(perf_counter() - started, 3),
            }
        )
    if as_json:
        print_json({"receivers": found})
    else:
        rows = [list(row.values()) for row in found]
        print_table("a test alert", ["receiver", "reached", "why not", "seconds"], rows)
    if not all(row["reached"] for row in found):
        raise typer.Exit(1)
