"""Recovery takes the newest snapshot that leads to the committed state, and none that doesn't."""

from pathlib import Path

import pytest

from engine.recovery import Recovered, recover
from engine.snapshotting import take, to_bytes
from snapshots import SnapshotInfo, read, state_digest
from streams import Connection
from tests.engine.histories import history
from tests.engine.test_worker import KEY, Shard

EVENTS = history(70)


@pytest.fixture
def shard(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shard:
    """All of `EVENTS` committed, with a snapshot at their end and one in their middle."""
    monkeypatch.setattr("engine.worker.IDLE_MS", 50)
    shard = Shard(connection, tmp_path)
    config = shard.config.snapshots.model_copy(update={"every": 1_000})
    shard.config = shard.config.model_copy(update={"snapshots": config})
    half = len(EVENTS) // 2
    for part in (EVENTS[:half], EVENTS[half:]):
        shard.publish(*part)
        shard.worker().run(until_idle=True)
    return shard


def snapshots(shard: Shard) -> list[SnapshotInfo]:
    return [info for info in shard.store.list() if isinstance(info, SnapshotInfo)]


def recovered(shard: Shard) -> Recovered:
    return recover(shard.transport, shard.store, shard.new_core, 16, lambda: None)


def forge(shard: Shard, at: SnapshotInfo, state_of: SnapshotInfo) -> None:
    """Put the state of one snapshot at the position of another, signed."""
    core = shard.new_core()
    core.restore(read(state_of.path.read_bytes(), KEY).tree)
    manifest = at.manifest
    at.path.write_bytes(to_bytes(take(core, manifest.lineage, manifest.position), KEY))


def test_it_begins_at_the_newest_snapshot_and_applies_only_what_came_after(shard):
    newest, older = snapshots(shard)
    assert (recovered(shard).snapshot, recovered(shard).reapplied) == (str(newest.path), 0)
    newest.path.unlink()
    found = recovered(shard)
    assert found.snapshot == str(older.path)
    assert found.reapplied == len(EVENTS) - older.manifest.events
    assert state_digest(found.core.state()) == newest.manifest.state_digest


def test_a_signed_snapshot_of_another_state_than_its_positions_is_passed_over(shard):
    newest, older = snapshots(shard)
    forge(shard, at=newest, state_of=older)
    found = recovered(shard)
    assert "gives other decisions than were published" in str(found.passed_over[0].error)
    assert found.snapshot == str(older.path)
    assert state_digest(found.core.state()) == newest.manifest.state_digest


def test_snapshots_of_another_stream_history_are_passed_over(shard):
    shard.redis.flushall()
    shard.publish(*EVENTS)
    expected = snapshots(shard)[0].manifest.state_digest
    shard.worker(owner="two").run(until_idle=True)
    lineage = shard.transport.checkpoint().lineage
    for info in snapshots(shard):
        if info.manifest.lineage == lineage:
            info.path.unlink()
    found = recovered(shard)
    assert [
        str(passed.error).partition("it belongs to ")[2][:22] for passed in found.passed_over
    ] == ["another stream history"] * 2
    assert (found.snapshot, found.reapplied) == (None, len(EVENTS))
    assert state_digest(found.core.state()) == expected


def test_a_snapshot_ahead_of_what_is_committed_is_passed_over(shard):
    newest, older = snapshots(shard)
    core = shard.new_core()
    core.restore(read(newest.path.read_bytes(), KEY).tree)
    ahead = take(core, newest.manifest.lineage, "99999999999999-0")
    newest.path.write_bytes(to_bytes(ahead, KEY))
    found = recovered(shard)
    assert "ahead of the checkpoint" in str(found.passed_over[0].error)
    assert found.snapshot == str(older.path)


def test_what_is_not_committed_yet_is_not_applied(shard):
    newest, _ = snapshots(shard)
    shard.publish(*history(5, seed=2))
    newest.path.unlink()
    found = recovered(shard)
    assert found.position == newest.manifest.position
    assert state_digest(found.core.state()) == newest.manifest.state_digest


def test_snapshots_of_another_configuration_are_passed_over(shard):
    core = shard.config.core.model_copy(update={"seed": 7})
    shard.config = shard.config.model_copy(update={"core": core})
    found = recovered(shard)
    assert ["for another set-up: config" in str(passed.error) for passed in found.passed_over] == [
        True,
        True,
    ]
    assert (found.snapshot, found.reapplied, found.as_published) == (None, len(EVENTS), False)
