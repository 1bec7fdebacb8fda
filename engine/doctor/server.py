"""Checks of the server itself: version and role, persistence, eviction and memory, its clock."""

from collections.abc import Iterator
from time import time
from typing import cast

from engine.doctor.diagnosis import Diagnosis
from streams.connection import Connection
from streams.errors import ServerError

_FULL = 0.8
_SKEW_S = 1.0

_Info = dict[str, str | int | float]


def _info(connection: Connection, section: str) -> _Info:
    return cast(_Info, connection.retrying(lambda: connection.redis.info(section)))


def _setting(connection: Connection, name: str) -> str | None:
    """A setting of the server; None when it doesn't say, as managed ones don't."""
    try:
        found = connection.retrying(lambda: connection.redis.config_get(name))
    except ServerError:
        return None
    # Keys and values are text or bytes, as the address asks for.
    values = [value.decode() if isinstance(value, bytes) else value for value in found.values()]
    return cast(str, values[0]) if values else None


def version(connection: Connection) -> Iterator[Diagnosis]:
    """Which server, and whether it takes writes. `connect` has refused those that are too old."""
    server = _info(connection, "server")
    if "valkey_version" in server:
        name = f"Valkey {server['valkey_version']}"
    else:
        name = f"Redis {server['redis_version']}"
    if _info(connection, "replication").get("role") == "slave":
        mend = "give the primary's address: a replica takes no writes"
        yield Diagnosis("problem", "server", f"{name}, a replica", mend)
    else:
        yield Diagnosis("ok", "server", name)


def persistence(connection: Connection) -> Iterator[Diagnosis]:
    """What a crash of the server would cost."""
    check = "persistence"
    info = _info(connection, "persistence")
    for field, what in (("aof_last_write_status", "AOF write"), ("rdb_last_bgsave_status", "save")):
        if info.get(field, "ok") != "ok":
            mend = "free space on the server's disk or mend its folder; its log says why"
            yield Diagnosis("problem", check, f"the last {what} failed", mend)
    if info["aof_enabled"]:
        policy = _setting(connection, "appendfsync")
        if policy == "no":
            mend = "CONFIG SET appendfsync everysec, or always, and CONFIG REWRITE"
            yield Diagnosis("warning", check, "AOF, synced when the kernel likes", mend)
        else:
            costs = {
                "always": "AOF, synced at every write: a crash costs nothing",
                "everysec": "AOF, synced every second: a crash of the machine costs a second",
            }
            unknown = "AOF; the server doesn't say how often it is synced"
            yield Diagnosis("ok", check, costs.get(policy or "", unknown))
        return
    mend = "CONFIG SET appendonly yes, and CONFIG REWRITE"
    saves = _setting(connection, "save")
    if saves == "":
        yield Diagnosis("problem", check, "none: a restart of the server loses everything", mend)
        return
    unsaved = f"{info['rdb_changes_since_last_save']:,} changes now"
    seen = (
        f"RDB only (save {saves}): a crash loses what came since the last one, {unsaved}"
        if saves
        else "no AOF; the server doesn't say whether it saves now and then"
    )
    yield Diagnosis("warning", check, seen, mend)


def memory(connection: Connection) -> Iterator[Diagnosis]:
    """Whether the server would rather forget than refuse, and how soon it must choose."""
    info = _info(connection, "memory")
    limit, used = int(info.get("maxmemory", 0)), int(info["used_memory"])
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        yield Diagnosis("ok", "eviction", policy)
    else:
        mend = "CONFIG SET maxmemory-policy noeviction, and CONFIG REWRITE"
        seen = f"{policy}: at its limit the server would drop streams or the checkpoint"
        yield Diagnosis("problem" if limit else "warning", "eviction", seen, mend)
    if not limit:
        yield Diagnosis("ok", "memory", f"{_megabytes(used)} used, no limit set")
        return
    share = used / limit
    seen = f"{_megabytes(used)} used of {_megabytes(limit)} ({share:.0%})"
    if share < _FULL:
        yield Diagnosis("ok", "memory", seen)
    else:
        mend = "raise maxmemory, or lower stream.max_outputs: a full server refuses writes"
        yield Diagnosis("warning", "memory", seen, mend)


def clock(connection: Connection) -> Iterator[Diagnosis]:
    """How far this machine's clock and the server's, which stamps the stream IDs, are apart."""
    before = time()
    seconds, micros = connection.retrying(connection.redis.time)
    after = time()
    skew = seconds + micros / 1e6 - (before + after) / 2
    # What the round trip took can't be told from skew.
    seen = f"the server is {skew:+.3f} s from here (± {(after - before) / 2:.3f})"
    if abs(skew) - (after - before) / 2 <= _SKEW_S:
        yield Diagnosis("ok", "clocks", seen)
    else:
        yield Diagnosis("warning", "clocks", seen, "let NTP or chrony set the clocks of both")


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
