"""HTTP: loopback unless told otherwise, and not to be held up by whoever connects.

Who may change what is in `tests/engine/test_api.py`.
"""

import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from threading import active_count
from time import monotonic

import pytest
import structlog
from prometheus_client import CollectorRegistry

from engine.api import server as serving
from engine.api.app import Health, new_app
from engine.api.listening import address_of, is_local, listen
from engine.api.mailbox import Mailbox
from engine.api.server import HttpServer
from engine.config import Config, HttpConfig
from streams import connect

LIMIT_S = 0.4
"""What the tests set `REQUEST_S` and `CONNECTION_S` to."""

HALF_A_REQUEST = (
    b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 9\r\n\r\n{"
)


@pytest.fixture
def serve() -> Iterator[Callable[[], HttpServer]]:
    """Starts a server, ended with the test."""
    opened: list[HttpServer] = []
    with connect("memory://http") as connection:

        def start() -> HttpServer:
            listener = listen(HttpConfig().host, 0)
            app = new_app(
                Config(),
                connection,
                CollectorRegistry(),
                lambda: Health(True, True, "1-1"),
                Mailbox(),
                is_local(listener),
            )
            opened.append(HttpServer(listener, app))
            return opened[-1]

        yield start
        for server in opened:
            server.close()  # once more, for some


def ask(server: HttpServer, method: str, path: str, body: bytes | None = None) -> int:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    finally:
        connection.close()


def knock(server: HttpServer, said: bytes) -> socket.socket:
    """A client that says this and then waits."""
    opened = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    opened.sendall(said)
    return opened


def ended(client: socket.socket) -> bytes:
    """All that the server says to a client until it hangs up."""
    said = b""
    try:
        while data := client.recv(65_536):
            said += data
    except ConnectionError:
        pass
    return said


def test_unless_told_otherwise_it_answers_on_loopback_alone_and_says_nothing() -> None:
    with structlog.testing.capture_logs() as logs, listen(HttpConfig().host, 0) as listener:
        assert address_of(listener) == "127.0.0.1"
        assert is_local(listener)
    assert logs == []


def test_bound_elsewhere_it_warns() -> None:
    with structlog.testing.capture_logs() as logs, listen("0.0.0.0", 0) as listener:
        assert not is_local(listener)
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("http_open_to_others", "warning")
    ]


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
def test_what_is_read_cannot_be_written(path: str, serve: Callable[[], HttpServer]) -> None:
    server = serve()
    assert ask(server, "GET", path) == (404 if path == "/" else 200)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(server, method, path, b"x" * 100) == (404 if path == "/" else 405)


@pytest.mark.parametrize("said", [b"", b"GET /healthz HT", HALF_A_REQUEST])
def test_a_silent_client_holds_nobody_up_and_is_hung_up_on(
    said: bytes,
    serve: Callable[[], HttpServer],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = serve()
    monkeypatch.setattr(serving, "REQUEST_S", LIMIT_S)
    with knock(server, said) as silent:
        started = monotonic()
        assert ask(server, "GET", "/healthz") == 200
        assert monotonic() - started < LIMIT_S
        assert ended(silent) == b""
    server.close()
    assert capfd.readouterr() == ("", "")


def test_a_client_that_does_not_read_its_answer_is_hung_up_on(
    serve: Callable[[], HttpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(serving, "CONNECTION_S", 0.0)
    with knock(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as late:
        assert b"200 OK" not in ended(late)


def test_a_connection_carries_one_request(serve: Callable[[], HttpServer]) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with knock(serve(), request + request) as greedy:
        said = ended(greedy)
    assert said.count(b"HTTP/1.1 200 OK") == 1
    assert b"connection: close" in said


def test_past_so_many_connections_the_one_silent_for_longest_goes(
    serve: Callable[[], HttpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 3)
    server = serve()
    clients = [knock(server, b"GET /healthz HT") for _ in range(4)]
    try:
        assert ended(clients[0]) == b""
        assert ask(server, "GET", "/healthz") == 200
        assert ended(clients[1]) == b""
        clients[3].sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in ended(clients[3])
    finally:
        for client in clients:
            client.close()


def test_headers_without_end_are_not_kept(serve: Callable[[], HttpServer]) -> None:
    with knock(serve(), b"GET /healthz HTTP/1.1\r\n") as endless:
        try:
            for number in range(10_000):
                endless.sendall(b"X-%d: %b\r\n" % (number, b"x" * 1_000))
        except ConnectionError:
            pass
        else:
            pytest.fail("ten megabytes of headers were read")


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x00\xff", b"GET\r\n\r\n", b"\x00" * 9_000])
def test_what_is_no_http_is_refused_in_silence(
    said: bytes, serve: Callable[[], HttpServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with knock(server, said + b"\r\n\r\n") as client:
        assert b"200 OK" not in ended(client)
    assert ask(server, "GET", "/healthz") == 200
    assert caplog.messages == []


@pytest.mark.parametrize("said", [b"GET /healthz HT", HALF_A_REQUEST])
def test_closed_it_leaves_no_thread_no_port_and_no_connection(said: bytes) -> None:
    before = active_count()
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with connect("memory://http") as connection:
        app = new_app(
            Config(),
            connection,
            CollectorRegistry(),
            lambda: Health(True, True, ""),
            Mailbox(),
            True,
        )
        server = HttpServer(listener, app)
        with knock(server, said) as silent:
            # Accepted after the silent one.
            assert ask(server, "GET", "/healthz") == 200
            server.close()
            assert b"200 OK" not in ended(silent)
    assert active_count() == before
    with listen("127.0.0.1", port):
        pass
