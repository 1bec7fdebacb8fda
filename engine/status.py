"""What a shard's streams say about its worker, read from outside."""

from functools import partial
from typing import Any

from engine.view import NoView, read_view
from streams import Connection, Keys, RedisTransport, SnapshotNotice
from streams.events import decode_output

STREAMS = ("events", "decisions", "outcomes", "alerts", "models", "snapshots", "dead")


def status(connection: Connection, keys: Keys) -> dict[str, object]:
    """Where the shard stands.

    `decisions_digest` is that of the last commit. `state_digest` is that of the newest snapshot;
    `state_is_current` tells whether it was taken at the checkpoint, as after every orderly stop.
    """
    transport = RedisTransport(connection, keys)
    checkpoint = transport.checkpoint()
    redis = connection.redis
    lease: Any = connection.retrying(lambda: redis.get(keys.lease))
    newest: Any = connection.retrying(lambda: redis.xrevrange(keys.snapshots, count=1))
    notice = decode_output(SnapshotNotice, newest[0][1][b"e"]) if newest else None
    lengths = {
        name: connection.retrying(partial(redis.xlen, getattr(keys, name))) for name in STREAMS
    }
    try:
        seen = read_view(connection, keys)
    except NoView:
        seen = {}
    safety, rollout = seen.get("safety", {}), seen.get("rollout", {})
    epoch, _, owner = lease.decode().partition(":") if lease else ("", "", "")
    return {
        "address": connection.address,
        "shard": keys.shard,
        "worker": owner or None,
        "epoch": int(epoch) if epoch else None,
        "position": checkpoint.position,
        "entries": checkpoint.entries,
        "lag": transport.lag(),
        "lineage": checkpoint.lineage or None,
        "decisions_digest": checkpoint.decisions_digest or None,
        "state_digest": notice.state_digest if notice else None,
        "state_is_current": notice is not None and notice.position == checkpoint.position,
        "snapshot": notice.snapshot_id if notice else None,
        "snapshot_position": notice.position if notice else None,
        # As its worker said last.
        "safety": safety.get("state"),
        "firing": list(safety.get("firing", ())),
        "mode": rollout.get("mode"),
        "model_percent": rollout.get("percent"),
        "champion": seen.get("champion"),
        "proposals": len(seen.get("proposals", ())),
        "revision": seen.get("revision"),
        "streams": lengths,
    }
