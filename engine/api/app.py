"""What the API answers: its routes, and with which status each thing that may happen is told.

Reading is open, and shows what the worker last wrote of itself (`engine.view`). `/score` asks the
core itself, through the mailbox. Whoever changes anything shows the token; a change is a signed
control event in the input, and nothing here touches the core.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import structlog
from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import JsonValue, ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from engine.api.access import HeadAsGet, json_body, shows
from engine.api.forms import (
    Model,
    Models,
    Order,
    Probe,
    Refits,
    Rollout,
    Sent,
    Status,
    json_of,
    openapi,
    problems,
)
from engine.api.mailbox import Mailbox, MailboxFull
from engine.bootstrap import keys_of
from engine.commands import OPERATORS
from engine.config import Config, ConfigError
from engine.sending import CommandError, control_key_of, send, signed
from engine.view import read_view
from streams import Connection, Decision, EventError, Keys, Signal, StreamError, decode, encode
from streams.events import Entry
from streams.values import MAX_NAME

SCORE_S = 2.0
"""How long a score may take, most of it waiting for the worker."""
CHANGES = 1_000
"""How many of the newest model changes are looked through."""

Named = Annotated[str, Path(max_length=MAX_NAME)]


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes answer."""

    alive: bool
    ready: bool
    detail: str


def new_app(
    config: Config,
    connection: Connection,
    registry: CollectorRegistry,
    health: Callable[[], Health],
    mailbox: Mailbox,
    local: bool,
) -> FastAPI:
    """The application.

    Parameters
    ----------
    config
        The worker's: its token, control key and key names.
    connection
        For the view and for commands; not the worker's own.
    registry
        What `/metrics` shows.
    health
        Asked at every probe.
    mailbox
        Where the worker looks for questions.
    local
        Whether only this machine can reach it. If so, only requests that name this machine are
        answered, so that no page of elsewhere can have a browser ask; if not, a score needs the
        token.
    """
    app = FastAPI(
        title="closeloop",
        summary="Metrics, health, what stands where, scores without a record, and control.",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    keys = keys_of(config)
    token = Depends(shows(config.http.token))

    async def view() -> dict[str, Any]:
        return await run_in_threadpool(read_view, connection, keys)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request) -> Response:
        """What the worker measures, in Prometheus's form."""
        encoder, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(registry), headers={"Content-Type": kind})

    @app.get("/healthz", responses={503: {"model": Probe}})
    async def healthz(response: Response) -> Probe:
        """Whether the process is alive."""
        state = health()
        return _probe(state.alive, state.detail, response)

    @app.get("/readyz", responses={503: {"model": Probe}})
    async def readyz(response: Response) -> Probe:
        """Whether it serves the shard: holds the lease, and has recovered."""
        state = health()
        return _probe(state.ready, state.detail, response)

    @app.get("/status", responses=problems(503))
    async def status() -> Status:
        """All that stands where; its `revision` says how often that was changed."""
        return Status(**await view())

    @app.get("/rollout", responses=problems(503))
    async def rollout() -> Rollout:
        """How far the rollout is."""
        return Rollout(**_part(await view(), "rollout"))

    @app.get("/models", responses=problems(503))
    async def models() -> Models:
        """The kept models, and which of them is at work."""
        return Models(**_part(await view(), "models"))

    @app.get("/models/{model}", responses=problems(404, 422, 503))
    async def one_model(model: Named) -> Model:
        """What one model was made of, and what became of it."""
        kept = Models(**_part(await view(), "models"))
        changes = await run_in_threadpool(_changes, connection, keys, model)
        if model not in kept.kept and not changes:
            known = ", ".join(kept.kept) or "none"
            raise HTTPException(404, f"nothing is known of a model {model!r}; kept: {known}")
        return Model(
            model=model,
            champion=model == kept.champion,
            kept=model in kept.kept,
            changes=changes,
        )

    @app.get("/refit", responses=problems(503))
    async def refit() -> Refits:
        """Which refit is under way, and when the next is due."""
        return Refits(**_part(await view(), "refit"))

    @app.post(
        "/score",
        dependencies=[] if local else [token],
        responses=problems(*([] if local else [401, 403]), 413, 415, 422, 429, 503)
        | {200: json_of("Decision")},
        openapi_extra={"requestBody": {"required": True, **json_of("Signal")}},
        response_class=Response,
    )
    async def score(request: Request) -> Response:
        """The decision that a signal would get now. Nothing is recorded, and nothing changes.

        Its `decision_id` is `0-0`: it has no place in a stream.
        """
        data = await json_body(request)
        try:
            event = decode(data)
        except EventError as error:
            raise HTTPException(422, str(error)) from None
        if not isinstance(event, Signal):
            raise HTTPException(422, f"a {event.type} gets no decision; send a signal")
        decision = await _answer(mailbox, Entry("0-0", data, event))
        return Response(encode(decision), media_type="application/json")

    @app.post(
        "/control/{command}",
        status_code=202,
        dependencies=[token],
        responses=problems(401, 403, 404, 409, 413, 415, 422, 503),
        openapi_extra={"requestBody": {"required": True, **json_of("Order")}},
    )
    async def control(
        request: Request,
        command: Annotated[
            str, Path(max_length=MAX_NAME, json_schema_extra={"enum": [*OPERATORS]})
        ],
    ) -> Sent:
        """Give a command. It takes effect in its place among the events, so replays obey it too.

        The commands and their arguments are those of `closeloop control --help`.
        """
        if command not in OPERATORS:
            known = ", ".join(OPERATORS)
            raise HTTPException(404, f"unknown command {command!r}; known: {known}")
        order = _order(await json_body(request))
        if "revision" in order.args:
            raise HTTPException(422, "`revision` stands beside `args`, not in it")
        args: dict[str, float | bool | str | None] = dict(order.args)
        # Nothing may stand in the way of a halt.
        revision = None if command == "halt" else order.revision
        if revision is not None:
            _not_stale(revision, await view())
            args["revision"] = revision
        try:
            data = signed(control_key_of(config), command, order.by, order.reason, args)
        except ConfigError as error:
            raise HTTPException(503, str(error)) from None
        except CommandError as error:
            raise HTTPException(422, str(error)) from None
        entry_id = await run_in_threadpool(send, connection, keys, data)
        return Sent(entry_id=entry_id, command=command, revision=revision)

    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(StreamError, _unavailable)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(HeadAsGet)
    if local:
        app.add_middleware(
            TrustedHostMiddleware,
            allowed_hosts=["localhost", "127.0.0.1", "[::1]", config.http.host],
            www_redirect=False,
        )
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign] # as FastAPI's manual does
    return app


def _probe(ok: bool, detail: str, response: Response) -> Probe:
    response.status_code = 200 if ok else 503
    return Probe(ok=ok, detail=detail)


def _part(view: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name not in view:
        raise HTTPException(503, f"the worker says nothing of its {name}; update and restart it")
    return dict(view[name])


def _changes(connection: Connection, keys: Keys, model: str) -> list[dict[str, JsonValue]]:
    """The newest changes of a model, oldest first."""
    newest: Any = connection.retrying(
        lambda: connection.redis.xrevrange(keys.models, count=CHANGES)
    )
    found = (orjson.loads(fields[b"e"]) for _, fields in reversed(newest))
    return [change for change in found if change["model"] == model]


async def _answer(mailbox: Mailbox, entry: Entry) -> Decision:
    """What the core says, from the worker's thread."""
    try:
        answer = mailbox.ask(lambda core: core.score(entry))
        return await asyncio.wait_for(asyncio.wrap_future(answer), SCORE_S)
    except MailboxFull as error:
        raise HTTPException(429, str(error), {"Retry-After": "1"}) from None
    except TimeoutError:
        raise HTTPException(
            503,
            f"the worker had no time for an answer within {SCORE_S:g} s; /readyz says whether it"
            " serves the shard, and if it does, ask again later",
        ) from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


def _order(data: bytes) -> Order:
    try:
        return Order.model_validate_json(data)
    except ValidationError as error:
        raise HTTPException(422, _first(error.errors(include_url=False))) from None


def _not_stale(revision: int, view: Mapping[str, Any]) -> None:
    current = view["revision"]
    if revision != current:
        raise HTTPException(
            409,
            f"the command is stale: it was given at revision {revision}, this is revision"
            f" {current}; look at /status again, then repeat it",
        )


def _first(errors: Any) -> str:
    """The first of pydantic's errors in one line: where it is and what is right there."""
    where = ".".join(str(part) for part in errors[0]["loc"])
    return f"`{where}`: {errors[0]['msg']}" if where else str(errors[0]["msg"])


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)


async def _unavailable(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 503)


async def _unfit(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": _first(error.errors())}, 422)


async def _failed(request: Request, error: Exception) -> Response:
    structlog.get_logger().error("http_failed", path=request.url.path, exc_info=error)
    return JSONResponse({"detail": "this failed; the worker's log says how"}, 500)
