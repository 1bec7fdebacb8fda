"""The scene of a run: a server, a proxy before it, a bot, a worker, and the record beside them."""

import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson
import redis

from engine.bootstrap import new_core, store_of
from engine.config import Config, load_config
from engine.core import Core
from engine.fitting import InlineFitter
from snapshots import SnapshotInfo, SnapshotStore
from streams import ConnectionLost, Keys, RawEntry, order, read_entry
from streams.events import Close, Signal
from tests.chaos.bot import Bot
from tests.chaos.checks import Verdict, check, published
from tests.chaos.launcher import Order
from tests.chaos.processes import Launcher, RedisServer, Stuck, Worker, wait_until
from tests.chaos.proxy import Proxy
from tests.chaos.record import Record

LEASE_S = 0.5
EVERY = 40
"""Entries between snapshots."""
SETTINGS = f"""
# Workers sign what they measure: here any decision is late, so that there is something to sign.
control_key = "the control key of the chaos"

[worker]
batch = 16
lease_ms = {int(LEASE_S * 1000)}

[snapshots]
directory = "snapshots"
every = {EVERY}
keep = 8
retain = 200

[http]
enabled = false

[core.rollout]
mode = "canary"
stages = [50.0, 90.0]
min_days = 0.0
promotion = "automatic"

[core.safety.triggers.latency]
threshold = 1.0
window = 20
cool_down_minutes = 30.0

[core.experts.base_rate]
kind = "base_rate"

[core.experts.logistic]
kind = "logistic"

[core.experts.bayes]
kind = "bayes"

[core.experts.forest]
kind = "forest"
params = {{ n_models = 3 }}

[core.refit]
every = 40
lag = 10
window = 240
holdout = 40
tolerance = 0.1

[core.refit.params]
rounds = 5
min_data_in_leaf = 10
"""


class Scene:
    """Everything that faults happen to, in one folder.

    Parameters
    ----------
    folder
        Empty; for all files of all processes.
    lines
        The tape that the bot publishes.
    seed
        Of the bot's mistakes and of the faults' chances.
    launcher
        Starts the workers; it stays the caller's to close.
    """

    def __init__(self, folder: Path, lines: list[bytes], seed: int, launcher: Launcher) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        (folder / "closeloop.toml").write_text(SETTINGS)
        (folder / "logs").mkdir()
        (folder / "snapshots").mkdir()
        config = load_config(folder / "closeloop.toml")
        snapshots = config.snapshots.model_copy(update={"directory": folder / "snapshots"})
        self.config: Config = config.model_copy(update={"snapshots": snapshots})
        self._servers = 0
        self.server = self.new_server()
        self.launcher = launcher
        self.server.start()
        self.proxy = Proxy(self.server.port)
        self.record = Record(self.server.port)
        self.bot = Bot(lines, self.proxy.port, seed)
        self._positions = {line: number for number, line in enumerate(lines)}
        self.worker: Worker | None = None
        self.verdict = Verdict()
        self.lost = 0
        """Entries that servers lost so far."""
        self.resources: dict[int, tuple[int, int]] = {}
        """Each worker's open files and resident bytes when it was first seen at rest."""
        self.growth = 0
        """The most bytes by which a worker's memory has grown since."""

    def close(self) -> None:
        """End every process."""
        self.bot.close()
        self.launcher.end_workers()
        self.proxy.close()
        self.record.close()
        self.server.close()

    # Processes

    def new_server(self) -> RedisServer:
        """Another server, not started."""
        self._servers += 1
        return RedisServer(self.folder / f"server-{self._servers}")

    @property
    def client(self) -> redis.Redis:
        """A way to the server that no fault lies on."""
        return self.server.client

    def start(
        self, die_at: str | None = None, nth: int = 1, skew_s: float = 0.0, anew: bool = False
    ) -> Worker:
        """Start a worker, and don't wait for it."""
        log = self.folder / "logs" / f"worker-{self.launcher.starts + 1}.log"
        arguments = ["run", "--config", "closeloop.toml", "--address", self.proxy.address]
        order = Order(arguments, str(self.folder), str(log), die_at, nth, skew_s)
        return self.launcher.start_anew(order) if anew else self.launcher.start(order)

    def said(self, worker: Worker, what: str) -> int:
        """How often a worker's log has said something so far."""
        log = Path(worker.order.log)
        return log.read_bytes().count(b'"event": "%b"' % what.encode()) if log.exists() else 0

    def log(self, worker: Worker) -> list[dict[str, object]]:
        """What a worker's log says."""
        lines = Path(worker.order.log).read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]

    def recovered(self, worker: Worker) -> bool:
        """Whether a worker has said that it recovered."""
        return self.said(worker, "recovered") > 0

    def running(self) -> Worker:
        """The worker; started if none runs."""
        if self.worker is None or not self.worker.alive:
            anew = self.launcher.starts % 20 == 19
            self.worker = self.start(anew=anew)
            worker = self.worker
            self.until(lambda: self.recovered(worker), "a worker has recovered", worker)
        return self.worker

    def end_worker(self) -> None:
        """End the worker in good order, if one runs."""
        if self.worker is not None and self.worker.alive:
            self.worker.send(signal.SIGTERM)
            status = self.worker.gone("the worker has stopped in good order")
            self.verdict.require(
                status == 0, "bad exit", f"{status} after SIGTERM:{self.tail(self.worker)}"
            )
        self.worker = None

    def until(
        self, happened: Callable[[], object], what: str, worker: Worker | None = None
    ) -> None:
        """Wait, recording; raises `Stuck` when `worker` ends meanwhile."""

        def look() -> object:
            self.poll()
            if happened():
                return True
            if worker is not None and not worker.alive:
                raise Stuck(f"it ended with {worker.status} before {what}:{self.tail(worker)}")
            return False

        wait_until(look, what)

    def tail(self, worker: Worker) -> str:
        """The last lines of a worker's log."""
        log = Path(worker.order.log)
        return "\n" + "\n".join(log.read_text().splitlines()[-24:]) if log.exists() else ""

    # The stream

    def poll(self) -> None:
        """Record what has come, if the server can be asked."""
        with suppress(ConnectionLost):
            self.record.poll()

    def flow(self, events: int) -> None:
        """Let the bot publish so many lines more."""
        self.bot.allow(max(self.bot.limit, self.bot.cursor) + events)

    def caught_up(self) -> bool:
        """Whether all that the bot may publish is published and committed."""
        if not self.bot.done:
            return False
        try:
            self.record.poll()
            return self.record.checkpoint() == self.record.last
        except ConnectionLost:
            return False

    def settle(self) -> None:
        """Wait until the worker has committed all."""
        worker = self.running()
        try:
            self.until(self.caught_up, "everything published is committed", worker)
        except Stuck as stuck:
            worker.send(signal.SIGUSR1)
            at = f"{self.record.checkpoint()} of {self.record.last}, line {self.bot.cursor}"
            raise Stuck(f"{stuck}; it is at {at} of {self.bot.limit}{self.tail(worker)}") from None

    def first_lost(self, lost: list[RawEntry]) -> int:
        """The first line of the tape that went with what was lost; the bot goes on from there."""
        numbers = [self._positions[raw.data] for raw in lost if raw.data in self._positions]
        return min(numbers, default=self.bot.cursor)

    def open_signals(self) -> list[bytes]:
        """The lines of signals published whose close isn't."""
        opened: dict[str, bytes] = {}
        for line in self.bot.lines[: self.bot.cursor]:
            event = read_entry("", line).event
            if isinstance(event, Signal):
                opened[event.signal_id] = line
            elif isinstance(event, Close):
                opened.pop(event.signal_id, None)
        return list(opened.values())

    def require_resources(self) -> None:
        """Hold a worker that has lived through a fault to its open files and memory before it."""
        worker = self.worker
        if worker is None or not worker.alive:
            return
        if worker.pid not in self.resources:
            self.settle()
            self.resources[worker.pid] = worker.files(), worker.resident_bytes()
            return
        files, memory = self.resources[worker.pid]
        try:
            wait_until(lambda: worker.files() <= files, "files are closed", 5.0)
        except Stuck:
            self.verdict.require(False, "files left open", f"{worker.files()}, {files} before")
        self.growth = max(self.growth, worker.resident_bytes() - memory)

    # Losses

    def last_alert(self) -> str:
        """The ID of the newest alert."""
        found = self.client.xrevrange(Keys().alerts, count=1)
        return found[0][0].decode() if found else "0-0"

    def reported_since(self, alert: str) -> list[str]:
        """Up to where the worker's own alerts after `alert` say that the input survived."""
        found = published(self.client).own_alerts
        return [own["subject"] for name, own in found if order(name) > order(alert)]

    def require_report(self, before: str, known: str | None) -> None:
        """Hold the worker to its report of a loss, if one is due.

        `before` is the last alert before it; `known` is up to where someone knew that the server
        held everything, or None when nobody can know of the loss.
        """
        if known is not None:
            with suppress(Stuck):
                wait_until(lambda: self.reported_since(before), "the loss is reported", 10.0)
        told = self.reported_since(before)
        if known is None:
            self.verdict.require(not told, "losses reported that were none", str(told))
            return
        ids = [raw.id for raw in self.record.entries if order(raw.id) <= order(known)]
        survived = ids[-1] if ids else "0-0"
        self.verdict.require(
            told == [survived],
            "losses not reported as they are",
            f"it survived up to {survived} of {known}; told: {told}",
        )

    def snapshots(self) -> list[SnapshotInfo]:
        """The store's snapshots, newest first."""
        return [info for info in self.store().list() if isinstance(info, SnapshotInfo)]

    def store(self) -> SnapshotStore:
        return store_of(self.config)

    # The end

    def new_core(self) -> Core:
        """A core like the worker's."""
        return new_core(self.config, InlineFitter())

    def judge(self) -> Verdict:
        """Stop the worker and check the history so far."""
        self.settle()
        self.end_worker()
        self.record.poll()
        self.record.require_whole()
        entries: list[RawEntry] = self.record.entries
        verdict = check(entries, published(self.client), self.new_core())
        self.verdict.add(verdict)
        return self.verdict


def lines_of(events: list[bytes]) -> list[bytes]:
    """A tape's lines, each of them unlike all others, so that they can be told apart."""
    seen: set[bytes] = set()
    for line in events:
        orjson.loads(line)
        if line in seen:
            raise ValueError(f"the tape has a line twice: {line!r:.200}")
        seen.add(line)
    return events
