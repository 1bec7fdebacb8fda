"""One address, one connection: a Redis somewhere, one embedded in a folder, or one in memory.

========================  =====================================================================
``redis://``              any Redis >= 6.2 or Valkey
``rediss://``             the same with TLS; see `docs/security.md` for certificates
``unix://PATH``           the same over a Unix socket
``embedded://DIR``        a server process of our own, its data kept in the folder DIR
``memory://NAME``         a fake in this process; whoever names the same NAME sees the same data
========================  =====================================================================

This is also the one place that turns redis-py's errors into ours.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import quote, urlsplit

import redis
import redis.asyncio
from redis import exceptions as raw
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from streams.errors import (
    AddressError,
    ConnectionLost,
    ServerError,
    StreamError,
    WritesRefused,
)

if TYPE_CHECKING:
    from fakeredis import FakeServer

    from streams.embedded import EmbeddedServer

OLDEST = (6, 2)
"""The oldest server version served: exclusive ranges and trimming by ID came with it."""
SOCKET_TIMEOUT_S = 10.0
"""How long a reply may take, unless the address says otherwise (``?socket_timeout=SECONDS``)."""

_SCHEMES = "redis://HOST:PORT, rediss://, unix://PATH, embedded://DIR or memory://NAME"
_CONNECT_TIMEOUT_S = 5.0
_HIDDEN = "..."
# RESP2 always: one shape of reply from every server and every release of redis-py.
_PROTOCOL = 2

_T = TypeVar("_T")
_memory: dict[str, "FakeServer"] = {}

# All of them, because some (a cluster's) don't derive from RedisError.
_ANY_REDIS_ERROR = tuple(
    kind for kind in vars(raw).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
_NO_CODE = "(?!)"
# The first row that fits decides, by the error's class or by the server's code in its message: an
# error inside a script reaches us as plain text.
_TRANSLATIONS: tuple[
    tuple[tuple[type[Exception], ...], str, type[StreamError], str],
    ...,
] = (
    (
        (
            raw.AuthenticationError,
            raw.AuthorizationError,
            raw.AuthenticationWrongNumberOfArgsError,
            raw.NoPermissionError,
        ),
        "NOAUTH|NOPERM|WRONGPASS",
        ServerError,
        "check the user and password in the address, and what that user may do (ACL)",
    ),
    (
        (raw.ReadOnlyError,),
        "READONLY",
        WritesRefused,
        "it is a replica: give the primary's address",
    ),
    (
        (raw.OutOfMemoryError,),
        "OOM",
        WritesRefused,
        "raise its maxmemory, and keep maxmemory-policy at noeviction",
    ),
    (
        (),
        "MISCONF",
        WritesRefused,
        "it can't write to its disk: free space there or mend its folder",
    ),
    (
        (),
        "CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|UNKNOWN_CA|CERTIFICATE_REQUIRED"
        "|HANDSHAKE_FAILURE",
        ServerError,
        "check that it speaks TLS, its host name, and ssl_ca_certs, ssl_certfile and ssl_keyfile "
        "in the address",
    ),
    (
        (raw.BusyLoadingError, raw.ClusterDownError, raw.TryAgainError),
        "LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|UNBLOCKED",
        ConnectionLost,
        "it is busy for the moment: try again",
    ),
    (
        (raw.ConnectionError, raw.TimeoutError),
        _NO_CODE,
        ConnectionLost,
        "start it, or use embedded://DIR",
    ),
    (
        (raw.AskError, raw.ClusterCrossSlotError, raw.ClusterError, raw.RedisClusterException),
        "MOVED|ASK|CROSSSLOT",
        ServerError,
        "it is a cluster: give the address of the node that holds this shard",
    ),
)


def translate(error: Exception, address: str) -> StreamError:
    """Our error for one of redis-py's: to retry, or to stop with what to mend."""
    for classes, codes, ours, mend in _TRANSLATIONS:
        if isinstance(error, classes) or re.search(rf"(?<!\w)({codes})(?!\w)", str(error)):
            return ours(f"{address}: {error}; {mend}")
    return ServerError(f"{address}: {type(error).__name__}: {error}; see the server's log")


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Raise our errors instead of redis-py's; `address` is named in them, so mask its password."""
    try:
        yield
    except _ANY_REDIS_ERROR as error:
        raise translate(error, address) from error


class Connection:
    """An open way to one server. A context manager; close it when done.

    Parameters
    ----------
    redis
        The synchronous client. It never retries by itself: whoever calls knows whether a command
        may be sent twice (`retrying`).
    address
        What the user gave, without its password: safe in messages and logs.
    """

    def __init__(
        self,
        redis: redis.Redis,
        address: str,
        open_async: Callable[[], redis.asyncio.Redis],
        server: "EmbeddedServer | None" = None,
    ) -> None:
        self.redis = redis
        self.address = address
        self._open_async = open_async
        self._server = server
        # A time-out has already taken its time; only a dropped connection is worth another try.
        backoff = ExponentialWithJitterBackoff(cap=0.5, base=0.05)
        self._retry = Retry(backoff, 2, (raw.ConnectionError,))

    def aio(self) -> redis.asyncio.Redis:
        """A new asynchronous client for the same server; the caller closes it (`aclose`)."""
        return self._open_async()

    def retrying(self, operation: Callable[[], _T]) -> _T:
        """Call `operation`, which must be safe to repeat, again when the connection drops.

        Raises `ConnectionLost` after three tries, and our other errors at once.
        """
        with translated(self.address):
            return self._retry.call_with_retry(operation, lambda _: None)

    def close(self) -> None:
        """Close the connection; the last to leave an embedded server ends it."""
        self.redis.close()
        if self._server is not None:
            self._server.leave()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def connect(address: str) -> Connection:
    """Open `address` and check that what answers there can be used.

    Raises
    ------
    AddressError
        The address is none of ours, or nothing on this machine can serve it.
    ConnectionLost
        Nothing answers there.
    ServerError
        Something answers, but it is too old or refuses us.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in ("redis", "rediss", "unix", "embedded", "memory"):
        raise AddressError(f"{masked(address)!r} is not an address; use {_SCHEMES}")
    if scheme == "memory":
        return _connect_memory(address, rest)
    if scheme == "embedded":
        return _connect_embedded(address, rest)
    return _connect_url(address, masked(address))


def masked(address: str) -> str:
    """`address` fit for messages: its password starred, its query left out.

    Of one whose parts can't be told for sure, because a password holds what should have been
    percent-encoded, only the scheme is left.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return "..." if "@" in address else address
    if scheme in ("embedded", "memory"):
        return address
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return f"{scheme}{separator}{_HIDDEN}"
    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if "@" in user or "@" in rest[len(parts.netloc) :]:
        return f"{scheme}{separator}{_HIDDEN}"
    return f"{scheme}{separator}{user}{colon}{'***' if colon else ''}{at}{host}{parts.path}"


def _connect_url(url: str, shown: str, server: "EmbeddedServer | None" = None) -> Connection:
    if shown.endswith(_HIDDEN):
        # Going on, its errors would hold parts of the password.
        raise AddressError(
            f"{shown} can't be read; check its port, and write what is special in its password "
            f"percent-encoded (/ as %2F, @ as %40, # as %23, ? as %3F); use {_SCHEMES}"
        )
    try:
        client = redis.Redis.from_url(
            url,
            protocol=_PROTOCOL,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
        )
        connection = Connection(client, shown, lambda: _open_async(url), server)
        with translated(shown):
            client.ping()
            _check_version(client, shown)
    except (TypeError, ValueError) as error:
        raise AddressError(f"{shown}: {error}; use {_SCHEMES}") from error
    return connection


def _open_async(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        url,
        protocol=_PROTOCOL,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
    )


def _check_version(client: redis.Redis, shown: str) -> None:
    # A user with few rights may not ask; whoever runs the worker may.
    with suppress(raw.NoPermissionError):
        version = str(client.info("server")["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise ServerError(
                f"{shown}: the server is Redis {version}, at least {oldest} is needed; "
                "update it, or use embedded://DIR"
            )


def _connect_embedded(address: str, folder: str) -> Connection:
    # Not at the top: file locks are missing on Windows, where the other addresses work.
    from streams import embedded

    if not folder:
        raise AddressError("embedded:// names no folder; write embedded://DIR")
    server = embedded.join(Path(folder).expanduser())
    try:
        return _connect_url(f"unix://{quote(str(server.socket))}", address, server)
    except BaseException:
        server.leave()
        raise


def _connect_memory(address: str, name: str) -> Connection:
    try:
        import fakeredis
    except ImportError:
        raise AddressError(
            f"{address} needs fakeredis; pip install 'closeloop[memory]', or use embedded://DIR"
        ) from None
    server = _memory.setdefault(name, fakeredis.FakeServer())
    return Connection(
        fakeredis.FakeRedis(server=server, protocol=_PROTOCOL, retry=Retry(NoBackoff(), 0)),
        address,
        lambda: fakeredis.FakeAsyncRedis(
            server=server, protocol=_PROTOCOL, retry=AsyncRetry(NoBackoff(), 0)
        ),
    )
