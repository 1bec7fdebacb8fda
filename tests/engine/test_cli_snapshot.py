"""`closeloop snapshots`, and what the doctor says of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.bootstrap import keys_of, new_core, snapshot_key_of, store_of
from engine.cli.options import settings
from engine.config import Config
from engine.doctor import Diagnosis, examine
from engine.fitting import InlineFitter
from engine.recovery import read_raw, recover
from engine.snapshotting import take, to_bytes
from snapshots import SnapshotInfo
from streams import Commit, Connection, Lease, RedisTransport, encode
from tests.engine.conftest import Command
from tests.engine.histories import history

SMALL = """
[core.refit]
enabled = false
[core.experts.base_rate]
kind = "base_rate"
"""


class Shard:
    """A shard as a worker left it: 60 entries, snapshots after every 20 of them."""

    def __init__(self, connection: Connection, address: str) -> None:
        self.config: Config = settings(None, address)
        self.connection = connection
        self.transport = RedisTransport(connection, keys_of(self.config))
        self.store = store_of(self.config)
        self.infos: list[SnapshotInfo] = []
        for event in history(30):
            connection.redis.xadd(keys_of(self.config).events, {"e": encode(event)})
        self.lease: Lease = self.transport.acquire("host:1:abc", 60_000)
        lineage = self.transport.checkpoint().lineage
        core = new_core(self.config, InlineFitter())
        position = "0-0"
        while entries := self.transport.read(position, 20):
            for entry in entries:
                core.apply(read_raw(entry))
            batch = Commit(position, entries[-1].id, len(entries), [], core.decisions_digest)
            self.transport.commit(self.lease, batch)
            position = entries[-1].id
            data = to_bytes(take(core, lineage, position), snapshot_key_of(self.config))
            self.infos.append(self.store.save(data))

    def leave(self) -> None:
        self.transport.release(self.lease)

    def recovers_from(self) -> str | None:
        recovered = recover(
            self.transport, self.store, lambda: new_core(self.config, InlineFitter()), 100,
            lambda: None,
        )  # fmt: skip
        return None if recovered.snapshot is None else Path(recovered.snapshot).stem

    def diagnoses(self) -> list[Diagnosis]:
        found = examine(self.config)
        return [each for each in found if each.check.startswith("snapshot")]

    def levels(self) -> dict[str, str]:
        return {found.check: found.level for found in self.diagnoses()}


@pytest.fixture
def shard(closeloop: Command, connection: Connection, address: str) -> Iterator[Shard]:
    Path("closeloop.toml").write_text(SMALL)
    yield Shard(connection, address)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_list_is_newest_first(closeloop: Command, shard: Shard) -> None:
    newest_first = [info.snapshot_id for info in reversed(shard.infos)]
    ran = closeloop("snapshots", "list", "--json")
    assert [row["id"] for row in ran.json["snapshots"]] == newest_first
    assert [row["events"] for row in ran.json["snapshots"]] == [60, 40, 20]
    table = closeloop("snapshots", "list").out
    assert max(map(len, table.splitlines())) <= 80
    assert all(name in table for name in newest_first)


def test_a_file_that_is_no_snapshot_is_listed_as_damaged(closeloop: Command, shard: Shard) -> None:
    shard.infos[0].path.write_bytes(b"nonsense")
    ran = closeloop("snapshots", "list", "--json")
    assert len(ran.json["snapshots"]) == 2
    assert ran.json["damaged"][0]["file"].endswith(shard.infos[0].path.name)
    assert "damaged" in closeloop("snapshots", "list").out


def test_show_prints_the_manifest(closeloop: Command, shard: Shard) -> None:
    info = shard.infos[1]
    ran = closeloop("snapshots", "show", info.snapshot_id, "--json")
    assert ran.json["manifest"] == info.manifest.model_dump(mode="json")
    short = closeloop("snapshots", "show", info.snapshot_id[-8:])
    assert short.status == 0
    assert info.manifest.state_digest[:40] in short.out
    assert max(map(len, short.out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["show", "verify", "restore"])
def test_a_name_that_is_no_snapshot_or_several_is_one_line(
    closeloop: Command, shard: Shard, command: str
) -> None:
    for name in ("nothing-like-it", "snapshot"):
        ran = closeloop("snapshots", command, name)
        assert ran.status == 6
        assert ran.err.count("\n") == 1
        assert "closeloop snapshots list" in ran.err


def test_verify_proves_all_or_one(closeloop: Command, shard: Shard) -> None:
    ran = closeloop("snapshots", "verify")
    assert ran.status == 0
    assert ran.out.count("whole") == 3
    one = closeloop("snapshots", "verify", shard.infos[0].snapshot_id, "--json")
    assert one.json == [{"id": shard.infos[0].snapshot_id, "ok": True, "verdict": "whole"}]


@pytest.mark.parametrize("harm", [flip, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_verify_fails_on_damage(closeloop: Command, shard: Shard, harm: object) -> None:
    assert callable(harm)
    harm(shard.infos[1].path)
    ran = closeloop("snapshots", "verify", "--json")
    assert ran.status == 1
    ok = {row["id"]: row["ok"] for row in ran.json}
    assert ok == {info.snapshot_id: info is not shard.infos[1] for info in shard.infos}
    assert closeloop("snapshots", "verify", shard.infos[2].snapshot_id).status == 0


def test_verify_fails_on_another_key_and_not_on_another_set_up(
    closeloop: Command, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSELOOP_CORE__SEED", "7")
    ran = closeloop("snapshots", "verify")
    assert ran.status == 0
    assert "another set-up" in ran.out
    monkeypatch.setenv("CLOSELOOP_SNAPSHOTS__KEY", "x" * 32)
    ran = closeloop("snapshots", "verify")
    assert ran.status == 1
    assert "foreign" in ran.out
    assert "x" * 32 not in ran.out


def test_a_state_that_is_not_the_one_named_is_found_out(
    closeloop: Command, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as lying:
        lying.setattr("snapshots.format.state_digest", lambda state: "0" * 64)
        core = new_core(shard.config, InlineFitter())
        checkpoint = shard.transport.checkpoint()
        taken = take(core, checkpoint.lineage, checkpoint.position)
        info = shard.store.save(to_bytes(taken, snapshot_key_of(shard.config)))
    assert closeloop("snapshots", "verify", info.snapshot_id).status == 1
    for honest in shard.infos:
        honest.path.unlink()
    assert shard.levels()["snapshots"] == "problem"


def test_restore_makes_an_older_one_the_next_start(
    closeloop: Command, shard: Shard, address: str
) -> None:
    first, second, third = (info.snapshot_id for info in shard.infos)
    shard.leave()
    assert shard.recovers_from() == third
    ran = closeloop("snapshots", "restore", first, "--address", address)
    assert ran.status == 0
    assert first in ran.out
    assert shard.recovers_from() == first
    aside = sorted((shard.store.directory / "set-aside").iterdir())
    assert [path.stem for path in aside] == [second, third]
    aside[1].rename(shard.store.directory / aside[1].name)
    assert shard.recovers_from() == third


def test_restore_is_refused_while_a_worker_runs(
    closeloop: Command, shard: Shard, address: str
) -> None:
    restore = ("snapshots", "restore", shard.infos[0].snapshot_id, "--address", address)
    ran = closeloop(*restore)
    assert ran.status == 5
    assert "--force" in ran.err
    assert len(shard.store.list()) == 3
    assert closeloop(*restore, "--force").status == 0
    assert len(shard.store.list()) == 1


def test_restore_is_refused_when_the_stream_does_not_reach_back(
    closeloop: Command, shard: Shard, address: str
) -> None:
    position = shard.infos[1].manifest.position
    assert position is not None
    shard.transport.trim(shard.lease, position)
    shard.leave()
    ran = closeloop("snapshots", "restore", shard.infos[0].snapshot_id, "--address", address)
    assert ran.status == 6
    assert "reaches back" in ran.err
    assert len(shard.store.list()) == 3


def test_restore_is_refused_for_a_damaged_one(
    closeloop: Command, shard: Shard, address: str
) -> None:
    shard.leave()
    flip(shard.infos[0].path)
    ran = closeloop("snapshots", "restore", shard.infos[0].snapshot_id, "--address", address)
    assert (ran.status, len(shard.store.list())) == (6, 3)


def test_the_doctor_finds_healthy_snapshots_healthy(shard: Shard) -> None:
    assert set(shard.levels().values()) == {"ok"}
    assert "60 events" in next(f.seen for f in shard.diagnoses() if f.check == "snapshots")


def test_the_doctor_warns_when_the_newest_is_damaged_and_names_the_one_that_will_do(
    shard: Shard,
) -> None:
    flip(shard.infos[2].path)
    assert shard.levels()["snapshot"] == "warning"
    sound = next(found for found in shard.diagnoses() if found.check == "snapshots")
    assert sound.level == "ok"
    assert "40 events" in sound.seen


def test_the_doctor_warns_when_the_state_must_be_rebuilt(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSELOOP_CORE__SEED", "7")
    shard.config = settings(None, shard.config.stream.address)
    assert shard.levels()["snapshots"] == "warning"


def test_the_doctor_sees_a_problem_when_nothing_can_be_recovered(shard: Shard) -> None:
    position = shard.infos[2].manifest.position
    assert position is not None
    shard.transport.trim(shard.lease, position)
    for info in shard.infos:
        flip(info.path)
    assert shard.levels()["snapshots"] == "problem"


def test_the_doctor_sees_a_problem_in_a_key_that_others_can_read_or_that_is_gone(
    shard: Shard,
) -> None:
    key = shard.config.snapshots.directory / "snapshots.key"
    key.chmod(0o644)
    assert shard.levels()["snapshot key"] == "problem"
    key.unlink()
    assert shard.levels()["snapshot key"] == "problem"
    assert not key.exists()
