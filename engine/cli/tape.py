"""`closeloop publish` and `record`: tapes into the streams, and the streams into tapes."""

import re
import signal
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Annotated, cast

import typer

from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    note,
    print_json,
    print_table,
    progress,
    settings,
)
from engine.publishing import Publisher
from engine.recording import next_id, recorded
from streams.connection import connect
from streams.errors import StreamError, TapeError
from streams.keys import Keys
from streams.tape import Line, Tape, write_tape
from streams.transport import START, RedisTransport

_ID = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)


class Recordable(StrEnum):
    """The streams that can be recorded."""

    EVENTS = "events"
    DECISIONS = "decisions"
    OUTCOMES = "outcomes"
    ALERTS = "alerts"
    MODELS = "models"
    DEAD = "dead"


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command("publish")(publish)
    app.command("record")(record)


def publish(
    tapes: Annotated[
        list[Path], typer.Argument(help="Tapes, in order: .jsonl, .jsonl.gz or .jsonl.zst.")
    ],
    speed: Annotated[
        float,
        typer.Option(min=0.0, help="Times the tape's own pace; 0: as fast as it goes."),
    ] = 0.0,
    skip: Annotated[int, typer.Option(min=0, help="Leave out the first N lines.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Publish N lines at most.", show_default="all")
    ] = None,
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish tapes into the events stream, every line as it stands.

    Lines that are no events are published as well: the worker puts them where a bot's mistakes go,
    with the reason. Blank lines don't count. With several shards a close goes where its signal
    went; controls and lines without a shard go to shard 0. An interrupted run says with which
    --skip it goes on; what it sends twice then is known by its signal_id.
    """
    stream = settings(config, address).stream
    tape = Tape(*tapes)
    end = None if limit is None else skip + limit
    with (
        connect(stream.address) as connection,
        closing(cast("Generator[Line]", iter(tape))) as lines,
        progress() as bar,
    ):
        publisher = Publisher(connection, stream.prefix, stream.shards, speed)
        task = bar.add_task("publishing", total=1.0)
        started = perf_counter()
        try:
            wanted = islice(lines, skip, end)
            publisher.publish(wanted, lambda: bar.update(task, completed=tape.progress))
        except (KeyboardInterrupt, StreamError):
            note(f"{publisher.sent:,} lines are in; go on with --skip {skip + publisher.sent}")
            raise
        seconds = perf_counter() - started
    figures = {"lines": publisher.sent, **publisher.kinds, "seconds": round(seconds, 3)}
    if as_json:
        print_json(figures)
    else:
        print_table("published", ["", "count"], [[name, value] for name, value in figures.items()])


def record(
    out: Annotated[Path, typer.Argument(help="The tape: .jsonl, .jsonl.gz or .jsonl.zst.")],
    stream: Annotated[Recordable, typer.Option(help="Which stream.")] = Recordable.EVENTS,
    start: Annotated[
        str, typer.Option("--from", metavar="ID", help="The stream ID to begin with.")
    ] = START,
    keep_on: Annotated[bool, typer.Option("--follow", help="Wait for more until stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the tape.")] = False,
    config: ConfigOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record a stream of one shard into a tape, in order.

    A tape of the events replays to the same decisions, byte for byte: closeloop replay OUT. The
    shard is stream.shard of the settings; with several, make one tape each. Ctrl-C or SIGTERM ends
    the recording with what there is; only then does the tape appear, whole. A line end inside an
    entry becomes a blank in an event and a NUL in anything else, so that each entry is one line and
    a dead letter stays one.
    """
    where = settings(config, address).stream
    if not _ID.fullmatch(start):
        raise typer.BadParameter(
            f"{start!r} is no stream ID like 1746105000000-0", None, None, "--from"
        )
    if out.exists() and not force:
        raise TapeError(f"{out} exists; name another file, or overwrite it with --force")
    keys = Keys(where.shard, where.prefix)
    key = cast(str, getattr(keys, stream))
    with connect(where.address) as connection, progress() as bar:
        if stream == Recordable.EVENTS:
            _note_missing(RedisTransport(connection, keys), start)
        total = connection.retrying(lambda: connection.redis.xlen(key))
        task = bar.add_task("recording", total=None if keep_on or start != START else total)
        count, last = 0, start
        with _stopping() as stop, write_tape(out) as tape:
            for found in recorded(connection, key, start, keep_on):
                for _, data in found:
                    tape.write(data)
                if found:
                    count, last = count + len(found), found[-1][0]
                    bar.update(task, completed=count)
                if stop.is_set():
                    break
    next_start = next_id(last) if count else start
    if as_json:
        print_json({"stream": key, "entries": count, "next": next_start})
        return
    typer.echo(f"{count:,} entries of {key} in {out}; go on with --from {next_start}")


def _note_missing(transport: RedisTransport, start: str) -> None:
    """Say so when the stream no longer holds what was asked for."""
    trimmed = transport.checkpoint().trimmed
    if not (trimmed == START or transport.reaches_back_to(start)):
        note(f"entries below {trimmed} were trimmed: a replay of this tape lacks that history")


@contextmanager
def _stopping() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set, so that no line is cut in two."""
    stop = Event()
    handlers = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
