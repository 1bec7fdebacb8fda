"""Starts `closeloop` with death armed at an effect boundary, or with its clock set wrong.

``python -m tests.chaos.launcher`` imports the command line once and then forks a worker for every
line of JSON on its standard input: an interpreter's start takes longer than most faults. A worker
runs `engine.cli.main` as `closeloop` does. On its standard output each worker's PID is told, and
then its exit status. With ``--once ORDER`` the worker is this process.
"""

import faulthandler
import json
import os
import select
import signal
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """How to start a worker.

    Parameters
    ----------
    arguments
        Of `closeloop`.
    folder, log
        Its working directory, and the file that its standard error is added to.
    die_at, nth
        The effect boundary to die at, and at which time it comes to it.
    skew_s
        How far its wall clock is off, in seconds.
    """

    arguments: list[str]
    folder: str
    log: str
    die_at: str | None = None
    nth: int = 1
    skew_s: float = 0.0
    number: int = field(default=0)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def main() -> None:
    if sys.argv[1:2] == ["--once"]:
        work(Order(**json.loads(sys.argv[2])))
    else:
        serve()


def work(order: Order) -> None:
    """Be a worker."""
    os.chdir(order.folder)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # Asked by a signal, it says in its log where it stands.
    faulthandler.register(signal.SIGUSR1)
    if order.die_at is not None:
        from tests.chaos.boundaries import arm

        arm(order.die_at, order.nth)
    if order.skew_s:
        skew_clocks(order.skew_s)
    from engine.cli import main as closeloop

    sys.argv = ["closeloop", *order.arguments]
    closeloop()


def serve() -> None:
    """Fork workers as told, until standard input ends; they live on."""
    import engine.cli  # noqa: F401 - imported once for all
    from learners import warm_up

    warm_up()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    tell(ready=True)
    orders: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
        if 0 in readable:
            line = read_line()
            if not line:
                return
            order = Order(**json.loads(line))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(wake)
                os.close(woken)
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, 0)
                os.close(nothing)
                work(order)
                return
            orders[pid] = order.number
            tell(number=order.number, pid=pid)
        while orders:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in orders:
                tell(number=orders.pop(pid), status=os.waitstatus_to_exitcode(status))


def read_line() -> bytes:
    """One line, unbuffered, so that what `select` says stays true."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def tell(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def skew_clocks(seconds: float) -> None:
    """Let every module of ours see a wall clock that is off."""
    import time

    import engine.snapshotting
    import engine.worker

    real = time.time
    time.time = lambda: real() + seconds
    offset = timedelta(seconds=seconds)

    class Skewed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + offset

    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if name.split(".")[0] in ("engine", "snapshots", "streams", "learners"):
            for attribute, value in list(vars(module).items()):
                if value is real:
                    setattr(module, attribute, time.time)
    for shell in (engine.snapshotting, engine.worker):
        if hasattr(shell, "datetime"):
            shell.datetime = Skewed


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
