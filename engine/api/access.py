"""Who is let in, and how much is read of what they send."""

import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from streams.events import MAX_ENTRY_BYTES

MAX_BODY = MAX_ENTRY_BYTES


def shows(token: SecretStr | None) -> Callable[..., None]:
    """A dependency that lets pass who shows the token; nobody, when there is none."""
    expected = None if token is None else token.get_secret_value().encode()
    bearer = HTTPBearer(auto_error=False, description="`http.token` of the worker's settings")

    def authorized(shown: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if expected is None:
            raise HTTPException(
                403,
                "no token is configured, so nothing can be changed here; set http.token, or"
                " CLOSELOOP_HTTP__TOKEN, or use `closeloop control`",
            )
        # Headers come decoded as Latin-1.
        given = b"" if shown is None else shown.credentials.encode("latin-1", "replace")
        if not hmac.compare_digest(given, expected):
            raise HTTPException(
                401,
                "the token is missing or wrong; send `Authorization: Bearer TOKEN` with the"
                " http.token of the worker's settings",
                {"WWW-Authenticate": "Bearer"},
            )

    return authorized


async def json_body(request: Request) -> bytes:
    """The body, whatever it holds, once nothing else speaks against the request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(
            415, f"the content type is {kind!r}; send JSON with `Content-Type: application/json`"
        )
    too_large = HTTPException(413, f"the body is too large: at most {MAX_BODY} bytes are read")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise too_large
    return bytes(data)


class HeadAsGet:
    """HEAD is answered as GET is; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
