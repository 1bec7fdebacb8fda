"""Where the API listens: a socket on loopback, unless told otherwise, and then it is said."""

import socket
from ipaddress import ip_address

import structlog

BACKLOG = 64
"""Connections that wait to be accepted, at most."""


class HttpError(Exception):
    """The port can't be bound; the message says what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. The caller closes it.

    Raises `HttpError` when the address can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise HttpError(
            f"can't serve metrics on {host}:{port}: {error.strerror or error};"
            " set http.port to a free port, or to 0 to have one chosen"
        ) from None
    if not is_local(found):
        structlog.get_logger().warning(
            "http_open_to_others",
            host=address_of(found),
            detail="whoever reaches this address reads the metrics and what stands where: set"
            " http.host to 127.0.0.1, or keep others out with a firewall",
        )
    return found


def address_of(listener: socket.socket) -> str:
    """The address that is bound."""
    return str(listener.getsockname()[0])


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ip_address(address_of(listener)).is_loopback
