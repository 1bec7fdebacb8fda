"""Input that somebody else deleted: a worker, a standby and a verification say what is missing."""

from pathlib import Path
from threading import Event, Thread

import pytest

from engine.recovery import RecoveryError, reapply
from engine.stretch import Stretches
from snapshots import state_digest
from streams import START, Alert, Commit, Connection, Lease, RedisTransport
from streams.events import decode_output
from tests.engine.histories import close, history, signal
from tests.engine.test_worker import Shard, crash_after

EVENTS = history(60)
SIGNALS = [event.signal_id for event in EVENTS if event.type == "signal"]


@pytest.fixture
def shard(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shard:
    monkeypatch.setattr("engine.worker.IDLE_MS", 60)
    shard = Shard(connection, tmp_path)
    # It renews its lease once before it is idle.
    worker = shard.config.worker.model_copy(update={"lease_ms": 100})
    shard.config = shard.config.model_copy(update={"worker": worker})
    return shard


def ids(shard: Shard) -> list[str]:
    return [entry_id.decode() for entry_id, _ in shard.redis.xrange(shard.keys.events)]


def trim_to(shard: Shard, left: int) -> None:
    """What a bot does that publishes with MAXLEN."""
    shard.redis.xtrim(shard.keys.events, maxlen=left, approximate=False)


def gaps(shard: Shard) -> list[Alert]:
    found = [
        decode_output(Alert, fields[b"e"]) for _, fields in shard.redis.xrange(shard.keys.alerts)
    ]
    return [alert for alert in found if alert.code == "input_gap"]


def counts_entries(shard: Shard) -> bool:
    return "entries-added" in shard.redis.xinfo_stream(shard.keys.events)


def decided(shard: Shard) -> list[str]:
    return [decision.signal_id for _, decision in shard.decisions()]


def test_a_worker_that_starts_after_a_gap_goes_on_and_says_what_is_missing(shard):
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    committed = shard.transport.checkpoint().position
    shard.publish(*(signal(f"x{number}") for number in range(10)))
    trim_to(shard, 4)
    begins = ids(shard)[0]
    worker = shard.worker(owner="two")
    worker.run(until_idle=True)
    assert decided(shard) == [*SIGNALS, "x6", "x7", "x8", "x9"]
    (alert,) = gaps(shard)
    how_many = "6 were" if counts_entries(shard) else "perhaps some were"
    assert f"after {committed} and before {begins}, {how_many} deleted" in alert.message
    assert (alert.severity, alert.subject) == ("critical", committed)
    shard.publish(close("x9"))
    shard.worker(owner="three").run(until_idle=True)
    assert len(gaps(shard)) == 1


def test_a_worker_says_so_also_when_nothing_is_left(shard):
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    shard.publish(signal("x"))
    trim_to(shard, 0)
    shard.worker(owner="two").run(until_idle=True)
    (alert,) = gaps(shard)
    assert alert.subject == shard.transport.checkpoint().position


def test_a_worker_without_work_finds_out_too(shard):
    shard.publish(*EVENTS)
    worker = shard.worker()
    read, empty = worker._transport.read, []

    def deleted_while_idle(*arguments):
        found = read(*arguments)
        if not found and not empty:
            empty.append(True)
            shard.publish(signal("x"))
            trim_to(shard, 0)
        return found

    worker._transport.read = deleted_while_idle
    worker.run(until_idle=True)
    (alert,) = gaps(shard)
    assert alert.subject == shard.transport.checkpoint().position


def test_a_worker_that_falls_behind_what_a_bot_keeps_says_so_and_outlives_a_crash(
    shard, monkeypatch
):
    shard.config = shard.config.model_copy(
        update={"snapshots": shard.config.snapshots.model_copy(update={"every": 1_000})}
    )
    shard.publish(*EVENTS)
    worker = shard.worker()
    apply, applied = worker._new_core, []

    def new_core():
        core = apply()
        real = core.apply

        def trimmed_meanwhile(entry):
            applied.append(entry.id)
            if len(applied) == 40:
                trim_to(shard, 50)
            return real(entry)

        core.apply = trimmed_meanwhile
        return core

    worker._new_core = new_core
    # 48 were read and 70 deleted by the third commit, so the fourth is refused until it's reported.
    crash_after(shard, worker, 6, monkeypatch)
    (alert,) = gaps(shard)
    if counts_entries(shard):
        assert "22 were deleted" in alert.message
    heir = shard.worker(owner="two")
    heir.run(until_idle=True)
    assert heir.core.counts["events"] == 48 + 50
    assert len(gaps(shard)) == 1


def test_what_cannot_be_rebuilt_for_a_gap_is_refused_and_says_where_the_stream_begins(
    shard, monkeypatch
):
    shard.publish(*EVENTS)
    crash_after(shard, shard.worker(), 5, monkeypatch)
    trim_to(shard, 50)
    begins = ids(shard)[0]
    with pytest.raises(RecoveryError, match=f"it begins at {begins}"):
        shard.worker(owner="two").run(until_idle=True)
    assert gaps(shard) == []


def test_entries_deleted_while_they_are_applied_again_are_not_passed_over(shard):
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    transport = RedisTransport(shard.connection, shard.keys)
    read = transport.read

    def trimmed_after(*arguments):
        found = read(*arguments)
        trim_to(shard, 20)
        return found

    transport.read = trimmed_after
    until = shard.transport.checkpoint().position
    with pytest.raises(RecoveryError, match="some were deleted"):
        reapply(transport, shard.new_core(), ids(shard)[9], until, 30, lambda: None)


def test_a_standby_that_cannot_follow_over_a_gap_says_so(shard):
    lease = shard.transport.acquire("leader", 60_000)
    shard.publish(*EVENTS[:20])
    follower, failures = shard.worker(owner="standby"), []
    begun, go_on = Event(), Event()
    announce = follower._transport.announce_standby

    def held_up(*arguments):
        announce(*arguments)
        if follower.position != START:
            begun.set()
            go_on.wait(30)

    follower._transport.announce_standby = held_up

    def follow():
        try:
            follower.run(standby=True)
        except RecoveryError as error:
            failures.append(error)

    serve_to(shard, lease, 10)
    thread = Thread(target=follow)
    thread.start()
    assert begun.wait(30)
    serve_to(shard, lease, 20)
    trim_to(shard, 5)
    go_on.set()
    thread.join(10)
    shard.stop.set()
    thread.join(10)
    assert "the stream doesn't reach back to its beginning" in str(failures[0])


def serve_to(shard: Shard, lease: Lease, entries: int) -> None:
    """Commit as a leader whose decisions nobody compares."""
    known = shard.transport.checkpoint()
    until = ids(shard)[entries - 1]
    shard.transport.commit(lease, Commit(known.position, until, entries - known.entries, [], ""))


def test_a_verification_says_that_the_input_is_gone(shard):
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    trim_to(shard, 30)
    stretches = Stretches(shard.connection, shard.keys, shard.store, shard.new_core)
    try:
        verified = stretches.verify()
    except RecoveryError as error:
        assert ids(shard)[0] in str(error)
    else:
        assert verified.notes or not verified.verdict.holds


def test_a_state_at_the_checkpoint_needs_no_stream_at_all(shard):
    shard.publish(*EVENTS)
    first = shard.worker()
    first.run(until_idle=True)
    shard.redis.delete(shard.keys.events)
    heir = shard.worker(owner="two")
    heir.run(until_idle=True)
    assert state_digest(heir.core.state()) == state_digest(first.core.state())
    assert len(gaps(shard)) == 1
