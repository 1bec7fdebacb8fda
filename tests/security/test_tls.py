"""TLS: the server is known by its certificate, and the client by its own where that is asked."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from streams import AsyncClient, Client, ConnectionLost, ServerError, connect
from streams.connection import masked
from tests.engine.conftest import Command
from tests.engine.conftest import closeloop as closeloop
from tests.engine.histories import signal
from tests.security import certificates
from tests.security.roles import loaded
from tests.security.tls import tls_proxy


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("AUTHORITY", "SERVER", "CLIENT", "STRANGER"):
        (folder / name.lower()).write_text(getattr(certificates, name))
    return folder


def served(redis_server: str, files: Path, asks: bool) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server")
    if asks:
        context.load_verify_locations(files / "authority")
        context.verify_mode = ssl.CERT_REQUIRED
    port = urlsplit(redis_server).port
    assert port is not None
    with tls_proxy(context, port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def port(redis_server: str, files: Path) -> Iterator[int]:
    yield from served(redis_server, files, asks=False)


@pytest.fixture(scope="module")
def asking_port(redis_server: str, files: Path) -> Iterator[int]:
    yield from served(redis_server, files, asks=True)


async def test_clients_speak_tls_to_a_server_whose_authority_they_name(
    port: int, files: Path
) -> None:
    address = f"rediss://127.0.0.1:{port}?ssl_ca_certs={files / 'authority'}"
    with Client(address) as client:
        receipt = client.publish(signal("a"))
    async with AsyncClient(address) as other:
        assert (await other.publish(signal("a"))).signal_id == receipt.signal_id


def test_users_and_their_rights_work_through_tls(port: int, files: Path, redis_server: str) -> None:
    with loaded(redis_server) as addresses:
        bot = urlsplit(addresses["bot"]).netloc.rpartition("@")[0]
        query = f"?ssl_ca_certs={files / 'authority'}"
        with Client(f"rediss://{bot}@127.0.0.1:{port}{query}") as client:
            assert client.publish(signal("a")).signal_id == "a"
        with pytest.raises(ServerError, match="check the user and password"):
            connect(f"rediss://closeloop-bot:wrong@127.0.0.1:{port}{query}")


def test_a_client_shows_its_own_certificate_where_the_server_asks(
    asking_port: int, files: Path
) -> None:
    trusted = f"rediss://127.0.0.1:{asking_port}?ssl_ca_certs={files / 'authority'}"
    own = files / "client"
    with connect(f"{trusted}&ssl_certfile={own}&ssl_keyfile={own}") as connection:
        assert connection.redis.ping()
    with pytest.raises((ServerError, ConnectionLost)):
        connect(trusted)


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs={}/stranger"])
def test_a_server_that_cannot_be_trusted_is_an_error_and_not_tried_again(
    query: str, port: int, files: Path
) -> None:
    with pytest.raises(ServerError, match="ssl_ca_certs"):
        connect(f"rediss://127.0.0.1:{port}{query.format(files)}")


def test_a_certificate_for_another_host_is_refused(port: int, files: Path) -> None:
    # 127.0.0.1 written in a way that the certificate doesn't have.
    with pytest.raises(ServerError, match="ssl_ca_certs"):
        connect(f"rediss://127.1:{port}?ssl_ca_certs={files / 'authority'}")


def test_plain_redis_to_a_tls_port_and_tls_to_a_plain_one_are_errors(
    port: int, redis_server: str
) -> None:
    soon = "?socket_timeout=0.2&socket_connect_timeout=0.2"
    with pytest.raises((ServerError, ConnectionLost)):
        connect(f"redis://127.0.0.1:{port}{soon}")
    with pytest.raises((ServerError, ConnectionLost)):
        connect(redis_server.replace("redis://", "rediss://") + soon)


def test_a_missing_certificate_file_is_named(port: int) -> None:
    with pytest.raises((ServerError, ConnectionLost), match="No such file"):
        connect(f"rediss://127.0.0.1:{port}?ssl_ca_certs=/nowhere/ca.pem")


def test_commands_say_in_one_line_what_is_wrong_with_a_certificate(
    port: int, closeloop: Command
) -> None:
    refused = closeloop("status", "--address", f"rediss://127.0.0.1:{port}")
    assert (refused.status, refused.err.count("\n")) == (3, 1)
    assert "CERTIFICATE_VERIFY_FAILED" in refused.err


def test_nothing_of_the_query_is_shown() -> None:
    assert masked("rediss://h:1?ssl_password=hush&ssl_keyfile=f") == "rediss://h:1"
