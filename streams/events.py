"""The events on the wire: what bots publish, what closeloop answers, and how both become bytes.

Input: `Signal`, `Close`, `Control`. Output: `Decision`, `Outcome`, `Alert`, `Dead`,
`SnapshotNotice`. All are frozen. `decode` turns bytes into an input event or says, for a person,
why it can't. `encode` turns any of them into canonical bytes: fields in declaration order, absent
ones left out, floats in their shortest form, so equal events have equal bytes on every machine.
Whatever `decode` accepts, `encode` can write, and those bytes decode to an equal event.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from streams.errors import EventError

MAX_ENTRY_BYTES = 65_536
MAX_FEATURES = 256

MAX_NAME = 128
MAX_TEXT = 256
MAX_DEAD_BYTES = 1_048_576
"""Of bad input more is not kept: a server takes back no value much larger than those it gave."""
MAX_COMPLAINTS = 1_000
"""More faults of one event are not told apart: that would take longer than all else."""

_INT64, _UINT64 = -(2**63), 2**64 - 1

RFC3339_UTC = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]"
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|\+00:00)$"
)
_rfc3339_utc = re.compile(RFC3339_UTC[1:-1])


def _timestamp(value: object) -> datetime:
    """RFC 3339 in UTC, to the microsecond; finer digits are cut off."""
    if isinstance(value, str) and _rfc3339_utc.fullmatch(value):
        return datetime.fromisoformat(value.upper())
    if isinstance(value, datetime) and value.utcoffset() is not None:
        try:
            utc = value.astimezone(UTC)
        except OverflowError:
            raise ValueError("is outside the years 1 to 9999 in UTC") from None
        # orjson writes no subclasses, and pandas' Timestamp is one.
        return utc if type(utc) is datetime else datetime.combine(utc.date(), utc.time(), UTC)
    raise ValueError("is not an RFC 3339 time in UTC; write it like 2026-05-01T13:30:00Z")


def _notes(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Only what JSON can carry to any reader: finite numbers, integers of at most 64 bits."""
    left: list[JsonValue] = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
        elif isinstance(item, float) and not isfinite(item):
            raise ValueError(f"holds {item}; JSON has finite numbers only")
        elif isinstance(item, int) and not _INT64 <= item <= _UINT64:
            raise ValueError("holds an integer of more than 64 bits; write it as a string")
    return value


def _not_bool(value: object) -> object:
    """Python takes True for 1; the wire doesn't."""
    if isinstance(value, bool):
        raise ValueError("must be 1")
    return value


class _OneComplaint:
    """Makes a union that nothing fits complain once, not once a member."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source),
            custom_error_type="feature_value",
            custom_error_message="must be a finite number, a bool, "
            f"a string of at most {MAX_TEXT} characters, or null",
        )


Timestamp = Annotated[
    datetime,
    BeforeValidator(
        _timestamp,
        json_schema_input_type=Annotated[
            str, Field(pattern=RFC3339_UTC, json_schema_extra={"format": "date-time"})
        ],
    ),
]

Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
"""A signal's name, given by the bot and unique for good."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
FeatureValue = Annotated[
    float | bool | Text | None, Field(union_mode="left_to_right"), _OneComplaint()
]
"""A feature as the bot saw it. A number, a bool, a category, or null where it is missing."""
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Side = Literal["long", "short"]
Action = Literal["take", "reduce_size", "skip"]
Baseline = Literal["take", "skip"]
Severity = Literal["critical", "warning", "info"]
Version = Annotated[Literal[1], BeforeValidator(_not_bool, json_schema_input_type=Literal[1])]
Notes = Annotated[dict[str, JsonValue], AfterValidator(_notes)]


class _Wire(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class Signal(_Wire):
    """A trade that a bot could take, with the features it saw."""

    type: Literal["signal"] = "signal"
    signal_id: Id
    ts: Timestamp
    symbol: Name
    side: Side
    features: dict[Name, FeatureValue] = Field(max_length=MAX_FEATURES)
    strategy: Name | None = None
    price: float | None = None
    baseline: Baseline | None = Field(None, description="what the bot's own rules would do")
    v: Version | None = Field(None, description="version of this contract")
    meta: Notes | None = Field(None, description="the bot's own notes, never read")


class Close(_Wire):
    """How a trade ended."""

    type: Literal["close"] = "close"
    signal_id: Id
    ts: Timestamp
    return_pct: float = Field(description="percent of the entry, net of costs")
    profit: float | None = None
    exit_price: float | None = None
    exit_reason: Literal["target", "stop", "timeout", "manual"] | None = None
    mfe_pct: float | None = Field(None, description="maximum favourable excursion, percent")
    mae_pct: float | None = Field(None, description="maximum adverse excursion, percent")
    hold_minutes: float | None = None
    executed: bool | None = Field(None, description="false: tracked on paper")
    v: Version | None = Field(None, description="version of this contract")
    meta: Notes | None = Field(None, description="the bot's own notes, never read")


class Control(_Wire):
    """An operator's command, signed with the control key."""

    type: Literal["control"] = "control"
    command: Name
    ts: Timestamp
    by: Name
    reason: Text
    sig: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)] = Field(
        description="HMAC-SHA256, hex, by the control key over the event without `sig`"
    )
    args: Annotated[dict[Name, FeatureValue], Field(max_length=MAX_FEATURES)] | None = None
    v: Version | None = Field(None, description="version of this contract")


class ModelRef(_Wire):
    """Which state of the model made a decision."""

    update: int = Field(description="closes learned so far")
    last_close: str | None = Field(description="signal_id of the last close learned")
    champion: str | None = Field(description="the installed refit")
    config: str = Field(description="the first 12 hex digits of the config's digest")


class Decision(_Wire):
    """What to do about a signal. Holds nothing that the inputs do not determine."""

    type: Literal["decision"] = "decision"
    decision_id: str = Field(description="the signal's stream ID, and this entry's own")
    signal_id: Id
    ts: Timestamp
    symbol: Name
    action: Action
    probability: Probability
    expected_return_pct: float
    risk: Probability = Field(description="probability of the stop")
    size_multiplier: float = Field(ge=0.0)
    reasons: tuple[str, ...]
    model: ModelRef
    regime: str | None = None
    arm: str | None = None
    mode: str | None = None
    baseline: Baseline | None = None
    kelly_fraction: float | None = None
    probability_interval: tuple[float, float] | None = None
    contributions: dict[str, float] | None = None


class Outcome(_Wire):
    """A decision joined to its close: what was thought, and what came of it."""

    type: Literal["outcome"] = "outcome"
    signal_id: Id
    ts: Timestamp = Field(description="of the close")
    opened: Timestamp = Field(description="of the signal")
    symbol: Name
    side: Side
    strategy: Name | None = None
    action: Action
    baseline: Baseline | None = None
    probability: Probability
    expected_return_pct: float
    risk: Probability
    size_multiplier: float
    won: bool
    stopped: bool | None = None
    return_pct: float
    executed: bool
    experts: dict[str, float] = Field(description="each expert's probability, frozen at the signal")
    update: int = Field(description="the number of this close among all learned")


class Alert(_Wire):
    """Something that a person should know."""

    type: Literal["alert"] = "alert"
    ts: Timestamp
    severity: Severity
    code: Name
    subject: str = Field(description="what it is about: a series, a signal, a refit")
    message: str


class Dead(_Wire):
    """Input that could not be used, whole, and why."""

    type: Literal["dead"] = "dead"
    stream: str
    entry_id: str
    reason: str = Field(description="a plain code")
    message: str
    data: str | None = Field(None, description="the original bytes, when they are UTF-8")
    data_base64: str | None = Field(None, description="the original bytes, when they are not")


class SnapshotNotice(_Wire):
    """A snapshot was taken."""

    type: Literal["snapshot"] = "snapshot"
    snapshot_id: str
    position: str | None = Field(description="the input ID up to which it holds everything")
    events: int
    file_digest: str
    state_digest: str
    decisions_digest: str


Input = Signal | Close | Control
Output = Decision | Outcome | Alert | Dead

_INPUT: TypeAdapter[Input] = TypeAdapter(Annotated[Input, Field(discriminator="type")])
_TYPES = "it is one of signal, close, control"
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the input, decoded. Exactly one of `event` and `error` is set.

    Parameters
    ----------
    id
        The stream ID; for a tape ``0-LINE``.
    data
        The bytes as they came.
    event
        The event, when the bytes are one.
    error
        Why they aren't, for a person.
    """

    id: str
    data: bytes
    event: Input | None
    error: str | None = None


def decode(data: bytes) -> Input:
    """The input event in `data`. Raises `EventError` with a reason a person understands."""
    if len(data) > MAX_ENTRY_BYTES:
        raise EventError(f"the entry has {len(data)} bytes; at most {MAX_ENTRY_BYTES} are read")
    try:
        return _INPUT.validate_json(data)
    except ValidationError as error:
        # The first part of a place in a union is the event's type.
        raise EventError(_reason(error, data, 1)) from None


def decode_output(model: type[_Model], data: bytes) -> _Model:
    """The `model`, say a `Decision`, in `data`. Raises `EventError` likewise."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise EventError(_reason(error, data, 0)) from None


def read_entry(entry_id: str, data: bytes) -> Entry:
    """`data` as an `Entry`; never raises."""
    try:
        return Entry(entry_id, data, decode(data))
    except EventError as error:
        return Entry(entry_id, data, None, str(error))


def _reason(error: ValidationError, data: bytes, skip: int) -> str:
    """The first of pydantic's complaints about `data`, in one line."""
    if error.error_count() > MAX_COMPLAINTS:
        return f"it has {error.error_count()} faults; compare it with `closeloop schema`"
    details = error.errors(include_url=False)
    first = details[0]
    kind, value, place = first["type"], first["input"], first["loc"][skip:]
    if kind == "json_invalid":
        return _not_json(data, first)
    if not place and not isinstance(value, dict):
        return "not a JSON object"
    if kind == "union_tag_not_found":
        return f"field `type` is missing; {_TYPES}"
    if kind == "union_tag_invalid":
        return f"unknown type {_short(value['type'])}; {_TYPES}"
    where = _where(place)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if kind == "missing":
        return f"{where} is missing{more}"
    if kind == "extra_forbidden":
        return f"{where} is not part of the contract; put it under `meta`{more}"
    message = first["msg"].removeprefix("Value error, ")
    if kind == "too_long":
        return f"{where} has {len(value)} entries; at most {first['ctx']['max_length']} are read"
    if kind == "dict_type":
        message = "must be an object"
    message = message.replace("Input should", "must").replace("String should", "must")
    return f"{where}: {message}; got {_short(value)}{more}"


def _not_json(data: bytes, complaint: ErrorDetails) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
    if not text.strip():
        return "empty"
    if text.startswith("\ufeff"):
        return "not JSON: it starts with a byte order mark; write UTF-8 without one"
    message = complaint["ctx"]["error"]
    if "hex escape" in message:
        message = f"a \\u escape is cut short or half of a surrogate pair ({message})"
    return f"not JSON: {message}"


def _where(place: Sequence[int | str]) -> str:
    """The field's name as its writer knows it."""
    named = place[:-1] if place[-1] == "[key]" else place
    kind = "feature" if named[0] == "features" and len(named) > 1 else "field"
    path = ".".join(map(str, named[1:] if kind == "feature" else named))
    name = f"{kind} `{path if len(path) <= 64 else path[:61] + '...'}`"
    return f"the name of {name}" if named is not place else name


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 64 else shown[:61] + "..."


def _plain(value: object) -> Any:
    """What orjson doesn't know: nested models."""
    if isinstance(value, BaseModel):
        return value.__dict__
    raise TypeError(f"a {type(value).__name__} can't go on the wire")


Wire = TypeVar("Wire", bound=BaseModel)
_TEMPLATES: dict[type[BaseModel], dict[str, object]] = {}


def encode(event: BaseModel) -> bytes:
    """Canonical bytes of an event: what goes on the wire, and what digests are taken over."""
    fields = {name: value for name, value in event.__dict__.items() if value is not None}
    return orjson.dumps(fields, _plain, orjson.OPT_UTC_Z)


def trusted(model: type[Wire], /, **fields: object) -> Wire:
    """An event whose fields are right by construction, ten times faster than checking them again.

    For what the core itself puts out. Fields that are left out have their defaults, which every
    model here has as plain values.
    """
    event = model.__new__(model)
    values = _TEMPLATES.get(model)
    if values is None:
        values = _TEMPLATES[model] = {
            name: None if field.is_required() else field.default
            for name, field in model.model_fields.items()
        }
    object.__setattr__(event, "__dict__", values | fields)
    object.__setattr__(event, "__pydantic_fields_set__", set(fields))
    object.__setattr__(event, "__pydantic_extra__", None)
    object.__setattr__(event, "__pydantic_private__", None)
    return event


def dead(stream: str, entry_id: str, reason: str, message: str, data: bytes) -> Dead:
    """A dead letter that keeps the original bytes, whatever they are, up to `MAX_DEAD_BYTES`."""
    data = data[:MAX_DEAD_BYTES]
    try:
        return Dead(
            stream=stream, entry_id=entry_id, reason=reason, message=message, data=data.decode()
        )
    except UnicodeDecodeError:
        return Dead(
            stream=stream,
            entry_id=entry_id,
            reason=reason,
            message=message,
            data_base64=base64.b64encode(data).decode(),
        )
