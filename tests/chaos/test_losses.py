"""What the worker does about a server that contradicts it, step by step and in one process."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from snapshots import SnapshotInfo, state_digest
from streams import Alert, ConnectionLost, Diverged, connect
from streams.events import decode_output
from tests.engine.histories import entries, history, run
from tests.engine.test_worker import Shard

EVENTS = history(120)
QUESTIONS = (
    "acquire", "renew", "announce_standby", "has_standby", "checkpoint", "read", "commit", "notify",
    "length", "trim",
)  # fmt: skip
"""All that a worker asks of a server that loses nothing."""


@pytest.fixture
def shard(tmp_path: Path, redis_server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.worker.IDLE_MS", 100)
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    with connect(redis_server) as connection:
        yield Shard(connection, tmp_path)


def alerts(shard: Shard, code: str) -> list[Alert]:
    found = [
        decode_output(Alert, fields[b"e"]) for _, fields in shard.redis.xrange(shard.keys.alerts)
    ]
    return [alert for alert in found if alert.code == code]


def go_back(connection: redis.Redis, dumps: dict[bytes, bytes]) -> None:
    """Make the server what it was when `dumps` were made."""
    connection.flushall()
    for key, dump in dumps.items():
        connection.restore(key, 0, dump)


def dumped(shard: Shard) -> dict[bytes, bytes]:
    return {key: shard.redis.dump(key) for key in shard.redis.scan_iter() if b"lease" not in key}


def test_snapshots_of_what_the_server_lost_are_set_aside_and_the_loss_is_named(shard):
    shard.publish(*EVENTS[:100])
    shard.worker().run(until_idle=True)
    survived = shard.transport.last_id()
    dumps = dumped(shard)
    shard.publish(*EVENTS[100:160])
    shard.worker().run(until_idle=True)
    lost = shard.notice().position
    go_back(shard.redis, dumps)

    shard.publish(*EVENTS[100:])
    worker = shard.worker(owner="two")
    worker.run(until_idle=True)

    (alert,) = alerts(shard, "stream_lost_its_tail")
    assert alert.subject == survived
    assert lost in alert.message
    assert lost not in [info.manifest.position for info in shard.store.list()]
    assert list(shard.store.directory.glob("*.aside"))
    # Nobody reports it again.
    shard.worker(owner="three").run(until_idle=True)
    assert len(alerts(shard, "stream_lost_its_tail")) == 1


class Crash(BaseException):
    """A death without a farewell."""


@pytest.mark.parametrize("how", ["the answer was lost", "died before it put snapshots aside"])
def test_a_loss_is_reported_once_though_its_reporter_fails(shard, how, monkeypatch):
    shard.publish(*EVENTS[:100])
    shard.worker().run(until_idle=True)
    dumps = dumped(shard)
    shard.publish(*EVENTS[100:160])
    shard.worker().run(until_idle=True)
    go_back(shard.redis, dumps)
    worker = shard.worker(owner="two")
    report, reports = worker._transport.report_loss, []

    def answer_lost(*arguments: object) -> None:
        report(*arguments)
        reports.append(arguments)
        if len(reports) == 1:
            raise ConnectionLost("the wire was cut")

    def dies(*_: object) -> None:
        raise Crash

    monkeypatch.setattr("engine.worker.RETRY_SECONDS", 0.0)
    if how == "the answer was lost":
        monkeypatch.setattr(worker._transport, "report_loss", answer_lost)
        worker.run(until_idle=True)
        assert len(reports) == 2
    else:
        monkeypatch.setattr(worker._snapshotter, "set_aside", dies)
        monkeypatch.setattr(worker._transport, "release", lambda lease: None)
        with pytest.raises(Crash):
            worker.run(until_idle=True)
        shard.redis.delete(shard.keys.lease)
        shard.worker(owner="three").run(until_idle=True)
    assert len(alerts(shard, "stream_lost_its_tail")) == 1


def test_each_loss_is_reported_even_one_that_goes_back_to_the_same_place(shard):
    shard.publish(*EVENTS[:100])
    shard.worker().run(until_idle=True)
    dumps = dumped(shard)
    for owner in ("two", "three"):
        shard.publish(*EVENTS[100:160])
        shard.worker(owner=owner).run(until_idle=True)
        go_back(shard.redis, dumps)
        shard.worker(owner=f"after {owner}").run(until_idle=True)
        assert len(alerts(shard, "stream_lost_its_tail")) == 1


def test_a_loss_is_found_out_while_nothing_comes(shard, monkeypatch):
    monkeypatch.setattr("engine.worker.IDLE_MS", 1_000)
    shard.publish(*EVENTS[:60])
    shard.worker().run(until_idle=True)
    dumps = dumped(shard)
    shard.publish(*EVENTS[60:80])
    # It renews three times before it is idle.
    shard.config = shard.config.model_copy(
        update={"worker": shard.config.worker.model_copy(update={"lease_ms": 900})}
    )
    worker = shard.worker()
    renew = worker._transport.renew

    def lose_once(*arguments: str) -> None:
        if dumps:
            epoch = shard.redis.hmget(shard.keys.checkpoint, "epoch", "owner")
            go_back(shard.redis, dumps)
            # The last the server heard of the lease is kept: only the commits after it are lost.
            shard.redis.hset(
                shard.keys.checkpoint, mapping=dict(zip(("epoch", "owner"), epoch, strict=True))
            )
            dumps.clear()
        renew(*arguments)

    worker._transport.renew = lose_once
    worker.run(until_idle=True)
    assert len(alerts(shard, "stream_lost_its_tail")) == 1


def test_keys_that_contradict_each_other_stop_the_worker_instead_of_turning_it_in_circles(shard):
    shard.publish(*EVENTS[:40])
    shard.worker().run(until_idle=True)
    shard.redis.delete(shard.keys.checkpoint)
    with pytest.raises(Diverged, match="decisions"):
        shard.worker(owner="two").run(until_idle=True)


def test_a_standby_interrupted_half_way_applies_nothing_twice(shard, monkeypatch):
    shard.publish(*EVENTS[:40])
    leader = shard.worker()
    leader.run(until_idle=True)
    standby = shard.worker(owner="two")
    standby._recover(None)
    shard.publish(*EVENTS[40:])
    shard.worker(owner="three").run(until_idle=True)

    read = standby._transport.read
    reads = []

    def lost_at_the_third(*arguments: object) -> object:
        reads.append(arguments)
        if len(reads) == 3:
            raise ConnectionLost("the wire was cut")
        return read(*arguments)

    monkeypatch.setattr(standby._transport, "read", lost_at_the_third)
    with pytest.raises(ConnectionLost):
        standby._catch_up()
    assert len(reads) == 3
    if not standby._catch_up():
        standby._recover(None)
    assert state_digest(standby.core.state()) == shard.notice().state_digest


def test_a_standby_whose_state_has_gone_astray_rebuilds_it_before_it_takes_over(shard):
    shard.publish(*EVENTS[:60])
    shard.worker().run(until_idle=True)
    standby = shard.worker(owner="two")
    standby._recover(None)
    standby.core.model.mixture.reset()
    shard.publish(*EVENTS[60:180])
    shard.worker(owner="three").run(until_idle=True)
    shard.publish(*EVENTS[180:])
    standby.run(until_idle=True, standby=True)
    core = shard.new_core()
    run(core, entries(*EVENTS))
    assert state_digest(standby.core.state()) == state_digest(core.state())
    assert shard.notice().decisions_digest == core.decisions_digest


@pytest.mark.parametrize("standby", [False, True])
def test_whatever_is_asked_of_a_server_that_is_lost_is_asked_again(shard, standby, monkeypatch):
    shard.config = shard.config.model_copy(
        update={
            "snapshots": shard.config.snapshots.model_copy(update={"retain": 10}),
            # It renews once before it is idle.
            "worker": shard.config.worker.model_copy(update={"lease_ms": 150}),
        }
    )
    # A snapshot from before, so that the next one has something to trim.
    shard.publish(*EVENTS[:120])
    shard.worker(owner="before").run(until_idle=True)
    shard.publish(*EVENTS[120:])
    worker = shard.worker()
    core = shard.new_core()
    run(core, entries(*EVENTS))
    lost = set()

    def lost_at_first(name: str, ask: Callable[..., object]) -> Callable[..., object]:
        def asked(*arguments: object) -> object:
            if name not in lost:
                lost.add(name)
                raise ConnectionLost("the wire was cut")
            return ask(*arguments)

        return asked

    for name in QUESTIONS:
        monkeypatch.setattr(
            worker._transport, name, lost_at_first(name, getattr(worker._transport, name))
        )
    monkeypatch.setattr("engine.worker.RETRY_SECONDS", 0.0)
    worker.run(until_idle=True, standby=standby)
    assert lost == {name for name in QUESTIONS if standby or name != "announce_standby"}
    assert state_digest(worker.core.state()) == state_digest(core.state())
    assert shard.notice().decisions_digest == core.decisions_digest
    assert len(shard.decisions()) == 120


def test_a_flushed_servers_snapshots_do_not_push_out_those_of_the_history_before(shard):
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    before = {info.path for info in shard.store.list() if isinstance(info, SnapshotInfo)}
    shard.redis.flushall()
    shard.publish(*EVENTS)
    shard.worker(owner="two").run(until_idle=True)
    assert before <= {info.path for info in shard.store.list()}


def test_a_single_snapshot_may_be_damaged_and_nothing_is_lost(shard):
    shard.config = shard.config.model_copy(
        update={
            "snapshots": shard.config.snapshots.model_copy(update={"retain": 10, "every": 1_000})
        }
    )
    shard.publish(*EVENTS)
    shard.worker().run(until_idle=True)
    (only,) = shard.store.list()
    only.path.write_bytes(only.path.read_bytes()[:-1])
    shard.worker(owner="two").run(until_idle=True)
    assert len(shard.decisions()) == 120


def test_a_folder_that_vanishes_between_two_steps_of_a_snapshot_stops_nothing(shard):
    shard.config = shard.config.model_copy(
        update={"snapshots": shard.config.snapshots.model_copy(update={"retain": 10})}
    )
    shard.publish(*EVENTS)
    worker = shard.worker()
    notify = worker._transport.notify

    def gone_meanwhile(*arguments: object) -> None:
        for path in shard.store.directory.iterdir():
            path.unlink()
        notify(*arguments)

    worker._transport.notify = gone_meanwhile
    worker.run(until_idle=True)
    assert len(shard.decisions()) == 120
