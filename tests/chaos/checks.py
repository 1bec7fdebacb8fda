"""The checks after a run: the outputs against the input that survived.

Each is made twice: from the input alone, by counting, and against a `Core` that was never
interrupted and applied the same entries, byte for byte.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import redis

from engine.core import Core
from engine.recovery import read_raw
from snapshots import state_digest
from streams import Alert, Close, Dead, Decision, Keys, Outcome, RawEntry, Signal, encode
from tests.chaos.bot import MARK

OWN_ALERTS = frozenset({"stream_lost_its_tail"})
"""Alerts that are the worker's own, not the core's."""

CHECKS = (
    "decisions lost", "decisions doubled", "decisions unasked", "decisions out of order",
    "decisions differ from replay", "closes lost", "closes doubled", "outcomes differ from replay",
    "alerts differ from replay", "dead letters missing", "dead letters unasked",
    "dead letters doubled", "dead letters differ from replay", "input not committed",
    "decisions digest differs", "state digest differs", "losses not reported as they are",
    "losses reported that were none", "bad snapshots used", "files left open",
)  # fmt: skip
"""What is counted, beside what single faults require."""


@dataclass(slots=True)
class Verdict:
    """What the checks found; every figure under `wrong` must be 0."""

    entries: int = 0
    decisions: int = 0
    outcomes: int = 0
    dead: int = 0
    alerts: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def require(self, holds: bool, what: str, note: str = "") -> None:
        self.wrong[what] += not holds
        if not holds and note:
            self.notes.append(f"{what}: {note}")

    def add(self, other: "Verdict") -> None:
        """Sum up with the verdict on an earlier history."""
        for name in ("entries", "decisions", "outcomes", "dead", "alerts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong.update(other.wrong)
        self.notes += other.notes

    @property
    def holds(self) -> bool:
        return not any(self.wrong.values())


@dataclass(frozen=True, slots=True)
class Published:
    """The output streams as they lie on the server, and what the worker says of its state."""

    decisions: list[tuple[str, bytes]]
    outcomes: list[tuple[str, bytes]]
    alerts: list[bytes]
    own_alerts: list[tuple[str, dict[str, str]]]
    dead: list[bytes]
    decisions_digest: str
    state_digest: str | None
    position: str


def published(client: redis.Redis) -> Published:
    """Read the output streams."""
    keys = Keys()

    def entries(stream: str) -> list[tuple[str, bytes]]:
        return [(name.decode(), fields[b"e"]) for name, fields in client.xrange(stream)]

    alerts = [(name, data, orjson.loads(data)) for name, data in entries(keys.alerts)]
    own = [(name, alert) for name, _, alert in alerts if alert["code"] in OWN_ALERTS]
    notices = client.xrevrange(keys.snapshots, count=1)
    notice = orjson.loads(notices[0][1][b"e"]) if notices else {}
    position, digest = client.hmget(keys.checkpoint, "position", "decisions_digest")
    at_checkpoint = position is not None and notice.get("position") == position.decode()
    return Published(
        entries(keys.decisions),
        entries(keys.outcomes),
        [data for _, data, alert in alerts if alert["code"] not in OWN_ALERTS],
        own,
        [data for _, data in entries(keys.dead)],
        (digest or b"").decode(),
        notice["state_digest"] if at_checkpoint else None,
        (position or b"0-0").decode(),
    )


def check(recorded: list[RawEntry], found: Published, core: Core) -> Verdict:
    """Hold what was published to what was recorded.

    Parameters
    ----------
    core
        A new one, configured like the worker's.
    """
    verdict = Verdict(
        len(recorded), len(found.decisions), len(found.outcomes), len(found.dead), len(found.alerts)
    )
    _count(verdict, recorded, found)
    _compare(verdict, recorded, found, core)
    return verdict


def _count(verdict: Verdict, recorded: list[RawEntry], found: Published) -> None:
    """What follows from the input alone."""
    asked: dict[str, str] = {}
    closed: set[str] = set()
    planted = set()
    # Closes that no signal stands before: a bot's error took it, or a server that lost its tail.
    early = set()
    for raw in recorded:
        event = read_raw(raw).event
        if MARK in raw.data:
            planted.add(raw.id)
        elif isinstance(event, Signal):
            asked.setdefault(event.signal_id, raw.id)
        elif isinstance(event, Close):
            closed.add(event.signal_id)
            if event.signal_id not in asked:
                early.add(raw.id)
    decided = Counter(orjson.loads(data)["signal_id"] for _, data in found.decisions)
    verdict.wrong["decisions lost"] += len(asked.keys() - decided.keys())
    verdict.wrong["decisions doubled"] += sum(decided.values()) - len(decided)
    verdict.wrong["decisions unasked"] += len(decided.keys() - asked.keys())
    in_order = [name for name, _ in found.decisions] == list(asked.values())
    verdict.require(in_order, "decisions out of order")
    learned = Counter(orjson.loads(data)["signal_id"] for _, data in found.outcomes)
    verdict.wrong["closes lost"] += len((closed & asked.keys()) - learned.keys())
    verdict.wrong["closes doubled"] += sum(learned.values()) - len(learned)
    buried = Counter(
        letter["entry_id"]
        for letter in map(orjson.loads, found.dead)
        if not (letter["entry_id"] in early and letter["reason"] == "orphan_close")
    )
    verdict.wrong["dead letters missing"] += len(planted - buried.keys())
    for letter in found.dead:
        entry_id = orjson.loads(letter)["entry_id"]
        asked_for = entry_id in planted or entry_id not in buried
        verdict.require(asked_for, "dead letters unasked", f"{letter!r:.400}")
    verdict.wrong["dead letters doubled"] += sum(buried.values()) - len(buried)


def _compare(verdict: Verdict, recorded: list[RawEntry], found: Published, core: Core) -> None:
    """What a run never interrupted publishes."""
    decisions: list[tuple[str, bytes]] = []
    outcomes: list[tuple[str, bytes]] = []
    alerts: list[bytes] = []
    dead: list[bytes] = []
    for raw in recorded:
        entry = read_raw(raw)
        for output in core.apply(entry):
            data = encode(output)
            if isinstance(output, Decision):
                decisions.append((entry.id, data))
            elif isinstance(output, Outcome):
                outcomes.append((entry.id, data))
            elif isinstance(output, Alert):
                alerts.append(data)
            elif isinstance(output, Dead):
                dead.append(data)
    for name, expected, got in (
        ("decisions differ from replay", decisions, found.decisions),
        ("outcomes differ from replay", outcomes, found.outcomes),
        ("alerts differ from replay", alerts, found.alerts),
        ("dead letters differ from replay", dead, found.dead),
    ):
        verdict.require(expected == got, name, _first_difference(expected, got))
    verdict.require(
        found.position == (recorded[-1].id if recorded else "0-0"),
        "input not committed",
        f"committed up to {found.position}",
    )
    verdict.require(
        found.decisions_digest in (core.decisions_digest, *([""] if not recorded else [])),
        "decisions digest differs",
        f"{found.decisions_digest} there, {core.decisions_digest} in the replay",
    )
    expected_state = state_digest(core.state())
    verdict.require(
        found.state_digest == expected_state,
        "state digest differs",
        f"{found.state_digest} there, {expected_state} in the replay",
    )


def _first_difference(expected: Sequence[object], got: Sequence[object]) -> str:
    for number, (one, other) in enumerate(zip(expected, got, strict=False)):
        if one != other:
            return f"number {number} is {other!r:.400}, replay has {one!r:.400}"
    return f"{len(got)} there, {len(expected)} in the replay"
