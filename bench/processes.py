"""The processes of a live bench: a bot, a worker and a consumer, each a real one of its own.

Bot and consumer speak to the server without redis-py's pipelines, so that they cost the machine as
little as can be. Times are `time.monotonic_ns`, which all processes of a machine share.
"""

import gc
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection as Link
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any, Generic, Protocol, TypeVar

from bench.results import BenchError
from streams import Keys, connect

CLOSELOOP = [sys.executable, "-c", "from engine.cli import main; main()", "run"]
ECHO = [sys.executable, str(Path(__file__).with_name("echo.py"))]
GROUP_ECHO = [*ECHO, "--group"]
PATIENCE_S = 120.0
"""How long nothing may happen before a bench gives up: kernels may have to be compiled."""
BATCH = 512
"""As the engine's worker has by default."""
_LEAD_NS = 50_000_000
_PACK = 500
_READ = 1_000

Sent = tuple[list[bytes], list[int]]
"""IDs of the signals published, and when each was due, ns."""
Received = tuple[list[bytes], list[int]]
"""IDs of the decisions received, and when, ns."""
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Publish:
    """An order to the bot: publish `slots` at `rate` signals a second, `math.inf` flat out.

    Open loop: each slot has its time beforehand, and is due then however late the one before was.
    """

    stream: str
    slots: Sequence[Sequence[bytes]]
    rate: float

    def __call__(self, server: Any) -> Sent:
        """Publish them."""
        ids: list[bytes] = []
        due: list[int] = []
        first = monotonic_ns() + _LEAD_NS
        gap = 0.0 if math.isinf(self.rate) else 1e9 / self.rate
        done = 0
        while done < len(self.slots):
            now = monotonic_ns()
            early = first + int(done * gap) - now
            if early > 0:
                sleep(early / 1e9)
                continue
            # All that are due by now go in one write.
            stop = done + 1
            while stop < min(len(self.slots), done + _PACK) and first + int(stop * gap) <= now:
                stop += 1
            ready = self.slots[done:stop]
            commands = [("XADD", self.stream, "*", "e", data) for slot in ready for data in slot]
            server.send_packed_command(server.pack_commands(commands))
            ids += [[server.read_response() for _ in slot][-1] for slot in ready]
            due += [first + int(number * gap) for number in range(done, stop)]
            done = stop
        return ids, due


@dataclass(frozen=True, slots=True)
class Receive:
    """An order to the consumer: read `count` decisions after an ID."""

    stream: str
    after: bytes
    count: int

    def __call__(self, server: Any) -> Received:
        """Read them, or what came before nothing more came for long."""
        ids: list[bytes] = []
        times: list[int] = []
        after = self.after
        patience = monotonic() + PATIENCE_S
        while len(ids) < self.count and monotonic() < patience:
            server.send_command(
                "XREAD", "COUNT", _READ, "BLOCK", 1_000, "STREAMS", self.stream, after
            )
            reply = server.read_response()
            now = monotonic_ns()
            if reply:
                found = [entry[0] for entry in reply[0][1]]
                after = found[-1]
                ids += found
                times += [now] * len(found)
                patience = monotonic() + PATIENCE_S
        return ids, times


class Order(Protocol[R_co]):
    """What a servant can be told to do with its server connection."""

    def __call__(self, server: Any) -> R_co:
        """Do it."""
        ...


class Servant(Generic[R]):
    """A process that carries out orders, one after another.

    It is started as a program, not by `multiprocessing`, which would import the bench's own main
    module there, and the whole engine with it.
    """

    def __init__(self, address: str, name: str) -> None:
        self._name = name
        near_end, far_end = Pipe()
        code = "import sys; from bench.processes import serve; serve(int(sys.argv[1]), sys.argv[2])"
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, str(far_end.fileno()), address],
                pass_fds=[far_end.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._link: Link = near_end

    def begin(self, order: Order[R]) -> None:
        """Have it start."""
        self._link.send(order)

    def ready(self, seconds: float) -> bool:
        """Wait so long for what comes of the order begun; whether it is there."""
        return self._link.poll(seconds)

    def result(self) -> R:
        """What came of the order begun, when it is there. Raises `BenchError` if it died of it."""
        try:
            found: R = self._link.recv()
        except EOFError:
            raise BenchError(f"the {self._name} died") from None
        return found

    def close(self) -> None:
        """End it: it goes when the link does."""
        self._link.close()
        _reap(self._process, 5.0)


def serve(descriptor: int, address: str) -> None:
    """Carry out orders from the link until its other end is gone."""
    link: Link = Link(descriptor)
    with connect(address) as connection:
        pool = connection.redis.connection_pool
        server = pool.get_connection()
        # A collection here would be taken for a late decision.
        gc.disable()
        try:
            while True:
                link.send(link.recv()(server))
                gc.collect()
        except (EOFError, BrokenPipeError):
            pass
        finally:
            pool.release(server)


def _reap(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until a process has ended, and kill it when that takes too long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def servant(address: str, name: str) -> Iterator[Servant[Any]]:
    """A bot or a consumer, ended on the way out."""
    found: Servant[Any] = Servant(address, name)
    try:
        yield found
    finally:
        found.close()


class Worker:
    """A worker process for a shard: ours or the echo.

    Parameters
    ----------
    command
        `CLOSELOOP`, `ECHO` or `GROUP_ECHO`.
    address, keys
        What it serves.
    folder
        Its own: settings aren't found there, logs and snapshots go there.
    settings
        Its configuration by path, such as ``{"SNAPSHOTS__EVERY": 1000}``; an echo has none.
    batch
        Input entries in a commit, at most.
    """

    def __init__(
        self,
        command: Sequence[str],
        address: str,
        keys: Keys,
        folder: Path,
        settings: Mapping[str, object] | None = None,
        batch: int = BATCH,
    ) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "worker.log"
        if command is CLOSELOOP:
            arguments = [*command, "--address", address]
        else:
            arguments = [*command, address, "--prefix", keys.prefix, "--batch", str(batch)]
        given = {
            "HTTP__ENABLED": "false",
            "STREAM__PREFIX": keys.prefix,
            "WORKER__BATCH": batch,
            "SNAPSHOTS__DIRECTORY": str(folder / "snapshots"),
            **(settings or {}),
        }
        # Another worker's settings, from the user's environment, are none of this one's.
        ours = {k: v for k, v in os.environ.items() if not k.startswith("CLOSELOOP_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=ours | {f"CLOSELOOP_{name}": str(value) for name, value in given.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def check(self) -> None:
        """Raise `BenchError` if it has ended."""
        if self._process.poll() is not None:
            raise self.failed("ended by itself")

    def failed(self, how: str) -> BenchError:
        """The error that says so, with the worker's last words."""
        last = self._log.read_text(errors="replace").strip().splitlines()[-8:]
        return BenchError("\n".join([f"the worker {how}; it said last:", *last]))

    def close(self) -> None:
        """End it in good order, or else at all."""
        self._process.terminate()
        _reap(self._process, 30.0)
