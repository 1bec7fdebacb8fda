"""The worker's side of a shard: the lease, ordered reading, and the one atomic commit.

Rules that everything here keeps:

1. Whoever acquires the lease gets a new fencing epoch; every write checks it on the server, in the
   same script that writes. A worker that slept through its lease can't publish.
2. Reading is by position, never through the consumer group: a worker that has lost its lease can't
   take entries away from the one that holds it. The group only shows the lag.
3. A commit is all or nothing, and may be sent again: the second time the position says that it is
   already there.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast

import orjson
import redis
from redis.commands.core import Script

from streams import scripts
from streams.connection import Connection, translated
from streams.errors import Diverged, InputGap, LeaseHeld, LeaseLost, ServerError
from streams.keys import Keys

START = "0-0"
"""The position before the first entry."""
GROUP = "closeloop"
"""The consumer group on the input that shows the lag to every Redis tool."""
BLOCK_LIMIT_MS = 5_000
"""No read waits longer, so that the socket's time-out still tells a dead server."""
READ_BYTES = 4 * 2**20
"""A read that has so much stops, however many entries it was to have."""
PAGE = 64
"""Entries asked for at once. Their size is known only when they are here, so this and the largest
entry that the server takes bound what a read can hold beyond `READ_BYTES`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a shard, until a higher epoch is given out."""

    owner: str
    epoch: int
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is committed.

    Parameters
    ----------
    position
        The input ID up to which everything is; `START` when nothing is.
    entries
        How many input entries that were.
    epoch
        Of the lease last given out; 0 when none ever was.
    lineage
        The random name of this stream's history, given by the first lease ever; "" before.
    decisions_digest
        Over all decisions committed, as the last commit gave it; "" before.
    trimmed
        The ID below which the input was trimmed; `START` when it never was.
    """

    position: str
    entries: int
    epoch: int
    lineage: str
    decisions_digest: str
    trimmed: str


class RawEntry(NamedTuple):
    """One input entry as it lies in the stream.

    `data` is the field ``e``. When the entry isn't exactly that one field, `problem` says so for a
    person and `data` holds all its fields as JSON.
    """

    id: str
    data: bytes
    problem: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """A batch's effects, published all together or not at all.

    Parameters
    ----------
    expected, position
        The input ID up to which everything is committed before and after.
    entries
        How many input entries that is.
    outputs
        Stream key, ID (or ``*`` for one that the server gives) and bytes, in order. On one stream
        the IDs are either all given, and increase, or all ``*``.
    decisions_digest
        Over all decisions, this batch's included.
    """

    expected: str
    position: str
    entries: int
    outputs: Sequence[tuple[str, str, bytes]]
    decisions_digest: str


class RedisTransport:
    """A shard's streams on a server.

    Parameters
    ----------
    connection
        Where; it stays the caller's to close.
    keys
        Which shard.
    retain
        How many entries each output stream keeps, about: older ones are trimmed.
    retain_dead_bytes
        How many bytes the stream of dead letters keeps, whose entries are as large as what bots
        sent: older ones are trimmed, never the newest.

    Every method raises `ConnectionLost` and `ServerError` as the connection does. Those that take a
    lease raise `LeaseLost` when a later lease was given out, and `Diverged` when the server has
    forgotten this one, as it does when it lost its tail or was flushed; nothing is written then.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        retain: int = 1_000_000,
        retain_dead_bytes: int = 64 * 2**20,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._retain = retain
        self._retain_dead_bytes = retain_dead_bytes
        self._own = [keys.checkpoint, keys.lease, keys.events]
        # Replies as they come: redis-py's own conversion of entries costs more than reading them.
        plain = redis.Redis(connection_pool=connection.redis.connection_pool)
        for command in ("XREAD", "XINFO STREAM", "XRANGE", "XREVRANGE"):
            plain.set_response_callback(command, lambda reply, **_: reply)
        self._execute: Callable[..., Any] = plain.execute_command
        register = connection.redis.register_script
        self._acquire = register(scripts.ACQUIRE)
        self._renew = register(scripts.RENEW)
        self._release = register(scripts.RELEASE)
        self._commit = register(scripts.COMMIT)
        self._notify = register(scripts.NOTIFY)
        self._report = register(scripts.REPORT)
        self._trim = register(scripts.TRIM)
        self._lag = register(scripts.LAG)

    def acquire(self, owner: str, ttl_ms: int) -> Lease:
        """Take the shard's lease for `owner`, a name no other worker has, with a new epoch.

        Its own lease is taken over at once. Raises `LeaseHeld` while another's has not run out.
        """
        with translated(self._connection.address):
            reply = self._acquire(self._own, [owner, ttl_ms, secrets.token_hex(16)])
        if reply[0] == b"HELD":
            raise LeaseHeld(
                f"{self._keys.lease}: {reply[1].decode(errors='replace')!r} owns the shard for "
                f"another {reply[2]} ms; stop it, or wait"
            )
        return Lease(owner, int(reply[1]), ttl_ms)

    def renew(self, lease: Lease, expected: str = "") -> None:
        """Make the lease last its full time again. A commit does so too.

        Raises, when `expected` is given, `Diverged` if that isn't the position that is committed,
        and `InputGap` if input after it was deleted unread, unless that was reported.
        """
        reply = self._connection.retrying(
            lambda: self._guarded(self._renew, lease, [lease.ttl_ms, expected])
        )
        if reply[0] == b"DIVERGED":
            raise Diverged(
                f"{self._keys.checkpoint} is at {reply[1].decode()}, where this worker left "
                f"{expected}; recover from a snapshot"
            )
        self._require_no_gap(reply, expected)

    def release(self, lease: Lease) -> None:
        """Give the lease back, so that another needn't wait. Nothing happens if it isn't ours."""
        self._connection.retrying(lambda: self._guarded(self._release, lease, []))

    def announce_standby(self, owner: str, ttl_ms: int) -> None:
        """Say that a standby is there, for so long."""
        self._ask("SET", self._keys.standby, owner, "PX", ttl_ms)

    def has_standby(self) -> bool:
        """Whether a standby said so lately."""
        return bool(self._ask("EXISTS", self._keys.standby))

    def checkpoint(self) -> Checkpoint:
        """What is committed."""
        names = ["position", "entries", "epoch", "lineage", "decisions_digest", "trimmed"]
        values = self._ask("HMGET", self._keys.checkpoint, *names)
        position, entries, epoch, lineage, digest, trimmed = (
            value.decode() if value else "" for value in values
        )
        return Checkpoint(
            position or START, int(entries or 0), int(epoch or 0), lineage, digest, trimmed or START
        )

    def read(self, after: str, count: int, block_ms: int | None = None) -> list[RawEntry]:
        """Up to `count` entries after the ID `after`, in order.

        With `block_ms` waits for the first one, at most that long and at most `BLOCK_LIMIT_MS`;
        without, or when none came, the list may be empty. There are fewer once they have
        `READ_BYTES`.
        """
        block = () if block_ms is None else ("BLOCK", max(1, min(block_ms, BLOCK_LIMIT_MS)))
        found: list[RawEntry] = []
        size = 0
        while True:
            page = min(PAGE, count - len(found))
            reply = self._ask("XREAD", "COUNT", page, *block, "STREAMS", self._keys.events, after)
            entries = reply[0][1] if reply else []
            found += [
                RawEntry(entry_id.decode(), fields[1], None)
                if len(fields) == 2 and fields[0] == b"e"
                else _foreign(entry_id, fields)
                for entry_id, fields in entries
            ]
            if len(entries) < page or len(found) == count:
                return found
            size += sum(len(field) for _, fields in entries for field in fields)
            if size >= READ_BYTES:
                return found
            after, block = found[-1].id, ()

    def commit(self, lease: Lease, batch: Commit) -> None:
        """Publish a batch: its outputs, the new checkpoint, the group's position; renews the lease.

        Sent again when the connection drops, which is safe: if the batch is already there, nothing
        more is written. Raises `Diverged` when the server's checkpoint is neither `batch.expected`
        nor `batch.position`, or an output stream already reaches past the batch; `InputGap` when
        input after `batch.expected` was deleted unread, unless that was reported; `ValueError` when
        the batch breaks its own rules.
        """
        streams, outputs = _by_stream(batch)
        arguments = [
            lease.ttl_ms,
            batch.expected,
            batch.position,
            batch.entries,
            batch.decisions_digest,
            GROUP,
            self._retain,
            self._keys.dead,
            self._retain_dead_bytes,
            *outputs,
        ]
        reply = self._connection.retrying(
            lambda: self._guarded(self._commit, lease, arguments, streams)
        )
        if reply[0] == b"DIVERGED":
            raise Diverged(
                f"{reply[1].decode()} is at {reply[2].decode()}, where this worker left "
                f"{batch.expected} (it was to commit {batch.position}); recover from a snapshot"
            )
        self._require_no_gap(reply, batch.expected)

    def notify(self, lease: Lease, data: bytes) -> None:
        """Announce a snapshot on `Keys.snapshots`. Not sent again when the connection drops."""
        with translated(self._connection.address):
            self._guarded(self._notify, lease, [self._retain, data], [self._keys.snapshots])

    def report_loss(self, lease: Lease, data: bytes) -> None:
        """Publish the alert that the server lost what came after the checkpoint.

        May be sent again, by another worker too: one loss has one alert.
        """
        self._report_once(lease, data, "reported")

    def report_gap(self, lease: Lease, data: bytes) -> None:
        """Publish the alert that input after the checkpoint was deleted unread, and go on from it.

        May be sent again likewise.
        """
        self._report_once(lease, data, "gap")

    def trim(self, lease: Lease, below: str) -> int:
        """Delete all input below the ID `below` and say how many entries that were.

        Raises `ValueError` when that would take entries that aren't committed.
        """
        with translated(self._connection.address):
            reply = self._guarded(self._trim, lease, [below])
        if reply[0] == b"UNCOMMITTED":
            raise ValueError(f"can't trim below {below}: committed is only {reply[1].decode()}")
        return int(reply[1])

    def lag(self) -> int:
        """How many input entries lie after the checkpoint."""
        reply = self._connection.retrying(lambda: self._lag(self._own))
        return int(reply[1])

    def length(self) -> int:
        """How many entries the input holds."""
        return int(self._ask("XLEN", self._keys.events))

    def last_id(self) -> str:
        """The highest ID the input ever gave out; `START` when it has none."""
        return self._input().last

    def first_id(self) -> str:
        """The ID of the oldest entry still in the input; `START` when there is none."""
        return self._input().first

    def last_until(self, position: str) -> str:
        """The ID of the last entry up to `position` that the input holds; `START` when none."""
        found = self._ask("XREVRANGE", self._keys.events, position, "-", "COUNT", 1)
        return str(found[0][0].decode()) if found else START

    def reconnect(self) -> None:
        """Drop the connection: behind the same address another server may be the primary now."""
        self._connection.redis.connection_pool.disconnect()

    def reaches_back_to(self, position: str) -> bool:
        """Whether every entry after `position` is still in the input.

        False whenever that can't be known: entries were trimmed or deleted there, or the input ends
        before `position`. On Redis 6.2 only our own trimming can be known of for `START`, and
        single deletions not at all.
        """
        stream, wanted = self._input(), order(position)
        if wanted >= order(stream.last):
            return wanted == order(stream.last)
        if wanted < max(order(stream.deleted), order(self.checkpoint().trimmed)):
            return False
        if position == START:
            return stream.added in (None, stream.length)
        # Streams are trimmed from the head: if this entry is there, those after it are.
        return bool(self._ask("XRANGE", self._keys.events, position, position))

    def _report_once(self, lease: Lease, data: bytes, field: str) -> None:
        arguments: list[str | bytes | int] = [self._retain, data, field]
        self._connection.retrying(
            lambda: self._guarded(self._report, lease, arguments, [self._keys.alerts])
        )

    def _require_no_gap(self, reply: Sequence[bytes], position: str) -> None:
        """Raise `InputGap` if a script says that there is one after `position`."""
        if reply[0] == b"GAP":
            begins, gone = reply[1].decode(), reply[2].decode()
            raise InputGap(
                f"{self._keys.events}: of the entries after {position}"
                + (f" and before {begins}, " if begins else " ")
                + (f"{gone} were" if gone else "perhaps some were")
                + " deleted before this worker read them; publish them again, and see to it that"
                f" nobody else trims {self._keys.events}"
            )

    def _input(self) -> "_Input":
        try:
            reply = self._ask("XINFO STREAM", self._keys.events)
        except ServerError as error:
            if "no such key" in str(error):
                return _Input()
            raise
        info = dict(zip(reply[::2], reply[1::2], strict=True))
        first = info[b"first-entry"]
        return _Input(
            first[0].decode() if first else START,
            info[b"last-generated-id"].decode(),
            info.get(b"max-deleted-entry-id", START.encode()).decode(),
            info[b"length"],
            info.get(b"entries-added"),
        )

    def _ask(self, *command: str | int) -> Any:
        """The server's own reply to a command that only reads."""
        return self._connection.retrying(lambda: self._execute(*command))

    def _guarded(
        self,
        script: Script,
        lease: Lease,
        arguments: Sequence[str | bytes | int],
        streams: Sequence[str] = (),
    ) -> list[bytes]:
        """Run a script under the lease's epoch."""
        reply = script([*self._own, *streams], [lease.epoch, lease.owner, *arguments])
        if reply[0] != b"FENCED":
            return cast(list[bytes], reply)
        epoch, owner = int(reply[1]), reply[2].decode(errors="replace")
        if epoch >= lease.epoch:
            raise LeaseLost(
                f"{self._keys.lease}: epoch {lease.epoch} of {lease.owner!r} is over, {owner!r} "
                f"owns the shard under epoch {epoch}; nothing was written, stop this worker"
            )
        raise Diverged(
            f"{self._keys.checkpoint}: the server is at epoch {epoch} and has forgotten epoch "
            f"{lease.epoch} of {lease.owner!r}: it was flushed or lost its tail; acquire the lease "
            "again and recover from a snapshot"
        )


class _Input(NamedTuple):
    """What the server says of the input stream; ``added`` is unknown before Redis 7."""

    first: str = START
    last: str = START
    deleted: str = START
    length: int = 0
    added: int | None = None


def order(entry_id: str) -> tuple[int, int]:
    """A stream ID as what it is ordered by."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def _by_stream(batch: Commit) -> tuple[list[str], list[str | bytes | int]]:
    """The output streams, and each one's count, IDs and bytes in a row, as the script takes them.

    The server can't undo a half of a batch, so what would fail there half-way fails here.
    """
    if order(batch.position) <= order(batch.expected):
        raise ValueError(f"a commit must go on: from {batch.expected} to {batch.position}")
    rows: dict[str, list[str | bytes]] = {}
    for stream, entry_id, data in batch.outputs:
        rows.setdefault(stream, []).extend((entry_id, data))
    arguments: list[str | bytes | int] = []
    for stream, row in rows.items():
        ids = cast(list[str], row[::2])
        if ids[0] != "*":
            orders = [order(entry_id) for entry_id in ids]
            if any(one >= other for one, other in pairwise(orders)):
                raise ValueError(f"the IDs for {stream} don't increase")
        elif ids.count("*") != len(ids):
            raise ValueError(f"some of the IDs for {stream} are given and some are *")
        arguments.append(len(ids))
        arguments.extend(row)
    return list(rows), arguments


def _foreign(entry_id: bytes, fields: Sequence[bytes]) -> RawEntry:
    """An entry that isn't exactly one field `e`."""
    texts = [field.decode(errors="backslashreplace") for field in fields]
    names = ", ".join(texts[::2])
    shown = names if len(names) <= 64 else names[:61] + "..."
    return RawEntry(
        entry_id.decode(),
        orjson.dumps(list(pairwise(texts))[::2]),
        f"the entry has the fields {shown}; it must have one, `e`, with the event as JSON",
    )
