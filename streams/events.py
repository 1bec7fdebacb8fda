"""The events on the wire: what bots publish, what closeloop answers, and how both become bytes.

Input: `Signal`, `Close`, `Control`. Output: `Decision`, `Outcome`, `Alert`, `ModelChange`, `Dead`,
`SnapshotNotice`. All are frozen. `decode` turns bytes into an input event or says, for a person,
why it can't. `encode` turns any of them into canonical bytes: fields in declaration order, absent
ones left out, floats in their shortest form, so equal events have equal bytes on every machine.
Whatever `decode` accepts, `encode` can write, and those bytes decode to an equal event.

Building an event in Python checks nothing but the fields' names; decoding checks everything.
`streams.protocol.prepared`, which the clients publish by, decodes what it wrote.
"""

import base64
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from streams.errors import EventError
from streams.reasons import why_not
from streams.values import (
    Features,
    Id,
    Name,
    Notes,
    Probability,
    Text,
    Timestamp,
    Version,
    check_notes,
    read_value,
    timestamp,
)

MAX_ENTRY_BYTES = 65_536
MAX_DEAD_BYTES = 1_048_576
"""Of bad input more is not kept: a server takes back no value much larger than those it gave."""

Side = Literal["long", "short"]
Action = Literal["take", "reduce_size", "skip"]
Baseline = Literal["take", "skip"]
Severity = Literal["critical", "warning", "info"]
Arm = Literal["model", "baseline"]
Mode = Literal["shadow", "advisory", "canary", "live"]
Restraint = Literal["REDUCING", "HALTED"]
ContractVersion = Annotated[Version | None, Meta(description="version of this contract")]
BotNotes = Annotated[Notes | None, Meta(description="the bot's own notes, never read")]


# None holds a cycle, so the garbage collector needn't look at them.
class _Part(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    pass


class _Event(_Part, frozen=True):
    @property
    def type(self) -> str:
        """The event's name on the wire."""
        return str(self.__struct_config__.tag)


class Signal(_Event, frozen=True, kw_only=True, tag="signal"):
    """A trade that a bot could take, with the features it saw."""

    signal_id: Id
    ts: Timestamp
    symbol: Name
    side: Side
    features: Features
    strategy: Name | None = None
    price: float | None = None
    baseline: Annotated[Baseline | None, Meta(description="what the bot's own rules would do")] = (
        None
    )
    v: ContractVersion = None
    meta: BotNotes = None


class Close(_Event, frozen=True, kw_only=True, tag="close"):
    """How a trade ended."""

    signal_id: Id
    ts: Timestamp
    return_pct: Annotated[float, Meta(description="percent of the entry, net of costs")]
    profit: float | None = None
    exit_price: float | None = None
    exit_reason: Literal["target", "stop", "timeout", "manual"] | None = None
    mfe_pct: Annotated[float | None, Meta(description="maximum favourable excursion, percent")] = (
        None
    )
    mae_pct: Annotated[float | None, Meta(description="maximum adverse excursion, percent")] = None
    hold_minutes: float | None = None
    executed: Annotated[bool | None, Meta(description="false: tracked on paper")] = None
    v: ContractVersion = None
    meta: BotNotes = None


class Control(_Event, frozen=True, kw_only=True, tag="control"):
    """An operator's command, signed with the control key."""

    command: Name
    ts: Timestamp
    by: Name
    reason: Text
    sig: Annotated[
        str,
        Meta(
            pattern=r"^[0-9a-f]{64}$",
            max_length=64,
            description="HMAC-SHA256, hex, by the control key over the event without `sig`",
        ),
    ]
    args: Features | None = None
    v: ContractVersion = None


class ModelRef(_Part, frozen=True, kw_only=True):
    """Which state of the model made a decision."""

    update: Annotated[int, Meta(description="closes learned so far")]
    last_close: Annotated[str | None, Meta(description="signal_id of the last close learned")]
    champion: Annotated[str | None, Meta(description="the installed refit")]
    config: Annotated[str, Meta(description="the first 12 hex digits of the config's digest")]


class Decision(_Event, frozen=True, kw_only=True, tag="decision"):
    """What to do about a signal. Holds nothing that the inputs do not determine."""

    decision_id: Annotated[str, Meta(description="the signal's stream ID, and this entry's own")]
    signal_id: Id
    ts: Timestamp
    symbol: Name
    action: Action
    probability: Probability
    expected_return_pct: float
    risk: Annotated[Probability, Meta(description="probability of the stop")]
    size_multiplier: Annotated[float, Meta(ge=0.0)]
    reasons: tuple[str, ...]
    model: ModelRef
    regime: str | None = None
    arm: Annotated[Arm | None, Meta(description="who decided this signal; live: the model")] = None
    mode: Annotated[Mode | None, Meta(description="of the rollout; absent: live")] = None
    safety: Annotated[Restraint | None, Meta(description="of the kill switch, unless ACTIVE")] = (
        None
    )
    advised: Annotated[
        Action | None, Meta(description="what the model would do, where it isn't what is done")
    ] = None
    advised_size: float | None = None
    baseline: Baseline | None = None
    kelly_fraction: float | None = None
    probability_interval: tuple[float, float] | None = None
    return_interval_pct: Annotated[
        tuple[float, float] | None,
        Meta(description="where the return lies nine times in ten, percent"),
    ] = None
    propensity: Annotated[
        Probability | None,
        Meta(description="the chance that a signal like this is taken, at any size"),
    ] = None
    contributions: dict[str, float] | None = None


class Outcome(_Event, frozen=True, kw_only=True, tag="outcome"):
    """A decision joined to its close: what was thought, and what came of it."""

    signal_id: Id
    ts: Annotated[Timestamp, Meta(description="of the close")]
    opened: Annotated[Timestamp, Meta(description="of the signal")]
    symbol: Name
    side: Side
    strategy: Name | None = None
    action: Action
    baseline: Baseline | None = None
    probability: Probability
    expected_return_pct: float
    risk: Probability
    size_multiplier: float
    regime: str | None = None
    arm: Arm | None = None
    mode: Mode | None = None
    advised: Annotated[
        Action | None, Meta(description="what the model would have done, where it wasn't done")
    ] = None
    advised_size: float | None = None
    probability_interval: tuple[float, float] | None = None
    return_interval_pct: tuple[float, float] | None = None
    propensity: Probability | None = None
    won: bool
    stopped: bool | None = None
    return_pct: float
    executed: bool
    experts: Annotated[
        dict[str, float], Meta(description="each expert's probability, frozen at the signal")
    ]
    update: Annotated[int, Meta(description="the number of this close among all learned")]


class Alert(_Event, frozen=True, kw_only=True, tag="alert"):
    """Something that a person should know."""

    ts: Timestamp
    severity: Severity
    code: Name
    subject: Annotated[str, Meta(description="what it is about: a series, a signal, a refit")]
    message: str
    state: Annotated[
        Literal["firing", "resolved"] | None, Meta(description="of a condition that lasts")
    ] = None
    unsaid: Annotated[
        int | None, Meta(description="alerts of this code and subject held back since the last")
    ] = None


class ModelFacts(_Part, frozen=True, kw_only=True):
    """What a refit was made of, and how good it is on closes that it wasn't made of."""

    cause: Annotated[str, Meta(description="why it was launched: closes, daily, weekly, drift, …")]
    launched: Annotated[int, Meta(description="closes learned when it was launched")]
    trained_on: Annotated[int, Meta(description="closes that trained the one that was judged")]
    held_out: Annotated[int, Meta(description="closes that judged it")]
    first_close: Annotated[Timestamp | None, Meta(description="of the window of closes")] = None
    last_close: Timestamp | None = None
    features: Annotated[tuple[str, ...], Meta(description="the columns of its rows")] = ()
    params: dict[str, float] = {}
    metrics: Annotated[dict[str, float], Meta(description="on the held-out closes")] = {}
    champion_metrics: Annotated[
        dict[str, float], Meta(description="the champion's, on the same closes")
    ] = {}


class ModelChange(_Event, frozen=True, kw_only=True, tag="model"):
    """A refit was made, or who is champion changed."""

    ts: Timestamp
    change: Annotated[
        Literal["fitted", "installed", "rejected", "rolled_back", "pinned", "unpinned", "lost"],
        Meta(description="what happened"),
    ]
    model: Annotated[str, Meta(description="the refit's ID")]
    update: Annotated[int, Meta(description="closes learned so far")]
    by: Annotated[str, Meta(description="who or what did it")]
    reason: str
    champion: Annotated[str | None, Meta(description="the champion from now on")] = None
    parent: Annotated[str | None, Meta(description="the champion until now")] = None
    forced: Annotated[bool | None, Meta(description="true: the gate was skipped")] = None
    digest: Annotated[str | None, Meta(description="SHA-256 of the model's text")] = None
    facts: ModelFacts | None = None


class Dead(_Event, frozen=True, kw_only=True, tag="dead"):
    """Input that could not be used, whole, and why."""

    stream: str
    entry_id: str
    reason: Annotated[str, Meta(description="a plain code")]
    message: str
    data: Annotated[str | None, Meta(description="the original bytes, when they are text")] = None
    data_base64: Annotated[
        str | None, Meta(description="the original bytes, when they are not")
    ] = None


class SnapshotNotice(_Event, frozen=True, kw_only=True, tag="snapshot"):
    """A snapshot was taken."""

    snapshot_id: str
    position: Annotated[
        str | None, Meta(description="the input ID up to which it holds everything")
    ]
    events: int
    file_digest: str
    state_digest: str
    decisions_digest: str


Input = Signal | Close | Control
Output = Decision | Outcome | Alert | ModelChange | Dead

Wire = TypeVar("Wire", bound=Struct)
_INPUTS = (Signal, Close, Control)
_input: msgspec.json.Decoder[Input] = msgspec.json.Decoder(Input, dec_hook=read_value)


class Entry(Struct, frozen=True, gc=False):
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
        event = _input.decode(data)
        if not isinstance(event, Control) and event.meta is not None:
            check_notes(event.meta)
    except (ValueError, RecursionError) as error:
        raise EventError(why_not(data, _INPUTS, error)) from None
    return event


def decode_output(model: type[Wire], data: bytes) -> Wire:
    """The `model`, say a `Decision`, in `data`. Raises `EventError` likewise."""
    try:
        event: Wire = _decoder(model).decode(data)
    except (ValueError, RecursionError) as error:
        raise EventError(why_not(data, (model,), error)) from None
    return event


@cache
def _decoder(model: type[Wire]) -> msgspec.json.Decoder[Wire]:
    return msgspec.json.Decoder(model, dec_hook=read_value)


def read_entry(entry_id: str, data: bytes) -> Entry:
    """`data` as an `Entry`; never raises."""
    try:
        return Entry(entry_id, data, decode(data))
    except EventError as error:
        return Entry(entry_id, data, None, str(error))


def _written(value: object) -> object:
    """What msgspec doesn't know: a number of numpy's, a time of pandas'."""
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"a {type(value).__name__} can't go on the wire")


_encoder = msgspec.json.Encoder(enc_hook=_written, decimal_format="number")


def encode(event: Struct) -> bytes:
    """Canonical bytes of an event: what goes on the wire, and what digests are taken over."""
    return _encoder.encode(event)


def dead(stream: str, entry_id: str, reason: str, message: str, data: bytes) -> Dead:
    """A dead letter that keeps the original bytes, whatever they are, up to `MAX_DEAD_BYTES`.

    Text that JSON would blow up, such as a megabyte of NULs, goes as base64, too: a server takes no
    value much larger than those it gave.
    """
    data = data[:MAX_DEAD_BYTES]
    text: str | None = None
    with suppress(UnicodeDecodeError):
        text = data.decode()
        if len(msgspec.json.encode(text)) > 2 * len(data) + 64:
            text = None
    return Dead(
        stream=stream,
        entry_id=entry_id,
        reason=reason,
        message=message,
        data=text,
        data_base64=base64.b64encode(data).decode() if text is None else None,
    )
