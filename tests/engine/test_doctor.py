"""The doctor: each thing it looks at, in health and in each way it can be wrong."""

import time
from pathlib import Path

import pytest
import redis

from engine.bootstrap import new_core, snapshot_key_of, store_of
from engine.cli.options import settings
from engine.config import Config
from engine.core import Core
from engine.doctor import Diagnosis, examine, snapshots
from engine.fitting import InlineFitter
from engine.sending import signed
from engine.snapshotting import TAPE, take, to_bytes
from engine.view import view, write_view
from streams.connection import Connection, connect
from streams.events import dead, encode
from streams.keys import Keys
from streams.transport import GROUP, Commit, Lease, RedisTransport
from tests.engine.conftest import Command
from tests.engine.histories import entries, run, signal

KEYS = Keys()


def diagnoses(address: str) -> dict[str, Diagnosis]:
    return {found.check: found for found in examine(settings(None, address))}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(redis_server: str) -> "redis.Redis":
    """The real server, empty, with its settings put back afterwards."""
    client = redis.Redis.from_url(redis_server, decode_responses=True)
    client.flushall()
    names = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")
    before = {name: client.config_get(name)[name] for name in names}
    yield client
    for name, value in before.items():
        client.config_set(name, value)
    client.close()


def work(connection: Connection, entries: int) -> Lease:
    """Do what a worker does to the streams: take the lease, commit `entries` entries."""
    transport = RedisTransport(connection, KEYS)
    lease = transport.acquire("host:1:abc", 60_000)
    read = transport.read("0-0", entries)
    transport.commit(lease, Commit("0-0", read[-1].id, entries, [], ""))
    return lease


def publish(connection: Connection, count: int) -> None:
    for i in range(count):
        connection.redis.xadd(KEYS.events, {"e": encode(signal(f"s{i}"))})


def test_a_healthy_server_has_no_problem(
    server: "redis.Redis", redis_server: str, closeloop: Command
) -> None:
    server.config_set("appendonly", "yes")
    ran = closeloop("doctor", "--address", redis_server)
    assert ran.status == 0
    assert "problem" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    as_json = closeloop("doctor", "--address", redis_server, "--json")
    assert {found["level"] for found in as_json.json} == {"ok"}
    assert set(as_json.json[0]) == {"level", "check", "seen", "mend"}


def test_every_kind_of_server_is_examined(address: str) -> None:
    found = diagnoses(address)
    assert {"connection", "server", "streams", "lag", "lease"} <= found.keys()
    assert found["connection"].level == "ok"


def test_a_server_that_is_away_is_a_problem_and_the_rest_is_still_examined(
    closeloop: Command,
) -> None:
    ran = closeloop("doctor", "--address", "redis://127.0.0.1:1", "--json")
    assert ran.status == 1
    found = {each["check"]: each for each in ran.json}
    assert found["connection"]["level"] == "problem"
    assert found["connection"]["mend"]
    assert {"snapshot folder", "libraries"} <= found.keys()


def test_everything_but_ok_comes_with_its_mend(server: "redis.Redis", redis_server: str) -> None:
    server.config_set("maxmemory-policy", "allkeys-lru")
    server.xadd(KEYS.events, {"e": "x"})
    for found in examine(settings(None, redis_server)):
        assert (found.mend is None) == (found.level == "ok"), found


@pytest.mark.parametrize(
    ("given", "level", "word"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, "ok", "every write"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "ok", "every second"),
        ({"appendonly": "yes", "appendfsync": "no"}, "warning", "kernel"),
        ({"appendonly": "no", "save": "60 1"}, "warning", "60 1"),
        ({"appendonly": "no", "save": ""}, "problem", "loses everything"),
    ],
)
def test_persistence_is_judged_by_what_a_crash_costs(
    server: "redis.Redis", redis_server: str, given: dict[str, str], level: str, word: str
) -> None:
    for name, value in given.items():
        server.config_set(name, value)
    found = diagnoses(redis_server)["persistence"]
    assert found.level == level
    assert word in found.seen


@pytest.mark.parametrize(
    ("policy", "limit", "eviction", "memory"),
    [
        ("noeviction", "0", "ok", "ok"),
        ("noeviction", "1gb", "ok", "ok"),
        ("noeviction", "1", "ok", "warning"),
        ("allkeys-lru", "0", "warning", "ok"),
        ("allkeys-lru", "1gb", "problem", "ok"),
    ],
)
def test_a_server_that_would_evict_or_is_full_is_noticed(
    server: "redis.Redis", redis_server: str, policy: str, limit: str, eviction: str, memory: str
) -> None:
    server.config_set("maxmemory-policy", policy)
    server.config_set("maxmemory", limit)
    found = diagnoses(redis_server)
    assert (found["eviction"].level, found["memory"].level) == (eviction, memory)


def test_what_may_not_be_looked_at_is_a_warning(server: "redis.Redis", redis_server: str) -> None:
    server.config_set("appendonly", "yes")
    server.acl_setuser(
        "viewer", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"],
        commands=["-config", "-time", "-evalsha"],
    )  # fmt: skip
    try:
        found = diagnoses(redis_server.replace("redis://", "redis://viewer:pw@"))
    finally:
        server.acl_deluser("viewer")
    assert "doesn't say" in found["persistence"].seen
    for check in ("clocks", "lag"):
        assert found[check].level == "warning"
        assert "not allowed to look" in found[check].seen
    assert found["lease"].level == "ok"
    assert all("pw" not in each.seen for each in found.values())


def test_a_user_who_may_hardly_do_anything_still_gets_an_answer(
    server: "redis.Redis", redis_server: str
) -> None:
    server.acl_setuser("guest", enabled=True, passwords=["+pw"], commands=["+ping"])
    try:
        found = diagnoses(redis_server.replace("redis://", "redis://guest:pw@"))
    finally:
        server.acl_deluser("guest")
    assert {each.level for each in found.values()} == {"ok", "warning"}


def test_a_replica_is_a_problem(server: "redis.Redis", redis_server: str) -> None:
    server.replicaof("127.0.0.1", "1")
    try:
        assert diagnoses(redis_server)["server"].level == "problem"
    finally:
        server.replicaof("NO", "ONE")


def test_entries_that_wait_without_a_worker_are_a_warning(
    address: str, connection: Connection
) -> None:
    publish(connection, 5)
    assert diagnoses(address)["lag"].level == "warning"
    lease = work(connection, 3)
    found = diagnoses(address)
    assert found["lag"] == Diagnosis("ok", "lag", "2 entries wait, and a worker is at it")
    assert found["checkpoint"].seen.startswith("3 entries")
    assert "host:1:abc" in found["lease"].seen
    RedisTransport(connection, KEYS).release(lease)
    found = diagnoses(address)
    assert found["lag"].level == "warning"
    assert found["lag"].seen == "2 entries wait"
    assert "closeloop run" in (found["lag"].mend or "")
    assert "free" in found["lease"].seen


def test_a_worker_far_behind_is_a_warning(
    address: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSELOOP_WORKER__BATCH", "1")
    publish(connection, 30)
    work(connection, 1)
    assert diagnoses(address)["lag"].level == "warning"


def test_a_stream_that_lost_its_tail_is_a_problem(address: str, connection: Connection) -> None:
    publish(connection, 5)
    work(connection, 5)
    connection.redis.delete(KEYS.events)
    publish_early = connection.redis.xadd(KEYS.events, {"e": "x"}, id="1-1")
    found = diagnoses(address)["checkpoint"]
    assert found.level == "problem"
    assert publish_early.decode() in found.seen


def test_a_consumer_group_that_shows_something_else_is_a_warning(
    address: str, connection: Connection
) -> None:
    publish(connection, 5)
    work(connection, 3)
    assert "consumer group" not in diagnoses(address)
    connection.redis.xgroup_setid(KEYS.events, GROUP, "0-1")
    assert "0-1" in diagnoses(address)["consumer group"].seen
    connection.redis.xgroup_destroy(KEYS.events, GROUP)
    assert "missing" in diagnoses(address)["consumer group"].seen


def test_a_lease_for_good_is_a_problem(address: str, connection: Connection) -> None:
    connection.redis.set(KEYS.lease, "somebody")
    assert diagnoses(address)["lease"].level == "problem"


def test_the_newest_dead_letter_is_named(address: str, connection: Connection) -> None:
    assert "dead letters" not in diagnoses(address)
    for reason in ("invalid", "orphan_close"):
        letter = dead(KEYS.events, "1-1", reason, "no signal came", b"x")
        connection.redis.xadd(KEYS.dead, {"e": encode(letter)})
    found = diagnoses(address)["dead letters"]
    assert found.level == "warning"
    assert found.seen == "2, the newest of them orphan_close: no signal came"


def test_an_event_from_the_future_is_a_warning(address: str, connection: Connection) -> None:
    connection.redis.xadd(KEYS.events, {"e": encode(signal("past", minutes=-60 * 24 * 365 * 10))})
    assert diagnoses(address)["event time"].level == "ok"
    connection.redis.xadd(KEYS.events, {"e": encode(signal("late", minutes=60 * 24 * 365 * 100))})
    assert diagnoses(address)["event time"].level == "warning"


def test_clocks_apart_are_a_warning(redis_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert diagnoses(redis_server)["clocks"].level == "ok"
    monkeypatch.setattr("engine.doctor.server.time", lambda: time.time() + 90)
    found = diagnoses(redis_server)["clocks"]
    assert found.level == "warning"
    assert "-90.0" in found.seen


def test_a_snapshot_folder_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "closeloop-data").write_text("a file where the folder should be")
    found = diagnoses("memory://folder")
    assert found["snapshot folder"].level == "problem"


def test_the_doctor_makes_nothing(tmp_path: Path) -> None:
    diagnoses("memory://nothing")
    assert list(tmp_path.iterdir()) == []
    with connect("memory://nothing") as connection:
        assert connection.redis.keys() == []


def test_features_that_say_nothing_are_named_as_of_the_newest_snapshot(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"core": {"drift": {"feature_reference": 40, "feature_window": 20}}}
    )
    core = new_core(config, InlineFitter())
    for n in range(100):
        features: dict[str, float | None] = {"moves": float(n), "constant": 1.0}
        features["stale"] = min(n, 70.0)
        features["missing"] = 1.0 if n < 60 else None
        run(core, entries(signal(f"s{n}", n, features=features)))
    assert _features(config, core).level == "warning"
    said = _features(config, core).seen
    assert "without a value for 20 signals or more: missing" in said
    assert "constant for 20 signals or more: constant" in said
    assert "stale for 20 signals or more: stale" in said
    assert "moves" not in said


def _features(config: Config, core: Core) -> Diagnosis:
    """What the doctor says of a snapshot of that core."""
    store = store_of(config)
    store.save(to_bytes(take(core, TAPE, None), snapshot_key_of(config)))
    found = {d.check: d for d in snapshots.recovery(config, None)}
    return found["features"]


def test_a_halted_engine_and_what_waits_for_a_person_are_warnings(
    address: str, connection: Connection
) -> None:
    key = b"a control key of a fair length"
    core = Core(Config().core, InlineFitter(), key)
    write_view(connection, KEYS, view(core, "0-0"))
    assert diagnoses(address)["safety"].level == "ok"
    change: dict[str, float | bool | str | None] = {"setting": "policy.take", "value": 0.9}
    said = [signed(key, "halt", "ann", "bad"), signed(key, "set", "ann", "bold", change)]
    run(core, entries(*said))
    write_view(connection, KEYS, view(core, "0-1"))
    found = diagnoses(address)
    assert (found["safety"].level, found["safety"].seen) == ("warning", "HALTED, by operator")
    assert found["proposal"].mend == "closeloop control approve 1 --reason WHY, or reject"
