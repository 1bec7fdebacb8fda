"""A proxy that ends TLS before a server that speaks none, as test servers do."""

import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread


@contextmanager
def tls_proxy(context: ssl.SSLContext, server: int) -> Iterator[int]:
    """The port of a proxy on loopback to the port `server`, while the block lasts."""
    stop = Event()
    threads: list[Thread] = []

    def carry(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(5)
            with (
                context.wrap_socket(client, server_side=True) as secure,
                socket.create_connection(("127.0.0.1", server)) as plain,
            ):
                while not stop.is_set():
                    # What TLS has decrypted already, select doesn't see.
                    ready: list[socket.socket] = [secure] if secure.pending() else []
                    ready = ready or select.select([secure, plain], [], [], 0.05)[0]
                    for source in ready:
                        data = source.recv(65_536)
                        if not data:
                            return
                        (plain if source is secure else secure).sendall(data)

    def accept() -> None:
        while not stop.is_set():
            if select.select([listener], [], [], 0.05)[0]:
                thread = Thread(target=carry, args=(listener.accept()[0],))
                threads.append(thread)
                thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(Thread(target=accept))
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
