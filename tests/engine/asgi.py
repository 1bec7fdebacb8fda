"""Asks an ASGI application in this process, as a client would over a socket."""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
from starlette.types import ASGIApp


class Answer(NamedTuple):
    """What came back; the headers' names in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)


def ask(
    app: ASGIApp,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | Iterable[bytes] = b"",
) -> Answer:
    """One request. A body in pieces comes without its length, as a chunked one does."""
    given = {"host": "127.0.0.1"} | {name.lower(): value for name, value in (headers or {}).items()}
    if isinstance(body, bytes):
        given.setdefault("content-length", str(len(body)))
    pieces = iter([body] if isinstance(body, bytes) else body)
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        piece = next(pieces, None)
        if piece is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 9464),
        "state": {},
    }

    async def run() -> None:
        try:
            await app(scope, receive, send)  # type: ignore[arg-type] # as any server does
        except Exception:
            # What failed is raised again for the server's log, once it is answered.
            if not sent:
                raise

    asyncio.run(run())
    start, *rest = sent
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]},
        b"".join(message["body"] for message in rest),
    )
