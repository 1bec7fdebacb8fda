"""How soon a rollback takes effect: `python bench/rollback.py [--rollbacks 20] [--json OUT]`.

A worker (`closeloop run`) serves a real server. Signals come at a steady pace, each with the closes
due by then. Two refits are made and forced in; then signed commands come in between, `rollback` to
the champion before and `install` of the one after it, back and forth. In the stream a command has
its place between two signals: the first signal behind it must be decided by the other champion, and
so must all that follow until the next command.

Milliseconds are from just before the command's XADD until a consumer in a process of its own has
that decision. Most of it is waiting for the next signal to come: beside it stands the same from
moments at which nothing was commanded, and both from when the signal was due.

Exit status 1 when a decision isn't that of the champion that its place asks for.
"""

import random
import sys
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice, pairwise
from time import monotonic_ns, sleep
from typing import Annotated, Any

import numpy as np
import typer

from bench.bad_days import made
from bench.processes import CLOSELOOP, Publish, Receive, Received, Sent, Servant, Worker, servant
from bench.results import BenchError, JsonOption, Results, progress, run
from bench.servers import own_keys, served, server_version
from bench.tapes import slots
from engine.sending import send, signed
from streams import START, Connection, Decision, Keys, encode
from streams.events import decode_output

KEY = "the control key of a bench's worker"
BY = "bench"
LEARNED = 600
"""Signals before the first refit."""
BETWEEN = 300
"""Signals after each refit is asked for: it is installed on the way."""
SETTINGS = {
    "CONTROL_KEY": KEY,
    # Refits are made when they are asked for, and never besides.
    "CORE__REFIT__EVERY": 1_000_000,
    "CORE__REFIT__LAG": 50,
    "CORE__DRIFT__ON_MIXTURE": '["alert"]',
}
GAP_S = 0.3
"""Between two commands, on average."""
MOMENTS = 2_000
"""At which nothing was commanded."""

Id = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Given:
    """A command in the stream: whose decisions follow it, where it stands, when it was sent, ns."""

    champion: str
    entry: Id
    sent: int


@dataclass(slots=True)
class Seen:
    """The decisions of the measured stretch, in the order of their signals."""

    ids: list[Id] = field(default_factory=list)
    champions: list[str | None] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)


class Scene:
    """A worker with a bot and a consumer, and a stream of slots that is published bit by bit."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        worker: Worker,
        bot: Servant[Sent],
        consumer: Servant[Received],
        seed: int,
        signals: int,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._worker = worker
        self._bot = bot
        self._consumer = consumer
        self._slots = slots(encode(event) for event in made(signals, seed))
        self._after = START.encode()

    def begin(self, signals: int, rate: float) -> None:
        """Publish so many signals with the closes before each; returns at once."""
        taken = list(islice(self._slots, signals))
        self._consumer.begin(Receive(self._keys.decisions, self._after, signals))
        self._bot.begin(Publish(self._keys.events, taken, rate))

    def end(self, signals: int) -> tuple[Sent, Received]:
        """Wait for the decisions of what was begun."""
        while not self._consumer.ready(1.0):
            self._worker.check()
        received = self._consumer.result()
        sent = self._bot.result()
        if received[0] != sent[0]:
            raise self._worker.failed(f"made {len(received[0])} decisions of {signals}")
        self._after = received[0][-1]
        return sent, received

    def command(
        self, name: str, args: dict[str, float | bool | str | None] | None = None
    ) -> tuple[Id, int]:
        """Give a signed command; its place, and when it was sent, ns."""
        data = signed(KEY.encode(), name, BY, "a measurement", args)
        before = monotonic_ns()
        return _id(send(self._connection, self._keys, data).encode()), before

    def champion(self) -> str:
        """That of the newest decision."""
        redis: Any = self._connection.redis
        ((_, fields),) = redis.xrevrange(self._keys.decisions, count=1)
        found = decode_output(Decision, fields[b"e"]).model.champion
        if found is None:
            raise self._worker.failed("has no champion yet")
        return found

    def champions(self, first: bytes) -> list[str | None]:
        """Of each decision from that one on."""
        redis: Any = self._connection.redis
        entries = redis.xrange(self._keys.decisions, min=first)
        return [decode_output(Decision, fields[b"e"]).model.champion for _, fields in entries]


def two_champions(scene: Scene) -> tuple[str, str]:
    """Have two refits made and forced in; the older one and the newer."""
    scene.begin(LEARNED, float("inf"))
    scene.end(LEARNED)
    found = []
    for _ in range(2):
        scene.command("refit", {"force": True})
        scene.begin(BETWEEN, float("inf"))
        scene.end(BETWEEN)
        found.append(scene.champion())
    old, new = found
    if old == new:
        raise BenchError(f"{old} is the only champion; the second refit was not installed")
    return old, new


def back_and_forth(
    scene: Scene, old: str, new: str, rollbacks: int, rate: float, seed: int
) -> tuple[list[Given], Seen]:
    """Roll back and install again, so many times each, while signals come."""
    rng = random.Random(seed)
    # Gaps are at most half as long again; a second before the first, and one after the last.
    signals = int(rate * (3.0 * rollbacks * GAP_S + 2.0))
    scene.begin(signals, rate)
    sleep(1.0)
    given = []
    for number in range(2 * rollbacks):
        sleep(GAP_S * rng.uniform(0.5, 1.5))
        if number % 2:
            given.append(Given(new, *scene.command("install", {"model": new, "force": True})))
        else:
            given.append(Given(old, *scene.command("rollback")))
    (published, due), (_, received) = scene.end(signals)
    seen = Seen([_id(each) for each in published], scene.champions(published[0]), due, received)
    return given, seen


def _id(entry: bytes) -> Id:
    ms, number = entry.split(b"-")
    return int(ms), int(number)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a command came to.

    Parameters
    ----------
    decisions
        Decisions from the command on until the first by the other champion, that one included; 0:
        there was none.
    wrong
        Decisions up to the next command that aren't that champion's.
    from_command_ms, from_due_ms
        To the receipt of the first decision behind the command, from its XADD and from when its
        signal was due.
    """

    decisions: int
    wrong: int
    from_command_ms: float
    from_due_ms: float


def effects(given: Sequence[Given], seen: Seen) -> list[Effect]:
    """What each command came to. Raises `BenchError` when no signal came behind one."""
    places = [bisect_left(seen.ids, each.entry) for each in given] + [len(seen.ids)]
    found = []
    for each, (first, stop) in zip(given, pairwise(places), strict=True):
        if first == stop:
            raise BenchError("no signal came between two commands; give a higher --rate")
        theirs = [champion == each.champion for champion in seen.champions[first:]]
        found.append(
            Effect(
                theirs.index(True) + 1 if True in theirs else 0,
                theirs[: stop - first].count(False),
                (seen.received[first] - each.sent) / 1e6,
                (seen.received[first] - seen.due[first]) / 1e6,
            )
        )
    return found


def ordinary(given: Sequence[Given], seen: Seen, seed: int) -> tuple[list[float], list[float]]:
    """Ms to a receipt from moments without a command, and from due, of all other decisions."""
    behind = {bisect_left(seen.ids, each.entry) for each in given}
    rng = random.Random(seed)
    moments = []
    for _ in range(MOMENTS):
        moment = rng.randrange(seen.due[0], seen.due[-1])
        first = bisect_left(seen.due, moment)
        if first not in behind:
            moments.append((seen.received[first] - moment) / 1e6)
    late = [
        (received - due) / 1e6
        for number, (received, due) in enumerate(zip(seen.received, seen.due, strict=True))
        if number not in behind
    ]
    return moments, late


def main(
    rollbacks: Annotated[int, typer.Option(min=1, help="Rollbacks, and as many installs.")] = 20,
    rate: Annotated[float, typer.Option(min=20.0, help="Signals a second.")] = 200.0,
    address: Annotated[
        str | None, typer.Option(help="redis://… or unix://….", show_default="a server of its own")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the signals and the moments.")] = 42,
    json_out: JsonOption = None,
) -> None:
    """How soon a rollback takes effect, in decisions and in milliseconds."""
    results = Results("rollback", json_out)
    with ExitStack() as stack:
        bar = stack.enter_context(progress())
        bar.add_task("two champions, and back and forth", total=None)
        connection, folder = stack.enter_context(served(address))
        where = address or connection.address
        keys = stack.enter_context(own_keys(connection))
        worker = Worker(CLOSELOOP, where, keys, folder / "worker", SETTINGS)
        stack.callback(worker.close)
        bot = stack.enter_context(servant(where, "bot"))
        consumer = stack.enter_context(servant(where, "consumer"))
        signals = LEARNED + 2 * BETWEEN + int(rate * (3.0 * rollbacks * GAP_S + 3.0))
        scene = Scene(connection, keys, worker, bot, consumer, seed, signals)
        old, new = two_champions(scene)
        given, seen = back_and_forth(scene, old, new, rollbacks, rate, seed)
        server = server_version(connection)
    found = effects(given, seen)
    moments, late = ordinary(given, seen, seed)
    counts = [each.decisions for each in found]
    before = bisect_left(seen.ids, given[0].entry)
    wrong = sum(each.wrong for each in found) + before - seen.champions[:before].count(new)
    holds = wrong == 0 and set(counts) == {1}
    measured = {
        "from the command": [each.from_command_ms for each in found],
        "from any other moment": moments,
        "from due, behind a command": [each.from_due_ms for each in found],
        "from due, all others": late,
    }
    rows = [
        [name, len(ms), float(np.median(ms)), float(np.percentile(ms, 99)), max(ms)]
        for name, ms in measured.items()
    ]
    columns = ["to the next decision", "count", "median, ms", "p99, ms", "worst, ms"]
    title = f"{rollbacks} rollbacks and {rollbacks} installs, {rate:,.0f} signals/s, {server}"
    results.table(title, columns, rows)
    results.note(
        "decisions from a command to the first by the other champion:"
        f" {max(counts) if all(counts) else 'never'} at most;"
        f" decisions by the wrong one: {wrong} of {len(seen.ids):,}"
    )
    results.add({"rollbacks": rollbacks, "signals_per_s": rate, "server": server, "seed": seed})
    results.add(
        {
            "champions": [old, new],
            "decisions": max(counts),
            "never": counts.count(0),
            "wrong": wrong,
            "holds": holds,
        }
    )
    results.add({"ms": {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows}})
    results.add({"effects": found, "signals": len(seen.ids)})
    results.write()
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    run(main)
