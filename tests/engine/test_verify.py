"""Verification: equal histories hold, and each way of tampering is named for what it is."""

from collections.abc import Iterator
from threading import Event

import pytest
from msgspec.structs import replace

from engine.alignment import BySignal, Published
from engine.bootstrap import new_worker
from engine.config import WorkerConfig, load_config
from engine.core_config import PolicyConfig
from engine.metrics import Metrics
from engine.recovery import RecoveryError
from engine.snapshotting import TAPE, take, to_bytes
from engine.stretch import Stretches
from engine.verify import Difference, Verdict, Verification, Waypoint
from snapshots import SnapshotIncompatible, SnapshotInfo, libraries
from streams import Connection, Decision, Outcome, connect, encode, order
from tests.engine.conftest import Command
from tests.engine.histories import QUICK, close, entries, history, new_core, run, signal
from tests.engine.test_worker import KEY, Shard

EVENTS = history(120)
HALF = len(EVENTS) // 2
BYTES = [encode(event) for event in EVENTS]
HERE = [("0-1", libraries())]
ELSEWHERE = [("0-1", libraries() | {"lightgbm": "3.0.0"})]


def published(lines: list[bytes], kind: type = Decision) -> list[bytes]:
    outputs = run(new_core(), entries(*lines))
    return [encode(output) for output in outputs if isinstance(output, kind)]


DECISIONS = published(BYTES)
OUTCOMES = published(BYTES, Outcome)


def tape(lines: list[bytes]) -> Iterator[Published]:
    return (Published(f"0-{number}", data) for number, data in enumerate(lines, 1))


def verify(
    lines: list[bytes],
    decisions: list[bytes] = DECISIONS,
    outcomes: list[bytes] | None = None,
    config: object = QUICK,
    **known: object,
) -> Verdict:
    closed = None if outcomes is None else BySignal(tape(outcomes))
    verification = Verification(new_core(config), BySignal(tape(decisions)), closed, **known)
    for entry in entries(*lines):
        verification.apply(entry)
    return verification.finish()


def first(verdict: Verdict) -> Difference:
    assert not verdict.holds
    assert verdict.first is not None
    return verdict.first


def without(lines: list[bytes], *numbers: int) -> list[bytes]:
    return [data for number, data in enumerate(lines) if number not in numbers]


def place(name: str, kind: str = "signal") -> int:
    """The line of an event."""
    return next(i for i, e in enumerate(EVENTS) if (e.type, e.signal_id) == (kind, name))


def test_what_was_published_is_what_the_inputs_give() -> None:
    verdict = verify(BYTES, outcomes=OUTCOMES)
    assert verdict.holds
    assert (verdict.decisions.equal, verdict.decisions.unchecked) == (120, 0)
    assert (verdict.outcomes.equal, verdict.entries) == (120, 240)


def test_the_transports_ids_do_not_matter_on_tapes() -> None:
    other_ids = [
        data.replace(b'"decision_id":"0-', b'"decision_id":"1746105000000-') for data in DECISIONS
    ]
    assert verify(BYTES, other_ids).holds


def test_a_deleted_signal_is_the_input() -> None:
    found = first(verify(without(BYTES, place("s40"))))
    assert (found.signal_id, found.cause, found.made) == ("s40", "input", None)


def test_a_deleted_close_is_the_input_and_is_named() -> None:
    found = first(verify(without(BYTES, place("s40", "close"))))
    assert (found.signal_id, found.cause) == ("s45", "input")
    assert "the close of 's40' is gone" in found.why


def test_an_added_close_is_the_input() -> None:
    lines = list(BYTES)
    lines[1:1] = [encode(close("s0", 0.5))]  # and the bot's own then is a copy
    found = first(verify(lines))
    assert (found.signal_id, found.cause) == ("s1", "order")
    lines = [*BYTES[:2], encode(signal("x")), encode(close("x")), *BYTES[2:]]
    found = first(verify(lines))
    assert (found.signal_id, found.cause) == ("x", "input")


def test_another_symbol_is_the_input() -> None:
    at = place("s40")
    other = replace(EVENTS[at], symbol="USDJPY")
    found = first(verify([*BYTES[:at], encode(other), *BYTES[at + 1 :]]))
    assert (found.signal_id, found.cause) == ("s40", "input")
    assert "symbol" in found.why


def test_other_features_are_the_input_once_config_and_libraries_are_known_to_be_the_same() -> None:
    at = place("s40")
    other = replace(EVENTS[at], features={"edge": 4.0})
    lines = [*BYTES[:at], encode(other), *BYTES[at + 1 :]]
    found = first(verify(lines, made_with=HERE))
    assert (found.signal_id, found.cause) == ("s40", "input")
    assert first(verify(lines)).cause == "unclear"


def test_another_return_is_the_input_seen_at_its_outcome() -> None:
    at = place("s40", "close")
    other = replace(EVENTS[at], return_pct=7.0)
    found = first(verify([*BYTES[:at], encode(other), *BYTES[at + 1 :]], outcomes=OUTCOMES))
    assert (found.kind, found.signal_id, found.cause) == ("outcome", "s40", "input")


def test_events_in_another_order_are_named_so() -> None:
    at = place("s40", "close")
    lines = list(BYTES)
    lines[at : at + 2] = lines[at + 1], lines[at]
    found = first(verify(lines))
    assert (found.signal_id, found.cause) == ("s45", "order")
    at = place("s0")  # before anything was learned no byte of a decision tells
    lines = list(BYTES)
    lines[at : at + 2] = lines[at + 1], lines[at]
    found = first(verify(lines))
    assert (found.signal_id, found.cause) == ("s0", "order")


def test_another_configuration_is_named_by_both_digests() -> None:
    config = QUICK.model_copy(update={"policy": PolicyConfig(take=0.7)})
    verdict = verify(BYTES, config=config)
    found = first(verdict)
    assert (found.signal_id, found.cause) == ("s0", "config")
    assert QUICK.digest[:12] in found.why
    assert config.digest[:12] in found.why
    assert verdict.decisions.differing == 120


def test_another_library_is_named_with_both_versions() -> None:
    numbers = [data.replace(b'"risk":0.', b'"risk":0.0') for data in DECISIONS]
    found = first(verify(BYTES, numbers, made_with=ELSEWHERE))
    assert found.cause == "library"
    assert "lightgbm 3.0.0 there" in found.why


@pytest.mark.parametrize("change", ["altered", "missing", "added"])
def test_what_was_tampered_with_after_publication_is_the_output(change: str) -> None:
    at = 40
    other = DECISIONS[at].replace(b'"size_multiplier":', b'"size_multiplier":1')
    decisions = {
        "altered": [*DECISIONS[:at], other, *DECISIONS[at + 1 :]],
        "missing": without(DECISIONS, at),
        "added": [*DECISIONS[:at], DECISIONS[at].replace(b'"s40"', b'"sX"'), *DECISIONS[at:]],
    }[change]
    verdict = verify(BYTES, decisions)
    found = first(verdict)
    assert verdict.decisions.differing == 1
    if change == "added":  # without digests it might as well be a signal taken out
        assert (found.signal_id, found.cause) == ("sX", "input")
    else:
        assert (found.signal_id, found.cause) == ("s40", "output")
    core = new_core()
    run(core, entries(*BYTES))
    end = Waypoint("the end", f"0-{len(BYTES)}", core.decisions_digest)
    assert first(verify(BYTES, decisions, waypoints=[end])).cause == "output"


def test_what_is_no_decision_is_named_so() -> None:
    found = first(verify(BYTES, [b'{"signal_id":"s0"}', *DECISIONS[1:]]))
    assert (found.signal_id, found.cause) == ("s0", "output")
    assert first(verify(BYTES, [DECISIONS[0], b"gone", *DECISIONS[1:]])).published == "gone"


def test_what_one_tape_does_not_reach_is_counted_not_called_a_difference() -> None:
    verdict = verify(BYTES, DECISIONS[20:100])
    assert verdict.holds
    assert (verdict.decisions.equal, verdict.decisions.unchecked) == (80, 40)
    verdict = verify(BYTES[: place("s50")])
    assert verdict.holds
    assert (verdict.decisions.equal, verdict.decisions.unchecked) == (50, 70)


def test_nothing_compared_is_nothing_proven() -> None:
    assert not verify(BYTES, []).holds
    assert verify([], []).holds


def test_waypoints_catch_what_no_decision_shows() -> None:
    core = new_core()
    run(core, entries(*BYTES))
    end = Waypoint("the end", f"0-{len(BYTES) - 1}", core.decisions_digest, len(BYTES))
    found = first(verify(BYTES[:-1], waypoints=[end]))
    assert (found.kind, found.cause) == ("state", "input")
    assert f"{len(BYTES) - 1} entries up to here, {len(BYTES)} when the end was made" in found.why
    silent = Waypoint("the end", end.position, core.decisions_digest, None, "0" * 64)
    assert first(verify(BYTES[:-1], waypoints=[silent], made_with=HERE)).kind == "state"


# A shard's streams


one_server = pytest.mark.parametrize("address", ["redis_server"], indirect=True)


@pytest.fixture
def shard(connection: Connection, tmp_path, monkeypatch) -> Shard:
    """Served and idle, with a snapshot half-way, in a fraction of a second."""
    monkeypatch.setattr("engine.worker.IDLE_MS", 50)
    made = Shard(connection, tmp_path)
    made.config = made.config.model_copy(update={"worker": WorkerConfig(batch=16, lease_ms=150)})
    for half in (EVENTS[:HALF], EVENTS[HALF:]):
        made.publish(*half)
        made.worker().run(until_idle=True)
    return made


def half_way(shard: Shard) -> SnapshotInfo:
    """The snapshot that is there for sure, but for the last."""
    return next(info for info in shard.store.list() if info.manifest.events == HALF)


def stretches(shard: Shard, connection: Connection) -> Stretches:
    return Stretches(connection, shard.keys, shard.store, shard.new_core)


def event_ids(shard: Shard) -> list[str]:
    return [entry_id.decode() for entry_id, _ in shard.redis.xrange(shard.keys.events)]


def contents(shard: Shard) -> list[object]:
    keys = shard.keys
    streams = [keys.events, keys.decisions, keys.outcomes, keys.alerts, keys.dead, keys.snapshots]
    return [
        *(shard.redis.xrange(key) for key in streams),
        shard.redis.hgetall(keys.checkpoint),
        shard.redis.get(keys.lease),
        sorted(path.name for path in shard.store.directory.iterdir()),
    ]


def test_a_shard_holds_and_nothing_is_changed_by_looking(shard, connection) -> None:
    lease = shard.transport.acquire("at work", 60_000)
    before = contents(shard)
    found = stretches(shard, connection).verify()
    assert contents(shard) == before
    shard.transport.renew(lease)
    assert found.verdict.holds
    assert found.notes == []
    assert (found.verdict.entries, found.verdict.decisions.equal) == (240, 120)
    assert found.verdict.outcomes.equal == 120
    assert found.verdict.states.equal == len(shard.store.list()) + 1  # the checkpoint


@one_server
def test_a_stretch_begins_at_the_nearest_snapshot_before_it(shard, connection) -> None:
    ids = event_ids(shard)
    found = stretches(shard, connection).verify(ids[200], ids[219])
    assert found.verdict.holds
    assert found.snapshot is not None
    assert (found.first, found.last, found.verdict.entries) == (ids[200], ids[219], 20)
    assert found.verdict.decisions.equal == 10


@one_server
def test_a_named_snapshot_is_begun_with(shard, connection) -> None:
    begun = half_way(shard)
    found = stretches(shard, connection).verify(snapshot=begun.path)
    assert found.snapshot == str(begun.path)
    assert found.verdict.holds
    assert found.verdict.entries == 240 - HALF
    with pytest.raises(SnapshotIncompatible, match="not before"):
        stretches(shard, connection).verify(first=event_ids(shard)[0], snapshot=begun.path)


@one_server
@pytest.mark.parametrize(("name", "kind"), [("s40", "signal"), ("s40", "close"), ("s119", "close")])
def test_a_deleted_event_is_named(shard, connection, name: str, kind: str) -> None:
    gone = event_ids(shard)[place(name, kind)]
    shard.redis.xdel(shard.keys.events, gone)
    found = first(stretches(shard, connection).verify().verdict)
    assert found.cause == "input"
    if kind == "signal":
        assert (found.entry_id, found.signal_id) == (gone, name)


def test_a_deleted_decision_is_the_output(shard, connection) -> None:
    gone = event_ids(shard)[place("s40")]
    shard.redis.xdel(shard.keys.decisions, gone)
    verdict = stretches(shard, connection).verify().verdict
    found = first(verdict)
    assert (found.entry_id, found.cause, found.published) == (gone, "output", None)
    assert verdict.decisions.differing == 1


@one_server
def test_decisions_that_were_trimmed_are_said_to_be_unchecked(shard, connection) -> None:
    shard.redis.xtrim(shard.keys.decisions, maxlen=50, approximate=False)
    found = stretches(shard, connection).verify()
    assert found.verdict.holds
    assert (found.verdict.decisions.equal, found.verdict.decisions.unchecked) == (50, 70)
    assert "70 decisions can't be checked" in found.notes[0]


@one_server
def test_input_that_was_trimmed_is_said_to_be_unchecked(shard, connection) -> None:
    lease = shard.transport.acquire("one", 60_000)
    begin = half_way(shard).manifest.position
    shard.transport.trim(lease, begin)
    found = stretches(shard, connection).verify()
    assert found.verdict.holds
    assert order(found.first) > order(begin)
    assert f"published up to {begin} can't be checked" in found.notes[0]
    with pytest.raises(RecoveryError, match="no snapshot"):
        stretches(shard, connection).verify(first=begin)


@one_server
def test_another_configuration_is_named_as_long_as_the_stream_reaches_back(
    shard, connection
) -> None:
    core = QUICK.model_copy(update={"policy": PolicyConfig(take=0.7)})
    shard.config = shard.config.model_copy(update={"core": core})
    found = stretches(shard, connection).verify()
    assert found.snapshot is None
    assert first(found.verdict).cause == "config"


@one_server
def test_a_shard_that_began_with_a_replays_state_is_verified_from_it(
    connection, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("engine.worker.IDLE_MS", 50)
    shard = Shard(connection, tmp_path)
    core = shard.new_core()
    run(core, entries(*EVENTS[:120]))
    saved = tmp_path / "history.clsnap"
    saved.write_bytes(to_bytes(take(core, TAPE, None), KEY))
    shard.publish(*EVENTS[120:])
    shard.worker(saved).run(until_idle=True)
    assert stretches(shard, connection).verify().verdict.holds
    for path in shard.store.directory.iterdir():
        path.unlink()
    found = first(stretches(shard, connection).verify().verdict)
    assert (found.cause, "begun from a replay's snapshot?" in found.why) == ("input", True)
    assert stretches(shard, connection).verify(snapshot=saved).verdict.holds


@one_server
def test_nothing_committed_is_nothing_to_verify(connection, tmp_path) -> None:
    found = stretches(Shard(connection, tmp_path), connection).verify()
    assert found.verdict.holds
    assert found.notes == ["nothing is committed from 0-1 to 0-0"]


# The command

SETTINGS = """
[stream]
address = "memory://verify-command"
[snapshots]
every = 1000
[core.refit]
enabled = false
[core.experts]
base_rate = {kind = "base_rate"}
logistic = {kind = "logistic"}
"""


def serve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What `closeloop run --until-idle` does, without taking over this process."""
    monkeypatch.setattr("engine.worker.IDLE_MS", 50)
    config = load_config()
    with (
        connect(config.stream.address) as connection,
        new_worker(config, connection, Metrics(), Event()) as worker,
    ):
        worker.run(until_idle=True)
    capsys.readouterr()  # its log


def test_the_command_verifies_streams_and_tapes(
    closeloop: Command, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "closeloop.toml").write_text(SETTINGS)
    (tmp_path / "events.jsonl").write_bytes(b"".join(data + b"\n" for data in BYTES))
    closeloop("publish", "events.jsonl")
    serve(monkeypatch, capsys)
    ran = closeloop("verify", "--json")
    assert ran.status == 0
    assert ran.json["holds"] is True
    assert ran.json["decisions"] == {"equal": 120, "differing": 0, "unchecked": 0}
    nothing = closeloop("verify", "--snapshot", "snapshot-000000000240")
    assert nothing.status == 0
    assert "nothing is committed from" in nothing.err
    assert closeloop("verify", "--snapshot", "no such").status == 6
    shown = closeloop("verify")
    assert (shown.status, shown.err) == (0, "")
    assert "240 entries run again" in shown.out

    for stream in ("decisions", "outcomes"):
        closeloop("record", f"{stream}.jsonl", "--stream", stream)
    tapes = ("--tape", "events.jsonl", "--decisions", "decisions.jsonl")
    assert closeloop("verify", *tapes, "--outcomes", "outcomes.jsonl").status == 0
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_bytes(b"".join(without(lines, place("s40"))))
    ran = closeloop("verify", *tapes)
    assert ran.status == 1
    assert "the decision of signal s40" in ran.out
    assert "cause: input" in ran.out


def test_bad_usage_is_said(closeloop: Command) -> None:
    assert closeloop("verify", "--from", "yesterday").status == 2
    assert closeloop("verify", "--tape", "t.jsonl").status == 2
    assert closeloop("verify", "--tape", "t.jsonl", "--decisions", "d.jsonl").status == 4
    assert closeloop("verify", "--decisions", "d.jsonl").status == 2
    assert closeloop("verify", "--address", "redis://127.0.0.1:1").status == 3
