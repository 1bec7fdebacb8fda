"""The least a worker can do: read batches, commit one canned decision a signal. The yardstick.

It goes through the same transport, lease and commit as the real worker, decodes nothing and knows
nothing. What it reaches is what the server, the wire and the commit leave room for. With `--group`
it is what one would write with redis-py by the manuals: a consumer group, no lease, no fencing, no
Lua. `bare_echo` does without the group, too.

    python bench/echo.py redis://localhost:6379 --prefix bench
"""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from threading import Event
from typing import Annotated, Any

import typer

from bench.processes import BATCH
from bench.results import run
from bench.tapes import is_signal
from streams import (
    START,
    Commit,
    Connection,
    Decision,
    Keys,
    ModelRef,
    RedisTransport,
    connect,
    encode,
)

BLOCK_MS = 1_000
LEASE_MS = 10_000
_DIGEST = "0" * 64
CANNED = encode(
    Decision(
        decision_id="1700000000000-0",
        signal_id="89e45fccce958dc7",
        ts=datetime(2026, 1, 1, 12, tzinfo=UTC),
        symbol="EURUSD",
        action="reduce_size",
        probability=0.5123456789012345,
        expected_return_pct=0.012345678901234567,
        risk=0.4567890123456789,
        size_multiplier=0.5,
        reasons=("probability_between",),
        model=ModelRef(
            update=12_345, last_close="1d6bca0bdbad105a", champion="refit-12000", config="0" * 12
        ),
        baseline="take",
    )
)
"""As long as a real one."""


class Echo:
    """Serves one shard with canned decisions.

    Parameters
    ----------
    connection, keys
        The shard, of which nothing may be committed yet.
    batch
        Entries in a commit, at most.
    """

    def __init__(self, connection: Connection, keys: Keys, batch: int) -> None:
        self._keys = keys
        self._batch = batch
        self._transport = RedisTransport(connection, keys)
        self._lease = self._transport.acquire(f"echo:{os.getpid()}", LEASE_MS)
        self._position = START

    def serve(self, stop: Event, until: int | None = None) -> int:
        """Serve until told to stop, or until `until` entries are committed; how many there were."""
        transport, decisions = self._transport, self._keys.decisions
        done = 0
        while not stop.is_set() and (until is None or done < until):
            raw = transport.read(self._position, self._batch, BLOCK_MS)
            if not raw:
                transport.renew(self._lease)
                continue
            outputs = [(decisions, entry.id, CANNED) for entry in raw if is_signal(entry.data)]
            commit = Commit(self._position, raw[-1].id, len(raw), outputs, _DIGEST)
            transport.commit(self._lease, commit)
            self._position = commit.position
            done += len(raw)
        return done


def transport_echo(connection: Connection, keys: Keys, batch: int, until: int) -> None:
    """Echo `until` entries through the engine's transport."""
    Echo(connection, keys, batch).serve(Event(), until)


def bare_echo(connection: Connection, keys: Keys, batch: int, until: int) -> None:
    """Echo `until` entries by redis-py's own commands, a MULTI a batch."""
    redis: Any = connection.redis
    position = START
    done = 0
    while done < until:
        ((_, entries),) = redis.xread({keys.events: position}, batch)
        position = entries[-1][0]
        done += len(entries)
        pipeline = redis.pipeline(transaction=True)
        for entry_id, fields in entries:
            if is_signal(fields[b"e"]):
                pipeline.xadd(keys.decisions, {"e": CANNED}, id=entry_id)
        pipeline.hset(keys.checkpoint, "position", position)
        pipeline.execute()


def group_echo(connection: Connection, keys: Keys, batch: int, until: int) -> None:
    """Echo `until` entries as Redis' and redis-py's manuals do: a group, an answer to each."""
    _serve_group(connection, keys, batch, Event(), until, lambda _: True)


def _serve_group(
    connection: Connection,
    keys: Keys,
    batch: int,
    stop: Event,
    until: float,
    answered: Callable[[bytes], bool],
) -> None:
    """Read as a consumer of a group; answer and acknowledge, a MULTI a batch."""
    redis: Any = connection.redis
    redis.xgroup_create(keys.events, "echo", "0", mkstream=True)
    done = 0
    while not stop.is_set() and done < until:
        reply = redis.xreadgroup("echo", "one", {keys.events: ">"}, batch, BLOCK_MS)
        entries = reply[0][1] if reply else []
        done += len(entries)
        pipeline = redis.pipeline(transaction=True)
        for entry_id, fields in entries:
            if answered(fields[b"e"]):
                pipeline.xadd(keys.decisions, {"e": CANNED}, id=entry_id)
        if entries:
            pipeline.xack(keys.events, "echo", *(entry_id for entry_id, _ in entries))
        pipeline.execute()


def main(
    address: Annotated[str, typer.Argument(help="redis://…, unix://… or embedded://DIR")],
    prefix: Annotated[str, typer.Option(help="First part of every key.")] = "closeloop",
    batch: Annotated[int, typer.Option(min=1, help="Entries in a commit, at most.")] = BATCH,
    group: Annotated[bool, typer.Option("--group", help="As the manuals do.")] = False,
) -> None:
    """Answer every signal with the same decision, until stopped."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with connect(address) as connection:
        if group:
            _serve_group(connection, Keys(prefix=prefix), batch, stop, inf, is_signal)
        else:
            Echo(connection, Keys(prefix=prefix), batch).serve(stop)


if __name__ == "__main__":
    run(main)
