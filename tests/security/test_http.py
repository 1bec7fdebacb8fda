"""HTTP: loopback unless told otherwise, reading only, and not to be held up."""

import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from time import monotonic

import pytest
import structlog
from prometheus_client import CollectorRegistry

from engine.config import HttpConfig
from engine.http import SILENCE_S, Health, HttpServer


def served(host: str = HttpConfig().host) -> HttpServer:
    return HttpServer(host, 0, CollectorRegistry(), lambda: Health(True, True, "1-1"))


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    opened = served()
    yield opened
    opened.close()


def ask(server: HttpServer, method: str, path: str, body: bytes | None = None) -> int:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    finally:
        connection.close()


def test_unless_told_otherwise_it_answers_on_loopback_alone_and_says_nothing() -> None:
    with structlog.testing.capture_logs() as logs:
        server = served()
    try:
        assert server.host == "127.0.0.1"
        assert logs == []
    finally:
        server.close()


def test_bound_elsewhere_it_warns() -> None:
    with structlog.testing.capture_logs() as logs:
        served("0.0.0.0").close()
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("http_open_to_others", "warning")
    ]


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
def test_it_only_reads(path: str, server: HttpServer) -> None:
    assert ask(server, "GET", path) == (404 if path == "/" else 200)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(server, method, path, b"x" * 100) == 405


def test_a_silent_client_does_not_hold_the_others_up(
    server: HttpServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.sendall(b"GET /healthz HT")
        started = monotonic()
        assert ask(server, "GET", "/healthz") == 200
        assert monotonic() - started < SILENCE_S + 3
    assert capfd.readouterr() == ("", "")
