"""A webhook that accepts and never answers, and what it does to the decisions of a real worker.

Two workers (`closeloop run`) serve shards of their own on one real server; one of them tells its
alerts to the webhook. They are measured in turn, round after round, on the same events: from when a
signal was due to the receipt of its decision.

A delay is *more than noise* when it is there in the rounds' medians or in their 99th percentiles:
the difference between the two workers, round by round, is above zero by Wilcoxon's signed-rank test
(one-sided, p below 0.01, which takes seven rounds), and its median is above the usual difference
between two rounds of the worker without a webhook. Or when the slowest decision of a round, in the
median, takes as long as a try at the webhook does, and without one it doesn't.
"""

import math
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any
from urllib.request import urlopen

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from rich.progress import Progress
from scipy.stats import wilcoxon

from bench.bad_days import made
from bench.live import Bench, Side
from bench.processes import PATIENCE_S, servant
from bench.results import BenchError
from bench.servers import own_keys, served
from engine.safety.settings import TriggersConfig
from streams import Keys, Tape, encode, write_tape

TRY_S = 1.0
TRIES = 2
"""A try at the webhook takes a second, and there are two: an alert is given up within the run."""
LUCK = 0.01
SIGNALS = 5_000
"""On the tape, which is fed lap after lap."""
PERCENTILES = {"p50": 50.0, "p99": 99.0}
SIDES = ("without", "with")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hanging:
    """A server that answers nobody."""

    port: int
    asked: list[bytes] = field(default_factory=list)
    """The first bytes of each request."""


@contextmanager
def hanging() -> Iterator[Hanging]:
    """Takes every connection, reads, and never says a word."""
    done = Event()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                found.asked.append(self.request.recv(4_096))
            done.wait()

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        found = Hanging(server.server_address[1])
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            done.set()
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class Webhook:
    """What came of it: latencies in ms by side and round, and what happened to the alerts."""

    rounds: dict[str, list[Floats]]
    requests: int
    undelivered: float
    sent: float
    fired: int

    def percentiles(self, side: str, name: str) -> Floats:
        """A percentile of each round, ms."""
        return np.array([np.percentile(found, PERCENTILES[name]) for found in self.rounds[side]])

    def slower(self) -> dict[str, dict[str, float]]:
        """By percentile: the median difference between the sides, its p, and the noise, ms."""
        found = {}
        for name in PERCENTILES:
            without, hooked = (self.percentiles(side, name) for side in SIDES)
            more = hooked - without
            found[name] = {
                "median_ms": float(np.median(more)),
                "p": float(wilcoxon(more, alternative="greater").pvalue) if more.any() else 1.0,
                "noise_ms": float(np.median(np.abs(np.diff(without)))) if len(more) > 1 else 0.0,
            }
        return found

    def worst(self, side: str) -> Floats:
        """The slowest decision of each round, ms."""
        return np.array([found.max() for found in self.rounds[side]])

    @property
    def delays(self) -> bool:
        """Whether decisions are delayed by more than noise."""
        without, hooked = (float(np.median(self.worst(side))) for side in SIDES)
        if hooked >= 1e3 * TRY_S > without:
            return True
        return any(
            found["p"] < LUCK and found["median_ms"] > found["noise_ms"]
            for found in self.slower().values()
        )


def measured(rate: float, seconds: float, rounds: int, seed: int, bar: Progress) -> Webhook:
    """Measure both workers, `rounds` times `seconds` at `rate` signals a second."""
    latencies: dict[str, list[Floats]] = {side: [] for side in SIDES}
    with ExitStack() as stack:
        task = bar.add_task("a slow webhook", total=2 * rounds)
        # Left last, so that nobody waits for what it never answers.
        connection, folder = stack.enter_context(served(None))
        slow = stack.enter_context(hanging())
        tape = _tape(folder, seed)
        bot = stack.enter_context(servant(connection.address, "bot"))
        consumer = stack.enter_context(servant(connection.address, "consumer"))
        bench = Bench(connection, connection.address, folder, bot, consumer)
        sides, ports = {}, {}
        for name in SIDES:
            keys = stack.enter_context(own_keys(connection))
            ports[name] = _free_port()
            settings: dict[str, object] = {"HTTP__ENABLED": "true", "HTTP__PORT": ports[name]}
            settings |= {"NOTIFY__TIMEOUT_S": TRY_S, "NOTIFY__ATTEMPTS": TRIES}
            if name == "with":
                settings["NOTIFY__WEBHOOK__URL"] = f"http://127.0.0.1:{slow.port}/services/x"
            sides[name] = Side(bench, "closeloop", keys, tape, settings)
            stack.callback(sides[name].close)
            sides[name].start()
        for side in sides.values():
            side.latencies(max(1, int(rate * seconds)), math.inf)
        for number in range(rounds):
            for name in SIDES[:: -1 if number % 2 else 1]:
                latencies[name].append(sides[name].latencies(max(1, int(rate * seconds)), rate))
                bar.advance(task)
        told = _given_up(ports["with"])
        fired = _fired(connection.redis, sides["with"].keys)
        bar.remove_task(task)
    return Webhook(latencies, len(slow.asked), told["undelivered"], told["sent"], fired)


def _tape(folder: Path, seed: int) -> Tape:
    path = folder / "day.jsonl"
    with write_tape(path) as tape:
        for event in made(SIGNALS, seed):
            tape.write(encode(event))
    return Tape(path)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _given_up(port: int) -> dict[str, float]:
    """How many alerts the webhook took, and how many it was given up for, once there are some."""
    deadline = monotonic() + PATIENCE_S
    while True:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        counts = {"sent": 0.0, "undelivered": 0.0}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "closeloop_notifications_total":
                    labels = sample.labels
                    if labels["receiver"] == "webhook":
                        counts[labels["result"]] = sample.value
        if counts["undelivered"]:
            return counts
        if monotonic() > deadline:
            raise BenchError(f"within {PATIENCE_S:g} s no alert for the webhook was given up")
        sleep(0.2)


def _fired(redis: Any, keys: Keys) -> int:
    """How often triggers have fired."""
    alerts = (orjson.loads(fields[b"e"]) for _, fields in redis.xrange(keys.alerts))
    return sum(
        alert["code"] in TriggersConfig.model_fields and alert.get("state") == "firing"
        for alert in alerts
    )


def figures(found: Webhook, rate: float) -> dict[str, object]:
    """For JSON."""
    sides = {}
    for side in SIDES:
        pooled = np.concatenate(found.rounds[side])
        values = {name: float(np.percentile(pooled, q)) for name, q in PERCENTILES.items()}
        rounds = {f"{name}_rounds": found.percentiles(side, name) for name in PERCENTILES}
        rounds["worst_rounds"] = found.worst(side)
        sides[side] = {"signals": len(pooled), **values, "worst": found.worst(side).max(), **rounds}
    return {
        "signals_per_s": rate,
        "latency_ms": sides,
        "slower": found.slower(),
        "delays": found.delays,
        "fired": found.fired,
        "requests": found.requests,
        "undelivered": found.undelivered,
        "sent": found.sent,
    }
