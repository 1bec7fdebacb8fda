"""Metrics and health over HTTP, on a thread of their own: `/metrics`, `/healthz`, `/readyz`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes answer."""

    alive: bool
    ready: bool
    detail: str


class HttpError(Exception):
    """The port can't be bound."""


class _Quiet(WSGIRequestHandler):
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
            self._server: WSGIServer = make_server(host, port, app, handler_class=_Quiet)
        except OSError as error:
            raise HttpError(
                f"can't serve metrics on {host}:{port}: {error.strerror};"
                " set http.port to a free port, or to 0 to have one chosen"
            ) from None
        self.port = int(self._server.server_port)
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
