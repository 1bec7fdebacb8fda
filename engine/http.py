"""Metrics and health over HTTP, on a thread of their own: `/metrics`, `/healthz`, `/readyz`.

All of it only reads, and asks for no password: so it binds loopback unless told otherwise, and says
so in the log when told. Nobody who connects and then keeps silent holds it up for long.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import orjson
import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes answer."""

    alive: bool
    ready: bool
    detail: str


class HttpError(Exception):
    """The port can't be bound."""


SILENCE_S = 2.0
"""How long a client may keep the one thread waiting for its request."""


class _Server(WSGIServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that keeps silent or hangs up is its own affair."""


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_S

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: probes come every few seconds."""


class HttpServer:
    """Serves until closed.

    Parameters
    ----------
    host, port
        Where to bind; port 0 takes a free one.
    registry
        What `/metrics` shows.
    health
        Asked at every probe.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, health: Callable[[], Health]
    ) -> None:
        metrics: WSGIApplication = make_wsgi_app(registry)

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
                return []
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                return metrics(environ, start_response)
            state = health()
            answers = {"/healthz": state.alive, "/readyz": state.ready}
            if path not in answers:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /healthz, /readyz\n"]
            status = "200 OK" if answers[path] else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json")])
            return [orjson.dumps({"ok": answers[path], "detail": state.detail})]

        try:
            self._server: WSGIServer = make_server(host, port, app, _Server, _Handler)
        except OSError as error:
            raise HttpError(
                f"can't serve metrics on {host}:{port}: {error.strerror};"
                " set http.port to a free port, or to 0 to have one chosen"
            ) from None
        self.host = str(self._server.server_address[0])
        if not ip_address(self.host).is_loopback:
            structlog.get_logger().warning(
                "http_open_to_others",
                host=self.host,
                detail="whoever reaches this address reads the metrics: set http.host to"
                " 127.0.0.1, or keep others out with a firewall",
            )
        self.port = int(self._server.server_port)
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
