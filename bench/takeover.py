"""How fast a standby takes over: `python bench/takeover.py [--kills 20] [--json OUT]`.

A leader and a standby (`closeloop run`, twice) serve a stream to which a signal is added every few
milliseconds. The leader is killed with SIGKILL; the time until the first decision on a signal that
was published after the kill is a take-over. The standby is the next leader, and a new standby
starts. At the end every signal must have exactly one decision, in order.
"""

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Annotated, Any

import typer

from bench.processes import CLOSELOOP
from bench.results import BenchError, JsonOption, Results, progress, run
from bench.servers import own_keys, served
from bench.tapes import generated
from streams import Keys, Signal, encode

PATIENCE_S = 60.0
GAP_S = 0.005
SIGNALS = 1_000_000


class Shard:
    """A stream with signals coming in, and the workers on it."""

    def __init__(self, redis: Any, keys: Keys, address: str, folder: Path) -> None:
        self.redis, self.keys = redis, keys
        self._signals = (encode(e) for e in generated(SIGNALS) if isinstance(e, Signal))
        self.asked: list[bytes] = []
        self._environment = os.environ | {
            "CLOSELOOP_STREAM__ADDRESS": address,
            "CLOSELOOP_STREAM__PREFIX": keys.prefix,
            "CLOSELOOP_SNAPSHOTS__DIRECTORY": str(folder / "snapshots"),
            "CLOSELOOP_HTTP__ENABLED": "false",
        }

    def worker(self, log: Path, *options: str) -> subprocess.Popen[bytes]:
        """A worker process that logs to `log`."""
        with log.open("wb") as out:
            command = [*CLOSELOOP, *options]
            return subprocess.Popen(command, env=self._environment, stderr=out)

    def publish(self) -> bytes:
        """One more signal; its ID."""
        self.asked.append(self.redis.xadd(self.keys.events, {"e": next(self._signals)}))
        return self.asked[-1]

    def publish_until(self, what: str, done: Any) -> None:
        """Go on publishing until `done()`."""
        deadline = monotonic() + PATIENCE_S
        while not done():
            if monotonic() > deadline:
                raise BenchError(f"waited {PATIENCE_S:g} s in vain until {what}")
            self.publish()
            sleep(GAP_S)

    def decided(self, entry_id: bytes) -> bool:
        """Whether the signal has its decision."""
        return bool(self.redis.xrange(self.keys.decisions, entry_id, entry_id))


def main(
    kills: Annotated[int, typer.Option(min=1, help="How many leaders die.")] = 20,
    address: Annotated[
        str | None, typer.Option(help="The server.", show_default="one of our own")
    ] = None,
    json_out: JsonOption = None,
) -> None:
    """Measure take-overs by a hot standby."""
    results = Results("takeover", json_out)
    seconds = []
    with (
        served(address) as (connection, folder),
        own_keys(connection) as keys,
        progress() as bar,
        ExitStack() as stack,
    ):
        task = bar.add_task("taking over", total=kills)
        shard = Shard(connection.redis, keys, connection.address, folder)
        logs = (folder / f"worker-{number}.log" for number in range(kills + 1))
        leader = shard.worker(next(logs))
        stack.callback(lambda: leader.kill())
        first = shard.publish()
        shard.publish_until("the leader decides", lambda: shard.decided(first))
        for _ in range(kills):
            log = next(logs)
            standby = shard.worker(log, "--standby")
            stack.callback(standby.kill)
            shard.publish_until(
                "the standby follows", lambda log=log: b'"recovered"' in log.read_bytes()
            )
            leader.kill()
            leader.wait()
            killed = monotonic()
            after = shard.publish()
            shard.publish_until("the standby decides", lambda after=after: shard.decided(after))
            seconds.append(monotonic() - killed)
            leader = standby
            bar.advance(task)
        last = shard.asked[-1]
        shard.publish_until("all is decided", lambda: shard.decided(last))
        leader.terminate()
        leader.wait()
        ids = [entry_id for entry_id, _ in shard.redis.xrange(keys.decisions)]
        whole = ids == [i for i in shard.asked if i <= ids[-1]] and ids[-1] >= last
    results.table(
        f"take-over, {kills} kills, lease of 1.5 s",
        ["", "seconds"],
        [["median", median(seconds)], ["worst", max(seconds)], ["best", min(seconds)]],
    )
    results.note(f"{len(ids):,} decisions, each signal's one and in order: {whole}")
    results.add({"seconds": seconds, "decisions": len(ids), "whole": whole})
    results.write()
    if not whole:
        raise BenchError("a decision is missing, doubled or out of order")


if __name__ == "__main__":
    run(main)
