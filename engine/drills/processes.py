"""The worker processes of a drill: each is started, watched and ended by its own process ID."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import orjson

from engine.config import Config

CLOSELOOP = [sys.executable, "-c", "from engine.cli import main; main()"]
PATIENCE_S = 180.0
"""How long nothing may happen: at a first start, kernels are compiled."""
POLL_S = 0.004
_LAST_WORDS = 5


class DrillError(Exception):
    """A drill that can't be held, or broke off; the message says why and what to do."""


@contextmanager
def heard_later() -> Iterator[None]:
    """Who asks to end is heard after the block: what is started in it is known by then.

    For the main thread. Raises `KeyboardInterrupt` on the way out when somebody asked.
    """
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


class Worker:
    """`closeloop run`, in a process group of its own.

    Parameters
    ----------
    config
        Its whole configuration; what the user's environment says is none of its.
    folder
        Its working directory.
    log
        Where its standard error goes.
    options
        Of `closeloop run`.
    """

    def __init__(self, config: Config, folder: Path, log: Path, options: Sequence[str]) -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*CLOSELOOP, "run", *options],
                cwd=folder,
                env=_environment(config),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # A Ctrl-C on the drill's terminal is the drill's to handle.
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.poll() is None

    def told(self, word: str) -> dict[str, Any] | None:
        """The last line of its log with that word for its event; None when there is none."""
        found = None
        for line in self._log.read_bytes().splitlines():
            with suppress(orjson.JSONDecodeError):
                said = orjson.loads(line)
                if isinstance(said, dict) and said.get("event") == word:
                    found = said
        return found

    def kill(self) -> float:
        """SIGKILL, to the worker and the process that fits for it; when that was, monotonic."""
        at = monotonic()
        # The ID is its own for as long as it isn't waited for. (The other ends when it is alone.)
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return at

    def stop(self) -> None:
        """SIGTERM, and wait for its last snapshot. Raises `DrillError` when it doesn't end well."""
        self._process.terminate()
        try:
            status = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise self.failed("didn't stop") from None
        if status:
            raise self.failed(f"ended with status {status}")

    def check(self) -> None:
        """Raise `DrillError` if it has ended."""
        if not self.alive:
            raise self.failed("ended by itself")

    def failed(self, how: str) -> DrillError:
        """The error that says so, with the worker's last words."""
        last = self._log.read_text(errors="replace").strip().splitlines()[-_LAST_WORDS:]
        return DrillError("\n  ".join([f"a worker on the copy {how}; it said last:", *last]))


def wait_until(
    happened: Callable[[], bool],
    what: str,
    workers: Sequence[Worker] = (),
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Wait until `happened()`, doing something `meanwhile`, while the workers live.

    Raises `DrillError` when one of them ends, or when `what` doesn't come about in good time.
    """
    end = monotonic() + PATIENCE_S
    while not happened():
        for worker in workers:
            worker.check()
        if monotonic() > end:
            raise DrillError(f"waited {PATIENCE_S:g} s in vain until {what}")
        meanwhile()
        sleep(POLL_S)


def _environment(config: Config) -> dict[str, str]:
    """The environment in which a process finds this configuration, and no other."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CLOSELOOP_")}
    for name in type(config).model_fields:
        section = getattr(config, name)
        if hasattr(section, "model_dump_json"):
            ours[f"CLOSELOOP_{name.upper()}"] = section.model_dump_json(exclude={"key"})
    for name, secret in (
        ("CLOSELOOP_CONTROL_KEY", config.control_key),
        ("CLOSELOOP_SNAPSHOTS__KEY", config.snapshots.key),
    ):
        if secret is not None:
            ours[name] = secret.get_secret_value()
    return ours
