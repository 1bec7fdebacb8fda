"""The processes that faults happen to: Redis servers and workers. Only these are ever signalled."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import redis

from streams import embedded
from tests.chaos.launcher import Order

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0


class Stuck(AssertionError):
    """Something that had to happen didn't, in good time."""


def wait_until(happened: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until `happened()`; raises `Stuck`, which says `what`, when it doesn't."""
    end = monotonic() + deadline_s
    while not happened():
        if monotonic() > end:
            raise Stuck(f"not within {deadline_s:g} s: {what}")
        sleep(0.004)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A real server on a loopback port that keeps its data, and its port, over restarts."""

    def __init__(self, folder: Path, binary: Path | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._binary = binary or embedded.find_server()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        self.client = redis.Redis(port=self.port, protocol=2, socket_timeout=10)

    def start(self, appendfsync: str = "everysec") -> None:
        """Start it, and wait until it has loaded its data."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": appendfsync,
            "auto-aof-rewrite-percentage": "0",
            "repl-diskless-sync-delay": "0",
            "lua-time-limit": "20",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([self._binary, *words], stdout=log, stderr=log)
        wait_until(self.answers, f"the server on port {self.port} answers")

    def answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Stuck(f"the server ended: {(self.folder / 'server.log').read_text()[-500:]}")
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.client.connection_pool.disconnect()

    def log_size(self) -> int:
        """How long the newest file of its append-only log is."""
        return self._newest_log().stat().st_size

    def cut_log(self, size: int) -> None:
        """While it is down: put its log back to the length that it had."""
        os.truncate(self._newest_log(), size)

    def forget_everything(self) -> None:
        """While it is down: delete its data."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.client.close()

    def _newest_log(self) -> Path:
        logs = [
            (int(found[1]), path)
            for path in self.folder.glob("appendonlydir/*.aof")
            if (found := re.search(r"\.(\d+)\.incr\.aof$", path.name))
        ]
        return max(logs)[1] if logs else self.folder / "appendonly.aof"


class Worker:
    """A worker process."""

    def __init__(self, pid: int, order: Order) -> None:
        self.pid = pid
        self.order = order
        self.status: int | None = None
        """Its exit status once it has ended; that of a signal is negative."""
        try:
            # A PID could be another's by the time it is signalled; this can't.
            self._handle: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._handle = None

    @property
    def alive(self) -> bool:
        return self.status is None

    def send(self, number: signal.Signals) -> None:
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def gone(self, what: str = "the worker has ended", deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end; its exit status."""
        wait_until(lambda: not self.alive, f"{what} (pid {self.pid})", deadline_s)
        assert self.status is not None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        return self.status

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.gone()

    def files(self) -> int:
        """How many files it holds open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def children(self) -> list[int]:
        """The PIDs of its own processes: the one that fits, and multiprocessing's tracker."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.pid:
                found.append(int(stat.parent.name))
        return found

    def kill_children(self) -> int:
        """SIGKILL its own processes; how many they were."""
        children = self.children()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(children)

    def limit_file_size(self, size: int) -> None:
        """From now on its files can't grow beyond `size` bytes; -1 lifts that."""
        soft = resource.RLIM_INFINITY if size < 0 else size
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


class Launcher:
    """Starts workers, and knows how they end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.launcher"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self._workers: dict[int, Worker] = {}
        self._started: dict[int, int] = {}
        self._reader = Thread(target=self._listen, daemon=True)
        self._reader.start()
        self._numbers = 0
        self.ready = False
        self.starts = 0

    def start(self, order: Order) -> Worker:
        """Start a worker."""
        wait_until(lambda: self.ready, "the launcher is ready")
        self._numbers += 1
        self.starts += 1
        number = self._numbers
        order = Order(**{**json.loads(order.to_json()), "number": number})
        assert self._process.stdin is not None
        self._process.stdin.write(order.to_json().encode() + b"\n")
        self._process.stdin.flush()
        wait_until(lambda: number in self._started, "a worker is started")
        worker = Worker(self._started[number], order)
        self._workers[number] = worker
        return worker

    def start_anew(self, order: Order) -> Worker:
        """Start a worker in an interpreter of its own."""
        self.starts += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.launcher", "--once", order.to_json()],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        worker = Worker(process.pid, order)

        def watch() -> None:
            worker.status = process.wait()

        Thread(target=watch, daemon=True).start()
        return worker

    def end_workers(self) -> None:
        """SIGKILL every worker that is left."""
        for worker in self._workers.values():
            if worker.alive:
                worker.kill()
        self._workers.clear()

    def close(self) -> None:
        """End the launcher, and every worker that is left."""
        self.end_workers()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "ready" in told:
                self.ready = True
            elif "pid" in told:
                self._started[told["number"]] = told["pid"]
            else:
                number = told["number"]
                wait_until(lambda number=number: number in self._workers, "the worker is known")
                self._workers[number].status = told["status"]
