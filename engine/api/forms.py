"""The forms of what the API is asked and what it answers, and how they are told in OpenAPI."""

from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from streams.schema import asyncapi
from streams.values import MAX_FEATURES, MAX_NAME, MAX_TEXT

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Argument = (
    bool
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=MAX_TEXT)]
    | None
)


class Problem(BaseModel):
    """Why it can't be done, and what to do."""

    detail: str


class Probe(BaseModel):
    """Whether it is so."""

    ok: bool
    detail: str = Field(description="the position in the input")


class _Seen(BaseModel):
    # What the worker says of itself may be more than what is told here.
    model_config = ConfigDict(extra="allow")


class Status(_Seen):
    """What stands where, as the worker last wrote it."""

    position: str = Field(description="the position in the input")
    counts: dict[str, int] = Field(description="what has been counted since the first event")
    revision: int = Field(description="how often commands or the engine changed what stands")


class Rollout(_Seen):
    """How far the rollout is: its arms, and what is missing for the next stage."""

    mode: str = Field(description="shadow, advisory, canary or live")
    percent: float = Field(description="of the signals, that the model decides")
    next: float | None = Field(description="percent of the next stage; null: there is none")
    missing: list[str] = Field(description="what is missing for it")
    arms: dict[str, dict[str, JsonValue]] = Field(description="how the arms' trades went")


class Refits(_Seen):
    """How refits stand."""

    launched: int
    installed: int
    rejected: int
    pending: int | None = Field(description="closes learned when the one under way was launched")
    next: int = Field(description="closes at which the next is due")
    lag: int = Field(description="closes from a launch to its installation")


class Models(_Seen):
    """Which models are kept, and what they are."""

    champion: str | None = Field(description="the one at work")
    challenger: str | None = Field(description="the newest that isn't")
    pinned: str | None = Field(description="the champion, if it is to stay whatever refits come")
    previous: str | None = Field(description="the champion before")
    kept: list[str] = Field(description="those that can be installed, oldest first")


class Model(BaseModel):
    """What became of one model."""

    model: str = Field(description="its ID")
    champion: bool = Field(description="whether it is the one at work")
    kept: bool = Field(description="whether it can be installed")
    changes: list[dict[str, JsonValue]] = Field(
        description="the events of the models stream about it, oldest first: what it was made of,"
        " how it was judged, when and by whom it was installed"
    )


class Order(BaseModel):
    """A command: who gives it, why, and what it needs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by: Name = Field(description="who says so")
    reason: str = Field(min_length=1, max_length=MAX_TEXT, description="why; the alert has it")
    args: dict[Name, Argument] = Field(
        {}, max_length=MAX_FEATURES, description="the command's arguments by name"
    )
    revision: int | None = Field(
        None,
        ge=0,
        lt=2**53,
        description="that of the status in view of which the command is given: if it has changed"
        " since, the command is refused; a halt never is",
    )


class Sent(BaseModel):
    """The command is in the input. The engine answers with an alert, or with a dead letter."""

    entry_id: str = Field(description="its place in the input")
    command: str
    revision: int | None = Field(description="the one it was given at")


_PROBLEMS = {
    401: "the token is missing or wrong",
    403: "no token is configured",
    404: "there is no such thing",
    409: "the command is stale",
    413: "the body is too large",
    415: "the body isn't JSON",
    422: "what is asked isn't right",
    429: "too many questions wait",
    503: "the worker or its server can't answer now",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses`, for what may go wrong there."""
    return {s: {"model": Problem, "description": _PROBLEMS[s]} for s in statuses}


def json_of(name: str) -> dict[str, Any]:
    """JSON content by the name of its schema."""
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI's document, the events in it as the wire's own schema has them."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        events: Any = asyncapi()["components"]
        found["components"]["schemas"] |= {
            "Order": Order.model_json_schema(),
            **{name: events["schemas"][name] for name in ("Signal", "Decision", "ModelRef")},
        }
        app.openapi_schema = found
    return app.openapi_schema
