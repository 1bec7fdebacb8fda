"""uvicorn on a thread of its own, which waits for clients and for nothing else.

uvicorn bounds neither how long a client may take to send its request nor how many may try. Here
each connection carries one request, which must be there within `REQUEST_S`; the whole takes
`CONNECTION_S` at most; and past `MAX_CONNECTIONS` the one goes that has kept silent for longest. So
memory is bounded (h11 reads at most 16 KiB of headers, uvicorn 64 KiB ahead of a body), and nobody
who connects and then dawdles keeps others out.
"""

import asyncio
import logging
import socket
from threading import Event, Thread
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 5.0
"""How long a client may take to send its request, headers and body."""
CONNECTION_S = 30.0
"""How long a connection may last: a client that doesn't read its answer holds it no longer."""
MAX_CONNECTIONS = 64
"""Connections at a time."""
GRACE_S = 1
"""How long requests may go on once the server is told to stop."""


class HttpServer:
    """Serves until closed.

    Parameters
    ----------
    listener
        The socket to accept from; closed with the server.
    app
        What answers.
    """

    def __init__(self, listener: socket.socket, app: ASGIApp) -> None:
        self.port = int(listener.getsockname()[1])
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                # What a client gets wrong is its own affair; what we do, the app logs.
                log_level=logging.CRITICAL + 1,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                headers=[("Connection", "close"), ("Cache-Control", "no-store")],
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._thread = Thread(target=self._server.run, args=([listener],), name="http", daemon=True)
        self._thread.start()
        self._server.serving.wait()

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()
        self._thread.join()


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop instead of looking ten times a second whether it should."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        # Sets the headers that every answer carries.
        await self.on_tick(0)
        self.serving.set()
        await self._told.wait()

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told.set)


class _Protocol(H11Protocol):
    """A connection: one request, within bounds of time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._opened = self.loop.time()
        self._timers = [
            self.loop.call_later(REQUEST_S, self._hurry),
            self.loop.call_later(CONNECTION_S, transport.abort),
        ]
        others: Any = self.connections
        if len(others) > MAX_CONNECTIONS:
            silent = [one for one in others if one.incomplete and not one.transport.is_closing()]
            min(silent, key=lambda one: one._opened).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()
        super().connection_lost(exc)

    @property
    def incomplete(self) -> bool:
        """Whether its request isn't there in full."""
        return self.cycle is None or self.cycle.more_body

    def _hurry(self) -> None:
        if self.incomplete:
            self.transport.abort()
