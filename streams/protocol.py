"""What a client says to Redis and hears back, without a socket.

A conversation is a generator. It yields what to do next: a command (a call to make on a redis-py
client, plain or asyncio alike) or a pause in seconds. It is sent the reply, or has `ConnectionLost`
thrown into it. `streams.client` and `streams.aclient` carry the same conversations over.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from streams.errors import ConnectionLost, EventError
from streams.events import (
    Close,
    Dead,
    Decision,
    Signal,
    decode,
    decode_output,
    encode,
)
from streams.keys import Keys, shard_of
from streams.reasons import faults
from streams.values import timestamp

SHARDS_REMEMBERED = 100_000
"""How many of its own signals a client remembers the shard of."""
LOOK_BACK = 1_000
"""How many recent decisions are searched for a copy of a signal, and dead letters for itself."""
LETTERS = 20
"""Dead letters read at once: each may be of a megabyte."""

_BATCH = 1_000
# Short against any socket time-out, so that an idle stream isn't taken for a lost server.
_SLICE_S = 0.5
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_ID = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)

_T = TypeVar("_T")
_Output = TypeVar("_Output", bound=Struct)
# redis-py's two clients share their methods' names but no type.
Command = Callable[[Any], Any]
Conversation = Generator[Command | float, Any, _T]
Found = list[tuple[str, bytes]]
"""Entries of a stream: ID and bytes."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a published event stands. Keep it to ask for the decision, also from a new process.

    Parameters
    ----------
    id
        The stream ID; a decision on the event stands under the same one.
    signal_id
        The signal's name, as the bot gave it.
    shard
        The shard it went to.
    """

    id: str
    signal_id: str
    shard: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event ready to be sent: checked, as bytes, its shard known."""

    signal_id: str
    shard: int
    data: bytes


class Router:
    """Checks events and knows their shard: a signal's by its symbol, a close's by its signal."""

    def __init__(self, shards: int) -> None:
        if shards < 1:
            raise ValueError(f"shards must be at least 1; got {shards}")
        self._shards = shards
        self._known: OrderedDict[str, int] = OrderedDict()

    def route(self, event: Signal | Close, symbol: str | None = None) -> Outgoing:
        """`event` ready to be sent.

        Raises `EventError` if a worker would refuse it, or if it is a close whose signal isn't
        remembered and no `symbol` is given.
        """
        data = prepared(event)
        return Outgoing(event.signal_id, self._shard(event, symbol), data)

    def _shard(self, event: Signal | Close, symbol: str | None) -> int:
        if self._shards == 1:
            return 0
        name = event.signal_id
        if isinstance(event, Signal):
            self._known.pop(name, None)
            self._known[name] = shard = shard_of(event.symbol, self._shards)
            if len(self._known) > SHARDS_REMEMBERED:
                self._known.popitem(last=False)
            return shard
        if name in self._known:
            return self._known[name]
        if symbol is None:
            raise EventError(
                f"the shard of signal {name!r} isn't known here: this client didn't publish it, or "
                f"{SHARDS_REMEMBERED} signals ago; give the close's `symbol=`"
            )
        return shard_of(symbol, self._shards)


def prepared(event: Signal | Close) -> bytes:
    """The event's bytes, its time in UTC. Raises `EventError` if a worker would refuse it.

    Decoding them is the proof that it won't. What JSON can't say is written as something else (NaN
    as null), so the event must come back as it was.
    """
    if not isinstance(event, Signal | Close):
        raise EventError(f"a {type(event).__name__} can't be published; only a Signal or a Close")
    with suppress(ValueError):  # what is no time is named below
        event = structs.replace(event, ts=timestamp(event.ts))
    try:
        data = encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        raise EventError(f"{event.type} {event.signal_id!r} can't be written: {error}") from error
    refused = None
    try:
        if decode(data) == event:
            return data
    except EventError as error:
        refused = error
    for fault in faults(type(event), structs.asdict(event)):
        raise EventError(fault)
    if refused is not None:
        raise refused
    return data


def publish(outgoing: Sequence[Outgoing]) -> Conversation[list[Receipt]]:
    """Add the events to their shards' input, in order. Returns where they stand."""
    receipts: list[Receipt] = []
    for start in range(0, len(outgoing), _BATCH):
        batch = outgoing[start : start + _BATCH]
        ids = yield _adding(batch)
        receipts += [
            Receipt(entry_id.decode(), sent.signal_id, sent.shard)
            for entry_id, sent in zip(ids, batch, strict=True)
        ]
    return receipts


def _adding(batch: Iterable[Outgoing]) -> Command:
    def command(redis: Any) -> Any:
        pipeline = redis.pipeline(transaction=False)
        for sent in batch:
            pipeline.xadd(Keys(sent.shard).events, {"e": sent.data})
        return pipeline.execute()

    return command


def await_decision(receipt: Receipt, timeout: float) -> Conversation[Decision]:
    """Wait up to `timeout` seconds for the decision on a published signal.

    A decision stands under its signal's own ID, and decisions come in input order: once a later
    one is there, ours is there or never comes. A signal that was sent twice is decided once, under
    the ID of its first copy; so an answer that keeps us waiting is searched for by name as well.
    """
    keys = Keys(receipt.shard)
    deadline = monotonic() + timeout
    oldest = "-"
    while True:
        soon = min(deadline, monotonic() + _SLICE_S)
        passed = yield from _read(keys.decisions, _before(receipt.id), 1, soon, deadline)
        if passed and passed[0][0] == receipt.id:
            return decoded(Decision, keys.decisions, *passed[0])
        newest = f"({receipt.id}" if passed else "+"
        others = yield from _newest(keys.decisions, newest, oldest, LOOK_BACK, deadline)
        for entry_id, data in others:
            if msgspec.json.encode(receipt.signal_id) in data:
                decision = decoded(Decision, keys.decisions, entry_id, data)
                if decision.signal_id == receipt.signal_id:
                    return decision
        if others:
            oldest = f"({others[0][0]}"
        if passed or monotonic() >= deadline:
            yield from _raise_if_dead(receipt, keys, deadline)
            about = f"on signal {receipt.signal_id!r} ({keys.events} {receipt.id})"
            if passed:
                raise EventError(
                    f"no decision {about} and later ones stand: it was trimmed, or the signal is "
                    f"a copy of one decided long ago; look through {keys.decisions} for it"
                )
            raise TimeoutError(
                f"no decision {about} within {timeout:g} s; is a worker running on this shard?"
            )


def _raise_if_dead(receipt: Receipt, keys: Keys, deadline: float) -> Conversation[None]:
    newest = "+"
    for _ in range(0, LOOK_BACK, LETTERS):
        letters = yield from _newest(keys.dead, newest, "-", LETTERS, deadline)
        for entry_id, data in letters:
            if msgspec.json.encode(receipt.id) in data:
                letter = decoded(Dead, keys.dead, entry_id, data)
                if letter.entry_id == receipt.id:
                    raise EventError(
                        f"signal {receipt.signal_id!r} ({keys.events} {receipt.id}) was refused: "
                        f"{letter.message}"
                    )
        if len(letters) < LETTERS:
            return
        newest = f"({letters[-1][0]}"


def start_of(key: str, after: str) -> Conversation[str]:
    """`after` as a position that stays put: ``$`` becomes the ID that is newest now."""
    if after != "$":
        if not _ID.fullmatch(after):
            raise ValueError(f"after must be '$' or a stream ID like '0-0'; got {after!r}")
        return after
    newest = yield from _newest(key, "+", "-", 1, monotonic())
    return newest[0][0] if newest else "0-0"


def read_after(key: str, after: str, timeout: float | None) -> Conversation[Found]:
    """The entries after an ID, oldest first, a batch at most; empty once `timeout` is over."""
    deadline = None if timeout is None else monotonic() + timeout
    return (yield from _read(key, after, _BATCH, deadline, deadline))


def decoded(model: type[_Output], key: str, entry_id: str, data: bytes) -> _Output:
    """The event in an output stream's entry. Raises `EventError`, naming both, if it is none."""
    try:
        return decode_output(model, data)
    except EventError as error:
        raise EventError(f"{key} {entry_id} holds no {model.__name__}: {error}") from None


def _read(
    key: str, after: str, count: int, until: float | None, deadline: float | None
) -> Conversation[Found]:
    """Entries after an ID. Blocks until there are some; without any, returns none at `until`.

    Until `deadline` a lost connection is waited for.
    """
    while True:
        left = _SLICE_S if until is None else min(_SLICE_S, until - monotonic())
        block = max(1, round(left * 1_000)) if left > 0 else None
        reply = yield from _patiently(_reading(key, after, count, block), deadline)
        if reply:
            return _found(key, reply[0][1])
        if block is None:
            return []


def _reading(key: str, after: str, count: int, block: int | None) -> Command:
    return lambda redis: redis.xread({key: after}, count=count, block=block)


def _newest(
    key: str, newest: str, oldest: str, count: int, deadline: float | None
) -> Conversation[Found]:
    """The `count` newest entries between two IDs, the newest first."""
    reply = yield from _patiently(
        lambda redis: redis.xrevrange(key, newest, oldest, count=count), deadline
    )
    return _found(key, reply)


def _patiently(command: Command, deadline: float | None) -> Conversation[Any]:
    """A command that may be repeated, tried until the server is back or the deadline passes."""
    pause = _PAUSE_S
    while True:
        try:
            return (yield command)
        except ConnectionLost:
            if deadline is not None and monotonic() + pause > deadline:
                raise
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _found(key: str, entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> Found:
    found = []
    for entry_id, fields in entries:
        if fields is None or b"e" not in fields:
            raise EventError(
                f"{key} {entry_id.decode()} has no field `e`; nothing of ours wrote it"
            )
        found.append((entry_id.decode(), fields[b"e"]))
    return found


def _before(entry_id: str) -> str:
    """The greatest ID below `entry_id`."""
    milliseconds, _, sequence = entry_id.partition("-")
    if int(sequence or 0) > 0:
        return f"{milliseconds}-{int(sequence) - 1}"
    return f"{max(int(milliseconds) - 1, 0)}-{2**64 - 1 if int(milliseconds) else 0}"
