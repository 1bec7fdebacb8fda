"""A shadow copy: a server, a shard and workers of its own, in a folder that goes when it is over.

It has the live system's settings under `core`, a state and input of its own making from `Source`,
and keys that are thrown away: what happens in it reaches nobody.
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

from pydantic import SecretStr

from engine.bootstrap import keys_of, new_core, snapshot_key_of, store_of
from engine.config import Config, HttpConfig, LogConfig, NotifyConfig, SnapshotConfig
from engine.core import Core
from engine.drills.processes import POLL_S, DrillError, Worker, heard_later, wait_until
from engine.drills.source import Source
from engine.fitting import InlineFitter
from engine.sending import control_key_of, send, signed
from engine.snapshotting import TAPE, take, to_bytes
from engine.stretch import Stretches, Verified
from snapshots import SnapshotInfo
from streams import Connection, Decision, RedisTransport, Signal, connect, order, read_entry
from streams.events import decode_output

BY = "drill"
REASON = "a drill on a shadow copy"
SNAPSHOTS = 8
"""How many snapshots a worker takes while it works through the whole input."""
_REMOVALS = 100
_KEPT = 50
_BATCH = 500


class ShadowCopy:
    """The copy, while a drill is on.

    Parameters
    ----------
    config
        Its own.
    source
        What it is made of.
    folder
        Where everything of it lies.
    connection
        To its server.
    progress
        Is told what happens, for people.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        folder: Path,
        connection: Connection,
        progress: Callable[[str], None],
    ) -> None:
        self.config = config
        self.source = source
        self.folder = folder
        self.connection = connection
        self.progress = progress
        self.keys = keys_of(config)
        self.transport = RedisTransport(connection, self.keys)
        self.store = store_of(config)
        self.published = 0
        """How much of the source's input is in."""
        self.workers: list[Worker] = []
        self._base: Path | None = None
        if source.state is not None:
            core = new_core(config, InlineFitter())
            core.restore(source.state)
            self._base = folder / "base.clsnap"
            self._base.write_bytes(to_bytes(take(core, TAPE, None), snapshot_key_of(config)))

    @property
    def events(self) -> int:
        """How much input the source has."""
        return len(self.source.entries)

    # Workers

    def start(self, *options: str) -> Worker:
        """Start a worker, a standby when the options say so."""
        base = () if self._base is None else ("--start-from", str(self._base))
        log = self.folder / f"worker-{len(self.workers) + 1}.log"
        # One that isn't known would live on, and make folder and server anew.
        with heard_later():
            worker = Worker(self.config, self.folder, log, [*base, *options])
            self.workers.append(worker)
        return worker

    def wait(
        self,
        happened: Callable[[], bool],
        what: str,
        worker: Worker,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait for something that a worker does."""
        wait_until(happened, what, [worker], meanwhile)

    def end(self) -> None:
        """End every worker that is left."""
        for worker in self.workers:
            worker.kill()

    # The input

    def publish(self, until: int) -> str:
        """Put the source's input in, up to its entry number `until`; the last one's ID."""
        rest = self.source.entries[self.published : until]
        last = self.transport.last_id()
        for start in range(0, len(rest), _BATCH):
            pipeline = self.connection.redis.pipeline(transaction=False)
            for data in rest[start : start + _BATCH]:
                pipeline.xadd(self.keys.events, {"e": data})
            last = self.connection.retrying(pipeline.execute)[-1].decode()
        self.published += len(rest)
        return last

    def publish_and_wait(self, until: int, worker: Worker) -> None:
        """The same, until the worker has committed it."""
        last = self.publish(until)
        self.wait(lambda: self.is_committed(last), f"{last} is committed", worker)

    def publish_to_signal(self, worker: Worker) -> None:
        """Put in what comes before the next signal, and wait until it is committed.

        Raises `DrillError` when there is none.
        """
        for number in range(self.published, self.events):
            if isinstance(read_entry("0-1", self.source.entries[number]).event, Signal):
                self.publish_and_wait(number, worker)
                return
        raise DrillError("the input has no signal left; give more events with --events")

    def next_decision(self, worker: Worker) -> Decision:
        """Put in one signal after the other until one is decided; that decision."""
        while True:
            self.publish_to_signal(worker)
            entry = self.publish(self.published + 1)
            self.wait(partial(self.is_committed, entry), f"signal {entry} is decided", worker)
            found = self.read(self.keys.decisions, entry, entry)
            if found:
                return decode_output(Decision, found[0][1])

    def tell(self, command: str, **args: float | bool | str | None) -> str:
        """Give a command, signed with the copy's own key; its entry's ID."""
        data = signed(control_key_of(self.config), command, BY, REASON, args)
        return send(self.connection, self.keys, data)

    def require_obeyed(self, entry: str) -> None:
        """Raise `DrillError` if the command of that entry was refused."""
        for _, data in self.read(self.keys.dead):
            if f'"entry_id":"{entry}"'.encode() in data:
                raise DrillError(f"the engine refused a command of the drill: {data.decode()}")

    # What there is to see

    def is_committed(self, entry: str) -> bool:
        """Whether everything up to that input ID is."""
        return order(self.transport.checkpoint().position) >= order(entry)

    def read(self, stream: str, first: str = "-", last: str = "+") -> list[tuple[str, bytes]]:
        """A stream's entries between two IDs: ID and bytes."""
        found: Any = self.connection.retrying(
            lambda: self.connection.redis.xrange(stream, first, last)
        )
        return [(entry_id.decode(), fields[b"e"]) for entry_id, fields in found]

    def decisions(self, after: str = "0-0") -> dict[str, Decision]:
        """All decisions after an input ID, by theirs."""
        return {
            entry_id: decode_output(Decision, data)
            for entry_id, data in self.read(self.keys.decisions, f"({after}")
        }

    def snapshots(self) -> list[SnapshotInfo]:
        """The copy's snapshots, newest first."""
        return [info for info in self.store.list() if isinstance(info, SnapshotInfo)]

    def core(self) -> Core:
        """A core in this process, in the state in which the copy began."""
        core = new_core(self.config, InlineFitter())
        if self._base is not None:
            core.restore(self.store.load(self._base, config_digest=core.config.digest).tree)
        return core

    def verify(self) -> Verified:
        """Run the copy's whole input again, and compare what was published byte for byte."""
        self.progress("running everything again")
        fitter = InlineFitter()
        return Stretches(
            self.connection, self.keys, self.store, lambda: new_core(self.config, fitter)
        ).verify()


@contextmanager
def shadow_copy(
    config: Config,
    source: Source,
    keep: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[ShadowCopy]:
    """A copy of its own folder, server and keys; all of it is gone on the way out.

    Parameters
    ----------
    config
        The live system's.
    source
        What the copy is made of.
    keep
        Whether the folder stays, to be looked at.
    progress
        Is told what happens, for people.

    Raises `AddressError` when no server can be run on this machine.
    """
    folder = Path(tempfile.mkdtemp(prefix="closeloop-drill-"))
    try:
        own = copied(config, folder, len(source.entries))
        with connect(own.stream.address) as connection:
            copy = ShadowCopy(own, source, folder, connection, progress)
            try:
                yield copy
            finally:
                copy.end()
    finally:
        if keep:
            progress(f"everything of the copy is in {folder}")
        else:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the folder, though a server that is ending may still write its last in it."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        sleep(POLL_S)


def copied(config: Config, folder: Path, events: int) -> Config:
    """The live configuration as a copy has it: elsewhere, with other keys, and telling nobody."""
    return config.model_copy(
        update={
            "stream": config.stream.model_copy(update={"address": f"embedded://{folder}/server"}),
            "snapshots": SnapshotConfig(
                directory=folder / "snapshots",
                every=max(events // SNAPSHOTS, 1),
                keep=_KEPT,
                retain=config.snapshots.retain,
                key=SecretStr(secrets.token_hex(32)),
            ),
            "http": HttpConfig(enabled=False),
            "notify": NotifyConfig(),
            "log": LogConfig(level="info", format="json"),
            "control_key": SecretStr(secrets.token_hex(32)),
        }
    )
