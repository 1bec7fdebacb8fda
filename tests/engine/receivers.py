"""Receivers of alerts on loopback: a web server, a mail server, and some that behave badly."""

import itertools
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Event, Thread
from types import MappingProxyType
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.security import certificates

LIMIT_S = 10.0
"""How long anything may take that is to happen soon."""
PASSWORD = "open-sesame-4711"


class Inbox:
    """What has come in so far."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._changed = Condition()

    def add(self, item: object) -> None:
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        """The items, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.items) >= count, LIMIT_S), self.items
            return list(self.items)


class Answer(NamedTuple):
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    body: str = "ok"


class Web(NamedTuple):
    """A web server: what was posted to it, by path; `answers` come first, then 200s."""

    url: str
    posted: Inbox
    paths: list[str]


@contextmanager
def web(
    *answers: Answer,
    tls: ssl.SSLContext | None = None,
    before: Callable[[Any], None] = lambda body: None,
) -> Iterator[Web]:
    """`before` is called with each body before its answer."""
    coming = itertools.chain(answers, itertools.repeat(Answer()))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            served.paths.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.posted.add(body)
            before(body)
            answer = next(coming)
            # Whoever was killed meanwhile isn't there for it.
            with suppress(OSError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body.encode())

        do_GET = do_POST  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Those who don't trust the certificate hang up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "https" if tls else "http"
        url = f"{scheme}://127.0.0.1:{server.server_port}/services/T0/B0/sEcReT"
        served = Web(url, Inbox(), [])
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


class Odd(NamedTuple):
    """A server that isn't of much use, and an event for when someone has connected."""

    port: int
    reached: Event


@contextmanager
def odd(
    behave: Callable[[socket.socket, Event], None], tls: ssl.SSLContext | None = None
) -> Iterator[Odd]:
    """Calls `behave` with each connection, and with an event that says when to end."""
    stop, reached = Event(), Event()
    threads: list[Thread] = []

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            if tls is None:
                behave(client, stop)
                return
            client.settimeout(LIMIT_S)
            with tls.wrap_socket(client, server_side=True) as secure:
                behave(secure, stop)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                threads.append(Thread(target=serve, args=(client,)))
                threads[-1].start()
                reached.set()

    listener = socket.create_server(("127.0.0.1", 0))
    acceptor = Thread(target=accept)
    acceptor.start()
    try:
        yield Odd(listener.getsockname()[1], reached)
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


def hang(client: socket.socket, stop: Event) -> None:
    """Read what comes and never answer."""
    client.settimeout(0.02)
    while not stop.is_set():
        with suppress(TimeoutError):
            if not client.recv(65_536):
                return


def never_read(client: socket.socket, stop: Event) -> None:
    """Accept, and that is all."""
    stop.wait()


def trickle(data: bytes) -> Callable[[socket.socket, Event], None]:
    """Send `data`, then its last byte for ever, now and then one."""

    def behave(client: socket.socket, stop: Event) -> None:
        for place in itertools.count():
            client.sendall(data[place : place + 1] or data[-1:])
            if place >= len(data) - 1 and stop.wait(0.02):
                return

    return behave


def hang_up(data: bytes) -> Callable[[socket.socket, Event], None]:
    """Send `data` and close."""

    def behave(client: socket.socket, stop: Event) -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    return behave


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


class Mailbox(NamedTuple):
    """A mail server's port, and the mails it took."""

    port: int
    mails: Inbox


@contextmanager
def mailbox(
    refuse: tuple[str, ...] = (),
    login: bool = False,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    data_reply: str = "250 OK",
) -> Iterator[Mailbox]:
    """`refuse`: recipients it doesn't know; `login`: whether `PASSWORD` is asked for."""
    mails = Inbox()

    class Handler:
        async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
            self, server: object, session: object, envelope: Any, address: str, options: object
        ) -> str:
            if address in refuse:
                return "550 no such mailbox"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(  # noqa: N802 - aiosmtpd's name
            self, server: object, session: object, envelope: Any
        ) -> str:
            mail = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            mails.add(mail)
            return data_reply

    def authenticate(
        server: object, session: object, envelope: object, mechanism: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    controller = Controller(
        Handler(),
        hostname="127.0.0.1",
        port=closed_port(),
        tls_context=starttls,
        require_starttls=starttls is not None,
        ssl_context=tls,
        authenticator=authenticate,
        auth_required=login,
        auth_require_tls=False,
    )
    controller.start()
    try:
        yield Mailbox(controller.port, mails)
    finally:
        controller.stop()


def server_tls(folder: Path) -> ssl.SSLContext:
    """For a server on 127.0.0.1, with a certificate of the tests' authority."""
    file = folder / "server.pem"
    file.write_text(certificates.SERVER)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def authority(folder: Path, text: str = certificates.AUTHORITY) -> str:
    """A file with an authority's certificate, as `SSL_CERT_FILE` names it."""
    file = folder / "authority.pem"
    file.write_text(text)
    return str(file)
