"""The worker against each kind of server: what is published, and what a crash leaves behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from engine.api.mailbox import Mailbox
from engine.bootstrap import keys_of, new_core
from engine.config import Config, SnapshotConfig, WorkerConfig
from engine.core import Core
from engine.fitting import InlineFitter
from engine.metrics import Metrics
from engine.recovery import RecoveryError
from engine.snapshotting import TAPE, Snapshotter, take, to_bytes
from engine.watch import Watch
from engine.worker import Worker
from snapshots import SnapshotStore, state_digest
from streams import (
    Connection,
    Decision,
    LeaseLost,
    Outcome,
    RedisTransport,
    SnapshotNotice,
    encode,
)
from streams.events import decode_output
from tests.engine.histories import QUICK, close, entries, history, run, signal

KEY = b"a key for the tests' snapshots.."
EVENTS = history(120)


class Shard:
    """One shard on a server, with a snapshot folder, and workers made on demand."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.config = Config(
            core=QUICK,
            worker=WorkerConfig(batch=16, lease_ms=60_000),
            snapshots=SnapshotConfig(directory=folder, every=50),
        )
        self.keys = keys_of(self.config)
        self.connection = connection
        self.redis = connection.redis
        self.transport = RedisTransport(connection, self.keys)
        self.store = SnapshotStore(folder / "shard", KEY)
        self.stop = Event()

    def publish(self, *events: object) -> None:
        for event in events:
            self.redis.xadd(
                self.keys.events, {"e": event if type(event) is bytes else encode(event)}
            )

    def worker(self, start_from: Path | None = None, owner: str = "one") -> Worker:
        metrics = Metrics()
        transport = RedisTransport(self.connection, self.keys)
        snapshotter = Snapshotter(self.store, KEY, transport, self.config.snapshots, metrics)
        return Worker(
            transport,
            self.keys,
            snapshotter,
            self.new_core,
            self.config.worker,
            owner,
            metrics,
            self.stop,
            Mailbox(),
            Watch(self.connection, self.keys, self.config.core.safety.triggers, KEY, owner),
            start_from,
        )

    def new_core(self) -> Core:
        return new_core(self.config, InlineFitter())

    def decisions(self) -> list[tuple[str, Decision]]:
        return [
            (entry_id.decode(), decode_output(Decision, fields[b"e"]))
            for entry_id, fields in self.redis.xrange(self.keys.decisions)
        ]

    def outcomes(self) -> list[Outcome]:
        found = self.redis.xrange(self.keys.outcomes)
        return [decode_output(Outcome, fields[b"e"]) for _, fields in found]

    def notice(self) -> SnapshotNotice:
        ((_, fields),) = self.redis.xrevrange(self.keys.snapshots, count=1)
        return decode_output(SnapshotNotice, fields[b"e"])


@pytest.fixture
def shard(connection: Connection, tmp_path: Path) -> Shard:
    return Shard(connection, tmp_path)


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[str, str]:
    """The digests of a run over a tape."""
    core = Core(QUICK, InlineFitter())
    run(core, entries(*EVENTS))
    return core.decisions_digest, state_digest(core.state())


def crash_after(
    shard: Shard, worker: Worker, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let `worker` run until it has committed so often, then let it die without a farewell."""

    class Crash(BaseException):
        pass

    left = [commits]
    real = worker._transport.commit

    def commit(*arguments: object) -> None:
        if not left[0]:
            raise Crash
        left[0] -= 1
        real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(worker._transport, "commit", commit)
        patch.setattr(worker._transport, "release", lambda lease: None)
        worker.run(until_idle=True)
    worker._snapshotter.close()  # what was being written is written
    shard.redis.delete(shard.keys.lease)  # as if its time had run out


def test_a_stream_gives_the_same_digests_as_a_tape_of_the_same_events(shard, uninterrupted):
    shard.publish(*EVENTS)
    worker = shard.worker()
    worker.run(until_idle=True)
    assert (worker.core.decisions_digest, state_digest(worker.core.state())) == uninterrupted
    assert shard.transport.checkpoint().decisions_digest == uninterrupted[0]
    assert shard.notice().state_digest == uninterrupted[1]


def test_each_decision_stands_under_its_signals_own_id(shard):
    shard.publish(signal("a"), signal("b"))
    ids = [entry_id.decode() for entry_id, _ in shard.redis.xrange(shard.keys.events)]
    shard.worker().run(until_idle=True)
    found = shard.decisions()
    assert [(entry_id, d.signal_id) for entry_id, d in found] == list(zip(ids, "ab", strict=True))
    assert [d.decision_id for _, d in found] == ids


@pytest.mark.parametrize("commits", [0, 1, 3, 5])
def test_after_a_crash_the_next_worker_ends_where_none_had_crashed(
    shard, commits, uninterrupted, monkeypatch
):
    shard.publish(*EVENTS)
    crash_after(shard, shard.worker(), commits, monkeypatch)
    worker = shard.worker(owner="two")
    worker.run(until_idle=True)
    assert (worker.core.decisions_digest, state_digest(worker.core.state())) == uninterrupted
    signals = [event.signal_id for event in EVENTS if event.type == "signal"]
    assert [d.signal_id for _, d in shard.decisions()] == signals
    assert sorted(o.signal_id for o in shard.outcomes()) == sorted(signals)


def test_without_any_snapshot_the_state_is_rebuilt_from_the_stream(
    shard, uninterrupted, monkeypatch
):
    shard.publish(*EVENTS)
    crash_after(shard, shard.worker(), 5, monkeypatch)
    for path in shard.store.directory.iterdir():
        path.unlink()
    worker = shard.worker(owner="two")
    worker.run(until_idle=True)
    assert (worker.core.decisions_digest, state_digest(worker.core.state())) == uninterrupted


def test_a_damaged_newest_snapshot_is_passed_over_for_an_older_one(
    shard, uninterrupted, monkeypatch
):
    shard.publish(*EVENTS)
    crash_after(shard, shard.worker(), 8, monkeypatch)
    newest = max(shard.store.directory.glob("*.clsnap"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    worker = shard.worker(owner="two")
    worker.run(until_idle=True)
    assert (worker.core.decisions_digest, state_digest(worker.core.state())) == uninterrupted


def test_a_trimmed_stream_without_a_usable_snapshot_is_refused_with_the_mend(shard):
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    shard.redis.xtrim(shard.keys.events, maxlen=10, approximate=False)
    shard.redis.hset(shard.keys.checkpoint, "trimmed", shard.transport.first_id())
    for path in shard.store.directory.iterdir():
        path.unlink()
    with pytest.raises(RecoveryError, match="bring back a snapshot"):
        shard.worker(owner="two").run(until_idle=True)


def test_history_in_live_out_a_replays_final_state_is_gone_on_from(
    shard, uninterrupted, tmp_path, monkeypatch
):
    half = len(EVENTS) // 2
    core = shard.new_core()
    run(core, entries(*EVENTS[:half]))
    saved = tmp_path / "history.clsnap"
    saved.write_bytes(to_bytes(take(core, TAPE, None), KEY))
    shard.publish(*EVENTS[half:])
    crash_after(shard, shard.worker(saved), 2, monkeypatch)
    worker = shard.worker(owner="two")  # not told where the first one began
    worker.run(until_idle=True)
    assert (worker.core.decisions_digest, state_digest(worker.core.state())) == uninterrupted


def test_a_worker_whose_lease_was_taken_over_stops_before_it_publishes(shard):
    shard.publish(*EVENTS[:40])
    slow = shard.worker()
    apply = slow.core.apply
    shard.redis.delete(shard.keys.lease)

    def taken_over_meanwhile(entry):
        shard.redis.delete(shard.keys.lease)
        shard.transport.acquire("two", 60_000)
        return apply(entry)

    shard.new_core = lambda: slow.core
    slow._new_core = shard.new_core
    slow.core.apply = taken_over_meanwhile
    with pytest.raises(LeaseLost):
        slow.run(until_idle=True)
    assert shard.decisions() == []


def test_a_flushed_server_is_noticed_and_served_anew(shard, capsys):
    shard.publish(*EVENTS[:20])
    worker = shard.worker()
    seen: list[Callable[[], None]] = []
    real = worker._transport.commit

    def flush_once(*arguments: object) -> None:
        if not seen:
            seen.append(flush_once)
            shard.redis.flushall()
            shard.publish(signal("after"))
        real(*arguments)

    worker._transport.commit = flush_once
    worker.run(until_idle=True)
    assert [d.signal_id for _, d in shard.decisions()] == ["after"]
    assert "stream_lost_its_tail" in capsys.readouterr().out


def test_a_standby_takes_over_where_the_leader_died(shard, uninterrupted, monkeypatch):
    shard.publish(*EVENTS)
    leader, standby = shard.worker(owner="one"), shard.worker(owner="two")
    shard.transport.acquire("one", 60_000)  # so that the standby can't be the first
    follower = Thread(target=standby.run, kwargs={"until_idle": True, "standby": True})
    follower.start()
    crash_after(shard, leader, 5, monkeypatch)
    follower.join(60)
    assert not follower.is_alive()
    assert (standby.core.decisions_digest, state_digest(standby.core.state())) == uninterrupted
    signals = [event.signal_id for event in EVENTS if event.type == "signal"]
    assert [d.signal_id for _, d in shard.decisions()] == signals


def test_bad_entries_are_buried_under_their_ids_and_do_not_stop_anything(shard):
    shard.publish(b"not JSON", signal("a"), close("a"))
    shard.redis.xadd(shard.keys.events, {"not": "e", "at": "all"})
    shard.worker().run(until_idle=True)
    ids = [entry_id.decode() for entry_id, _ in shard.redis.xrange(shard.keys.events)]
    dead = [fields[b"e"].decode() for _, fields in shard.redis.xrange(shard.keys.dead)]
    assert len(dead) == 2
    assert ids[0] in dead[0]
    assert ids[3] in dead[1]
    assert len(shard.outcomes()) == 1


def test_input_is_trimmed_past_its_bound_but_never_beyond_the_oldest_snapshot(shard):
    shard.config = shard.config.model_copy(
        update={"snapshots": shard.config.snapshots.model_copy(update={"retain": 100})}
    )
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    oldest = min(info.manifest.position for info in shard.store.list())
    assert shard.redis.xlen(shard.keys.events) < len(EVENTS)
    assert shard.transport.first_id() <= oldest
    assert shard.transport.reaches_back_to(oldest)


@pytest.fixture(autouse=True)
def _stderr_logs_to_stdout(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """structlog's default printer binds the stream that is current when it first speaks."""
    yield
