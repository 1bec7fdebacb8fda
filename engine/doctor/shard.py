"""Checks of a shard: its streams, what is committed, what waits, who holds the lease."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

from engine.config import Config
from engine.doctor.diagnosis import Diagnosis
from engine.status import STREAMS
from engine.view import NoView, read_view
from streams.connection import Connection
from streams.errors import EventError
from streams.events import Dead, decode_output, read_entry
from streams.keys import Keys
from streams.transport import GROUP, START, RedisTransport, order

_AHEAD = timedelta(minutes=1)
_BEHIND_BATCHES = 20


@dataclass(frozen=True, slots=True)
class Shard:
    """What the checks look at."""

    connection: Connection
    keys: Keys
    transport: RedisTransport
    config: Config


def streams(shard: Shard) -> Iterator[Diagnosis]:
    """How many entries lie in each stream, and the newest dead letter."""
    redis, keys = shard.connection.redis, shard.keys
    lengths = {
        name: shard.connection.retrying(partial(redis.xlen, getattr(keys, name)))
        for name in STREAMS
    }
    seen = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
    yield Diagnosis("ok", "streams", seen)
    newest = _newest(shard, keys.dead)
    if newest is not None:
        try:
            letter = decode_output(Dead, newest)
            reason = f"{letter.reason}: {letter.message}"
        except EventError as error:
            reason = str(error)
        seen = f"{lengths['dead']:,}, the newest of them {reason}"
        mend = "read them: closeloop record dead.jsonl --stream dead"
        yield Diagnosis("warning", "dead letters", seen, mend)


def event_time(shard: Shard) -> Iterator[Diagnosis]:
    """Whether the newest event comes from the future: event time never goes back."""
    newest = _newest(shard, shard.keys.events)
    event = read_entry("", newest).event if newest is not None else None
    if event is None:
        return
    seconds, _ = shard.connection.retrying(shard.connection.redis.time)
    ahead = event.ts - datetime.fromtimestamp(seconds, UTC)
    seen = f"the newest event is of {event.ts.isoformat(timespec='seconds')}"
    if ahead <= _AHEAD:
        yield Diagnosis("ok", "event time", seen)
    else:
        seen += f", {ahead.total_seconds():,.0f} s ahead of the server's clock"
        mend = "set the clock of the bot: signals expire by event time, so too early now"
        yield Diagnosis("warning", "event time", seen, mend)


def progress(shard: Shard) -> Iterator[Diagnosis]:
    """What is committed, whether the server still knows that input, and what waits."""
    checkpoint, last = shard.transport.checkpoint(), shard.transport.last_id()
    lag = shard.transport.lag()
    if not checkpoint.lineage:
        seen = f"no worker has served this shard yet; {lag:,} entries wait"
        mend = "start one: closeloop run" if lag else None
        yield Diagnosis("warning" if lag else "ok", "lag", seen, mend)
        return
    position = checkpoint.position
    if order(position) > order(last):
        seen = f"committed up to {position}, but the input ends at {last}"
        mend = "the server lost its newest data: put back newer files of it if there are any"
        yield Diagnosis("problem", "checkpoint", seen, mend)
        return
    yield Diagnosis("ok", "checkpoint", f"{checkpoint.entries:,} entries, up to {position}")
    yield from _group(shard, position)
    if not lag:
        yield Diagnosis("ok", "lag", "nothing waits")
    elif not _holder(shard):
        yield Diagnosis("warning", "lag", f"{lag:,} entries wait", "start a worker: closeloop run")
    elif lag > _BEHIND_BATCHES * shard.config.worker.batch:
        mend = "if it stays so: raise worker.batch, or split the symbols over more shards"
        yield Diagnosis("warning", "lag", f"{lag:,} entries wait", mend)
    else:
        yield Diagnosis("ok", "lag", f"{lag:,} entries wait, and a worker is at it")


def _group(shard: Shard, position: str) -> Iterator[Diagnosis]:
    """Whether the consumer group shows what is committed."""
    redis, key = shard.connection.redis, shard.keys.events
    if not shard.connection.retrying(lambda: redis.exists(key)):
        return
    rows = shard.connection.retrying(lambda: redis.xinfo_groups(key))
    shown = {
        cast(bytes, row["name"]).decode(): cast(bytes, row["last-delivered-id"]).decode()
        for row in cast(list[dict[str, object]], rows)
    }.get(GROUP)
    if shown == position or (shown is None and position == START):
        return
    seen = f"group {GROUP!r} is " + ("missing" if shown is None else f"at {shown}")
    mend = "nothing is lost: the next commit sets it right; until then its lag isn't true"
    yield Diagnosis("warning", "consumer group", seen, mend)


def lease(shard: Shard) -> Iterator[Diagnosis]:
    """Who owns the shard, and for how long."""
    holder = _holder(shard)
    if holder is None:
        yield Diagnosis("ok", "lease", "free: no worker is running")
        return
    redis, key = shard.connection.redis, shard.keys.lease
    left = shard.connection.retrying(lambda: redis.pttl(key))
    epoch, _, owner = holder.partition(":")
    if left < 0:
        mend = f"closeloop didn't write that; DEL {key} when no worker is running"
        yield Diagnosis("problem", "lease", f"{holder!r}, for good", mend)
    else:
        seen = f"{owner} under epoch {epoch}, for {left / 1000:.1f} s unless renewed"
        yield Diagnosis("ok", "lease", seen)


def safety(shard: Shard) -> Iterator[Diagnosis]:
    """What holds the engine back, as its worker said last, and what waits for a person."""
    try:
        seen = read_view(shard.connection, shard.keys)
    except NoView:
        return
    state, firing = seen["safety"]["state"], ", ".join(seen["safety"]["firing"])
    if state == "ACTIVE":
        yield Diagnosis("ok", "safety", f"{state}{f', warned by {firing}' if firing else ''}")
    else:
        mend = "find out why (closeloop status), then: closeloop control arm --reason WHY"
        yield Diagnosis("warning", "safety", f"{state}, by {firing}", mend)
    for proposal in seen["proposals"]:
        number = proposal["proposal"]
        waits = f"{number} waits: {proposal['command']} {proposal['args']}"
        mend = f"closeloop control approve {number} --reason WHY, or reject"
        yield Diagnosis("warning", "proposal", waits, mend)


def _holder(shard: Shard) -> str | None:
    redis, key = shard.connection.redis, shard.keys.lease
    held = cast(bytes | None, shard.connection.retrying(lambda: redis.get(key)))
    return None if held is None else held.decode(errors="replace")


def _newest(shard: Shard, key: str) -> bytes | None:
    """The bytes of a stream's newest entry, if it has one that is ours."""
    redis = shard.connection.redis
    rows = cast(
        list[tuple[bytes, dict[bytes, bytes]]],
        shard.connection.retrying(lambda: redis.xrevrange(key, count=1)),
    )
    return rows[0][1].get(b"e") if rows else None
