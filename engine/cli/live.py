"""`closeloop run`, `replay`, `status`: serve a shard, run a log through the same core, look on."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Annotated

import orjson
import structlog
import typer

from engine.api.listening import is_local, listen
from engine.api.mailbox import Mailbox
from engine.bootstrap import keys_of, new_core, new_worker, process_fitter, snapshot_key_of
from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    busy,
    note,
    print_json,
    print_table,
    progress,
    settings,
)
from engine.config import Config
from engine.logs import configure_logs
from engine.metrics import Metrics
from engine.notify import notifying
from engine.replay import replay as replay_tape
from engine.snapshotting import TAPE, take, to_bytes
from engine.status import status as read_status
from engine.worker import Worker
from learners import warm_up
from streams.connection import connect
from streams.tape import Tape


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command("run")(run)
    app.command("replay")(replay)
    app.command("status")(status)


def run(
    config: ConfigOption = None,
    address: AddressOption = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Stop when nothing new came for a second.")
    ] = False,
    standby: Annotated[
        bool, typer.Option("--standby", help="Follow the worker at work, and take over from it.")
    ] = False,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--start-from",
            metavar="SNAPSHOT",
            help="On a stream not served yet, go on from this one, such as `replay --save` wrote.",
        ),
    ] = None,
) -> None:
    """Serve the shard: decide every signal, learn from every close, until stopped.

    SIGTERM and Ctrl-C stop it in good order, with a last snapshot. After a crash the next start
    goes on where the last commit was.

    A standby holds the same state, writes the snapshots, and takes over within `worker.lease_ms` of
    the leader's death.
    """
    chosen = settings(config, address)
    configure_logs(chosen.log)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    metrics, mailbox = Metrics(), Mailbox()
    with busy("compiling, at the first start only"):
        warm_up()
    with (
        connect(chosen.stream.address) as connection,
        new_worker(chosen, connection, metrics, stop, start_from, mailbox) as worker,
        serving_http(chosen, metrics, worker, mailbox),
        notifying(
            chosen.notify, chosen.stream.address, keys_of(chosen), metrics, lambda: worker.ready
        ),
    ):
        worker.run(until_idle, standby)


@contextmanager
def serving_http(
    config: Config, metrics: Metrics, worker: Worker, mailbox: Mailbox
) -> Iterator[None]:
    """Metrics, health and control, for as long as the worker runs."""
    if not config.http.enabled:
        yield
        return
    # Not at the top: they take long to load, and no other command needs them.
    from engine.api.app import Health, new_app
    from engine.api.server import HttpServer

    with (
        listen(config.http.host, config.http.port) as listener,
        connect(config.stream.address) as connection,
    ):
        app = new_app(
            config,
            connection,
            metrics.registry,
            lambda: Health(alive=True, ready=worker.ready, detail=worker.position),
            mailbox,
            is_local(listener),
        )
        server = HttpServer(listener, app)
        structlog.get_logger().info("serving_http", host=config.http.host, port=server.port)
        try:
            yield
        finally:
            server.close()


def replay(
    tapes: Annotated[list[Path], typer.Argument(help="Tapes, in order: .jsonl, .gz or .zst.")],
    config: ConfigOption = None,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT", help="Write the figures there; -: standard output."),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="SNAPSHOT", help="Write the final state there."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay N events at most.")] = None,
) -> None:
    """Run recorded events through the same core as live, and say how it did.

    The same events give the same decisions, byte for byte. With --save the final state becomes a
    snapshot that `closeloop run --start-from` goes on from: no second training.
    """
    chosen = settings(config)
    tape = Tape(*tapes)
    with busy("compiling, at the first start only"):
        warm_up()
    with process_fitter() as fitter, progress() as bar:
        core = new_core(chosen, fitter)
        task = bar.add_task("replaying", total=1.0)
        figures = replay_tape(
            core, islice(tape, limit), lambda _: bar.update(task, completed=tape.progress)
        )
    if save is not None:
        save.write_bytes(to_bytes(take(core, TAPE, None), snapshot_key_of(chosen)))
        note(f"the final state is in {save}; go on live with `closeloop run --start-from {save}`")
    if json_out is None:
        show(figures)
    elif str(json_out) == "-":
        print_json(figures)
    else:
        json_out.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))


def status(
    config: ConfigOption = None, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Say where the shard stands: its worker, checkpoint, lag and digests."""
    chosen = settings(config, address)
    with connect(chosen.stream.address) as connection:
        found = read_status(connection, keys_of(chosen))
    if as_json:
        print_json(found)
        return
    lengths = found.pop("streams")
    assert isinstance(lengths, dict)
    print_table("shard", ["", "value"], [[name, value] for name, value in found.items()])
    print_table("streams", ["", "entries"], [[name, length] for name, length in lengths.items()])


def show(figures: Mapping[str, object]) -> None:
    """The figures of a replay, as people read them."""
    nested = {name: value for name, value in figures.items() if isinstance(value, Mapping)}
    plain = [[name, value] for name, value in figures.items() if name not in nested]
    print_table("replay", ["", "value"], plain)
    for title, columns, group in (
        ("trades", ["count", "win_rate", "avg_return_pct"], ("offered", "taken")),
        ("by action", ["count", "win_rate", "avg_return_pct"], nested["by_action"]),
        ("experts", ["log_loss", "auc", "weight"], nested["experts"]),
    ):
        source = nested if isinstance(group, tuple) else group
        rows = [[name, *(source[name].get(column) for column in columns)] for name in group]
        print_table(title, ["", *columns], rows)
    safety = nested["safety"]
    fired = {name: count for name, count in safety["fired"].items() if count}
    rows = [["state", safety["state"]], *([f"fired: {name}", n] for name, n in fired.items())]
    print_table("kill switch", ["", "value"], rows)
    for name in ("drifts", "refits", "latency_us"):
        print_table(name, ["", "value"], [[key, value] for key, value in nested[name].items()])
