"""Least privilege: each documented role does its work, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import redis

from engine.bootstrap import keys_of, new_worker
from engine.config import Config, SnapshotConfig, StreamConfig
from engine.doctor import examine
from engine.metrics import Metrics
from engine.status import status
from streams import Client, EventError, Keys, RedisTransport, connect, encode
from tests.engine.histories import QUICK, close, signal
from tests.security.roles import DOCUMENT, documented, loaded

KEYS = Keys()
ADDRESSES = dict[str, str]


@pytest.fixture(scope="module")
def roles(redis_server: str) -> Iterator[ADDRESSES]:
    with loaded(redis_server) as addresses:
        yield addresses


@pytest.fixture(autouse=True)
def empty(redis_server: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server) as admin:
        admin.flushall()
        yield admin


def config(address: str, folder: Path) -> Config:
    return Config(
        stream=StreamConfig(address=address),
        snapshots=SnapshotConfig(directory=folder, every=2, retain=1),
        core=QUICK,
    )


def serve(chosen: Config) -> None:
    """A worker's whole life: recover, serve what is there, snapshot, trim, stop."""
    with (
        connect(chosen.stream.address) as connection,
        new_worker(chosen, connection, Metrics(), Event()) as worker,
    ):
        worker.run(until_idle=True)


def test_each_role_is_documented_once() -> None:
    names = [line.split()[2].removeprefix("closeloop-") for line in documented()]
    assert names == ["bot", "consumer", "worker", "viewer"]
    table = DOCUMENT.read_text()
    assert all(f"| {name} |" in table for name in names)


def test_every_role_can_do_its_work(roles: ADDRESSES, tmp_path: Path) -> None:
    chosen = config(roles["worker"], tmp_path)
    with Client(roles["bot"]) as bot:
        receipt = bot.publish(signal("a"))
        bot.publish(close("a"))
        changed = bot.publish(signal("b", features={"rsi": "high"}))
        serve(chosen)
        assert bot.decision(receipt, timeout=5).signal_id == "a"
        with pytest.raises(EventError, match="rsi"):
            bot.decision(changed, timeout=1)
        bot.publish(signal("c"))
        # A second life: it recovers from the first one's snapshot.
        serve(chosen)
    with Client(roles["consumer"]) as consumer:
        decided = consumer.decisions("0-0", timeout=0.01)
        assert [decision.signal_id for decision in decided] == ["a", "c"]
        assert len(list(consumer.outcomes("0-0", timeout=0.01))) == 1
        assert list(consumer.alerts("0-0", timeout=0.01)) == []
        assert list(consumer.decisions("$", timeout=0.01)) == []
    with connect(roles["worker"]) as connection:
        standby = RedisTransport(connection, KEYS)
        standby.announce_standby("two", 1_000)
        assert standby.has_standby()
    with connect(roles["viewer"]) as connection:
        found = status(connection, keys_of(chosen))
    assert (found["lag"], found["entries"], found["state_is_current"]) == (0, 4, True)


def test_a_viewer_sees_all_that_the_doctor_sees(roles: ADDRESSES, tmp_path: Path) -> None:
    with Client(roles["bot"]) as bot:
        bot.publish(signal("a"))
    serve(config(roles["worker"], tmp_path))
    seen = list(examine(config(roles["viewer"], tmp_path)))
    assert "connection" in {diagnosis.check for diagnosis in seen}
    assert [d for d in seen if "not allowed" in d.seen] == []


READS = {
    "events": ("XRANGE", KEYS.events, "-", "+"),
    "decisions": ("XREVRANGE", KEYS.decisions, "+", "-"),
    "outcomes": ("XREVRANGE", KEYS.outcomes, "+", "-"),
    "alerts": ("XREVRANGE", KEYS.alerts, "+", "-"),
    "dead": ("XREVRANGE", KEYS.dead, "+", "-"),
    "read events": ("XREAD", "STREAMS", KEYS.events, "0"),
    "snapshots": ("XREAD", "STREAMS", KEYS.snapshots, "0"),
    "lease": ("GET", KEYS.lease),
    "checkpoint": ("HGETALL", KEYS.checkpoint),
    "checkpoint position": ("HMGET", KEYS.checkpoint, "position"),
}
WRITES = {
    **{
        f"add to {name}": ("XADD", getattr(KEYS, name), "*", "e", "{}")
        for name in ("decisions", "outcomes", "alerts", "dead", "snapshots")
    },
    "take the lease": ("SET", KEYS.lease, "9:me"),
    "drop the lease": ("DEL", KEYS.lease),
    "move the checkpoint": ("HSET", KEYS.checkpoint, "position", "9-9"),
    "trim": ("XTRIM", KEYS.events, "MAXLEN", "0"),
    "delete an event": ("XDEL", KEYS.events, "1-1"),
    "script": ("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", KEYS.lease),
    "group": ("XGROUP", "CREATE", KEYS.events, "mine", "0"),
}
NOBODYS = {
    "flush": ("FLUSHALL",),
    "flush one": ("FLUSHDB",),
    "list keys": ("KEYS", "*"),
    "scan keys": ("SCAN", "0"),
    "set": ("CONFIG", "SET", "maxmemory", "1"),
    "get": ("CONFIG", "GET", "requirepass"),
    "users": ("ACL", "LIST"),
    "another user": ("ACL", "SETUSER", "me", "on"),
    "stop": ("SHUTDOWN", "NOSAVE"),
    "part others": ("CLIENT", "KILL", "TYPE", "normal"),
    "replicate": ("REPLICAOF", "127.0.0.1", "1"),
    "listen in": ("MONITOR",),
    "drop the input": ("DEL", KEYS.events),
    "unlink": ("UNLINK", KEYS.decisions),
    "rename": ("RENAME", KEYS.events, "mine"),
    "another shard": ("XADD", Keys(1).events, "*", "e", "{}"),
    "another program's key": ("GET", "session"),
    "publish": ("PUBLISH", "channel", "x"),
}
BOT_MAY = {"decisions", "dead"}
CONSUMER_MAY = {"decisions", "outcomes", "alerts"}
VIEWER_MAY = set(READS) - {"read events", "snapshots", "checkpoint"}
WORKER_MAY = {
    *(name for name in WRITES if name.startswith("add to")),
    "take the lease",
    "drop the lease",
    "move the checkpoint",
    "trim",
    "group",
}
FORBIDDEN = {
    "bot": (READS.keys() - BOT_MAY) | WRITES.keys(),
    "consumer": (READS.keys() - CONSUMER_MAY) | WRITES.keys() | {"add"},
    "viewer": WRITES.keys() | {"add"},
    "worker": {"delete an event", "script"},
}
ALL = {**READS, **WRITES, **NOBODYS, "add": ("XADD", KEYS.events, "*", "e", "{}")}


@pytest.mark.parametrize("role", FORBIDDEN)
def test_a_role_is_denied_all_that_is_not_its_work(
    role: str, roles: ADDRESSES, empty: redis.Redis
) -> None:
    empty.xadd(KEYS.events, {"e": encode(signal("a"))})
    with redis.Redis.from_url(roles[role]) as client:
        for name in sorted(FORBIDDEN[role] | NOBODYS.keys()):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*ALL[name])
                pytest.fail(f"a {role} may {name}")
    assert empty.xlen(KEYS.events) == 1
    assert empty.exists(KEYS.decisions, KEYS.lease, KEYS.checkpoint) == 0


@pytest.mark.parametrize("role", ["worker", "viewer"])
@pytest.mark.parametrize("denied", ["flush", "list keys", "rename", "drop the input"])
def test_a_script_can_do_no_more_than_who_runs_it(
    role: str, denied: str, roles: ADDRESSES, empty: redis.Redis
) -> None:
    empty.xadd(KEYS.events, {"e": encode(signal("a"))})
    words = ", ".join(f"'{word}'" for word in NOBODYS[denied])
    with redis.Redis.from_url(roles[role]) as client:
        script = client.script_load(f"return redis.call({words})")
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
            client.evalsha(str(script), 0)
    assert empty.xlen(KEYS.events) == 1


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("bot", BOT_MAY), ("consumer", CONSUMER_MAY), ("viewer", VIEWER_MAY), ("worker", WORKER_MAY)],
)
def test_what_a_role_is_not_denied_it_may(role: str, allowed: set[str], roles: ADDRESSES) -> None:
    """Else the test above would prove nothing: a user who may do nothing passes it."""
    with redis.Redis.from_url(roles[role]) as client:
        client.ping()
        for name in sorted(allowed):
            try:
                client.execute_command(*ALL[name])
            except redis.exceptions.NoPermissionError:
                pytest.fail(f"a {role} may not {name}")
            except redis.exceptions.ResponseError as error:
                assert name == "group", error  # there is no stream yet
