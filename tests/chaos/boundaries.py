"""Effect boundaries: the instants around every effect of a worker at which it can be made to die.

Nothing in the product knows of them. In a worker's own process `arm` wraps the function that has
the effect, and the wrapper kills the process with SIGKILL: no `finally`, no farewell. ``sent`` is
the instant when a command has left for the server and its reply isn't read.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Moment = Literal["before", "after", "sent", "half"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """An instant in a worker's life.

    Parameters
    ----------
    group
        What it is a part of.
    step, moment
        Which effect, and when within it.
    leaving
        Whether it only comes when the worker is told to end.
    """

    group: Literal["lease", "recovery", "commit", "snapshot", "refit", "loss"]
    step: str
    moment: Moment
    leaving: bool = False

    @property
    def name(self) -> str:
        return f"{self.group}: {self.moment} {self.step}"


def _of(group: Any, step: str, *moments: Moment, leaving: bool = False) -> list[Boundary]:
    return [Boundary(group, step, moment, leaving) for moment in moments]


BOUNDARIES = (
    *_of("lease", "acquire", "before", "sent", "after"),
    *_of("lease", "renew", "before", "sent", "after"),
    *_of("lease", "release", "before", "sent", "after", leaving=True),
    *_of("recovery", "restore", "before", "after"),
    *_of("recovery", "reapply", "before", "after"),
    *_of("commit", "commit", "before", "sent", "after"),
    *_of("snapshot", "freeze", "before", "after"),
    *_of("snapshot", "encode", "before", "after"),
    *_of("snapshot", "open", "after"),
    *_of("snapshot", "write", "half", "after"),
    *_of("snapshot", "sync", "before", "after"),
    *_of("snapshot", "rename", "before", "after"),
    *_of("snapshot", "sync_folder", "before", "after"),
    *_of("snapshot", "retire", "before", "after"),
    *_of("snapshot", "notice", "before", "sent", "after"),
    *_of("snapshot", "trim", "before", "sent", "after"),
    *_of("refit", "launch", "before", "after"),
    *_of("refit", "finish", "after"),
    *_of("refit", "collect", "before", "after"),
    *_of("refit", "install", "before", "after"),
    *_of("loss", "report", "before", "sent", "after"),
    *_of("loss", "set_aside", "before", "after"),
)
BY_NAME = {boundary.name: boundary for boundary in BOUNDARIES}


def arm(name: str, nth: int = 1) -> None:
    """Make this process die when it comes to the boundary `name` for the `nth` time."""
    boundary = BY_NAME[name]
    left = nth

    def die() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if boundary.step in ("open", "write", "sync", "sync_folder", "rename", "retire"):
        _wrap_file_system(boundary, die)
    else:
        owner, attribute = _function(boundary.step)
        if boundary.moment == "sent":
            _wrap_sending(owner, attribute, die)
        else:
            _wrap(owner, attribute, boundary.moment, die)


def _function(step: str) -> tuple[Any, str]:
    import engine.snapshotting
    import engine.worker
    from engine.core import Core
    from engine.fitting import ProcessFitter
    from learners import Booster
    from snapshots import SnapshotStore
    from streams import RedisTransport

    return {
        "acquire": (RedisTransport, "acquire"),
        "renew": (RedisTransport, "renew"),
        "release": (RedisTransport, "release"),
        "commit": (RedisTransport, "commit"),
        "notice": (RedisTransport, "notify"),
        "trim": (RedisTransport, "trim"),
        "restore": (Core, "restore"),
        "reapply": (engine.worker, "recover"),
        "freeze": (engine.snapshotting, "take"),
        "encode": (engine.snapshotting, "to_bytes"),
        "launch": (ProcessFitter, "submit"),
        "finish": (ProcessFitter, "_ask"),
        "collect": (ProcessFitter, "collect"),
        "install": (Booster, "install"),
        "report": (RedisTransport, "report_loss"),
        "set_aside": (SnapshotStore, "set_aside"),
    }[step]


def _wrap(
    owner: Any,
    attribute: str,
    moment: Moment,
    die: Callable[[], None],
    concerns: Callable[..., bool] = lambda *_, **__: True,
) -> None:
    real = getattr(owner, attribute)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        ours = concerns(*arguments, **options)
        if ours and moment == "before":
            die()
        result = real(*arguments, **options)
        if ours and moment == "after":
            die()
        return result

    setattr(owner, attribute, wrapped)


def _wrap_sending(owner: Any, attribute: str, die: Callable[[], None]) -> None:
    """Die between a command and its reply."""
    from redis.connection import AbstractConnection

    real, read = getattr(owner, attribute), AbstractConnection.read_response
    within = False

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal within
        within = True
        try:
            return real(*arguments, **options)
        finally:
            within = False

    def read_response(*arguments: Any, **options: Any) -> Any:
        if within:
            die()
        return read(*arguments, **options)

    setattr(owner, attribute, wrapped)
    AbstractConnection.read_response = read_response  # type: ignore[method-assign]


def _wrap_file_system(boundary: Boundary, die: Callable[[], None]) -> None:
    """Only calls about snapshot files count."""

    def about(suffix: str) -> Callable[..., bool]:
        return lambda path, *_, **__: str(path).endswith(suffix)

    step, moment = boundary.step, boundary.moment
    if step == "open":
        _wrap(os, "open", moment, die, about(".tmp"))
    elif step == "rename":
        _wrap(os, "rename", moment, die, about(".tmp"))
    elif step == "retire":
        _wrap(os, "unlink", moment, die, about(".clsnap"))
    elif step == "write":
        _wrap_writing(moment, die)
    else:
        folder = step == "sync_folder"
        _wrap(os, "fsync", moment, die, lambda fd: _is_folder(fd) == folder)


def _is_folder(descriptor: int) -> bool:
    import stat

    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


class _File:
    """A file that is written to in two halves, with death between or after them."""

    def __init__(self, file: Any, moment: Moment, die: Callable[[], None]) -> None:
        self._file = file
        self._moment = moment
        self._die = die

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return int(self._file.fileno())

    def write(self, data: memoryview) -> int:
        if self._moment == "half":
            self._file.write(data[: len(data) // 2])
            self._die()
            return len(data) // 2
        written = int(self._file.write(data))
        self._die()
        return written


def _wrap_writing(moment: Moment, die: Callable[[], None]) -> None:
    real = os.fdopen

    def fdopen(descriptor: int, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = real(descriptor, mode, *arguments, **options)
        return _File(file, moment, die) if mode == "wb" and options.get("buffering") == 0 else file

    os.fdopen = fdopen  # type: ignore[assignment]
