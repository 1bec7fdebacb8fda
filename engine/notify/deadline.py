"""A time limit over a whole exchange with a server.

A socket's time-out bounds each silence, so a server that sends a byte now and then keeps a client
for as long as it likes. `Deadline` shuts the connection itself when the time is up; whoever reads
or writes at that moment, TLS or not, sees it end. Only looking up a host's name can't be cut short.
"""

import socket
from contextlib import suppress
from threading import Lock, Timer
from time import monotonic
from types import TracebackType
from typing import Self


class Deadline:
    """So many seconds from now. A context manager: after its block nothing is cut any more."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends = monotonic() + seconds
        self._lock = Lock()
        self._passed = False
        self._guards: list[socket.socket] = []
        # A thread, so only once there is a connection to be cut.
        self._timer: Timer | None = None

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self._passed or monotonic() >= self._ends

    def connect(self, address: tuple[str, int]) -> socket.socket:
        """A connection to a host and port that ends with the time. Raises `OSError`."""
        failure: OSError = TimeoutError()
        for *_, found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            left = self._ends - monotonic()
            if left <= 0:
                break
            try:
                connected = socket.create_connection((str(found[0]), address[1]), left)
            except OSError as error:
                failure = error
            else:
                self._guard(connected)
                return connected
        raise failure

    def _guard(self, connected: socket.socket) -> None:
        # A copy, because TLS takes the socket itself out of its object.
        guard = connected.dup()
        with self._lock:
            self._guards.append(guard)
            if self._passed:
                _shut(guard)
            elif self._timer is None:
                self._timer = Timer(max(self._ends - monotonic(), 0.0), self._cut)
                self._timer.daemon = True
                self._timer.start()

    def _cut(self) -> None:
        with self._lock:
            self._passed = True
            for guard in self._guards:
                _shut(guard)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            for guard in self._guards:
                guard.close()
            self._guards.clear()


def _shut(guard: socket.socket) -> None:
    # The other side may have been faster.
    with suppress(OSError):
        guard.shutdown(socket.SHUT_RDWR)
