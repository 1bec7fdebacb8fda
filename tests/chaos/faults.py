"""The faults: each takes the scene, makes one thing go wrong, and lets the world mend it.

A fault that leaves the worker alive holds it to having got over it; after one that ends it the
next to come is held to that. What must be true in between is required in the scene's verdict.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import redis

from streams import START, Keys, order
from tests.chaos import snapshot_faults
from tests.chaos.boundaries import BOUNDARIES, Boundary
from tests.chaos.processes import Stuck, Worker, wait_until
from tests.chaos.scene import EVERY, LEASE_S, Scene

Inject = Callable[[Scene], None]


class Missed(AssertionError):
    """The fault couldn't be brought about."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Parameters
    ----------
    group, name
        What goes wrong.
    inject
        Makes it so.
    weight
        How often it is drawn, against the others.
    at_most
        How often it may be drawn in one run.
    """

    group: str
    name: str
    inject: Inject
    weight: float = 1.0
    at_most: int | None = None


# The worker


def pause(scene: Scene, least: float, most: float) -> None:
    """Let a random while pass: the instant of a fault is to be any."""
    sleep(scene.random.uniform(least, most))


def killed(scene: Scene) -> None:
    worker = scene.running()
    scene.flow(40)
    pause(scene, 0.0, 0.1)
    worker.kill()


def killed_while_recovering(scene: Scene) -> None:
    scene.running().kill()
    scene.flow(20)
    worker = scene.start()
    pause(scene, 0.02, LEASE_S + 0.4)
    worker.kill()
    scene.worker = None


def stopped_past_its_lease(scene: Scene) -> None:
    worker = scene.running()
    scene.flow(30)
    pause(scene, 0.0, 0.05)
    worker.send(signal.SIGSTOP)
    sleep(LEASE_S + 0.2)
    worker.send(signal.SIGCONT)
    scene.settle()


def terminated(scene: Scene) -> None:
    scene.running()
    scene.flow(40)
    pause(scene, 0.0, 0.1)
    scene.end_worker()


def taken_over(scene: Scene, skew_s: float = 0.0) -> None:
    """Another worker takes over from a paused one, which then wakes up and must not publish."""
    first = scene.running()
    second = scene.start(skew_s=skew_s)
    scene.until(
        lambda: scene.said(second, "waiting_for_the_lease") or not first.alive,
        "a second worker waits",
        second,
    )
    scene.flow(30)
    pause(scene, 0.0, 0.05)
    first.send(signal.SIGSTOP)
    scene.worker = second
    scene.until(lambda: scene.recovered(second), "the second took over", second)
    scene.flow(20)
    first.send(signal.SIGCONT)
    scene.settle()
    status = first.gone("the first has noticed that its lease is lost")
    scene.verdict.require(status == 5, "a paused worker went on", f"it ended with {status}")


def taken_over_with_clocks_apart(scene: Scene) -> None:
    taken_over(scene, scene.random.choice([-420.0, 420.0]))


def fitter_killed(scene: Scene) -> None:
    """The process that fits dies; the worker fits by itself."""
    worker = scene.running()
    worker.kill_children()
    scene.flow(4 * 40)
    scene.settle()


def at_boundary(boundary: Boundary) -> Inject:
    def inject(scene: Scene) -> None:
        for _ in range(2):
            scene.end_worker()
            nth = scene.random.randint(1, 3) if boundary.group == "commit" else 1
            worker = scene.start(die_at=boundary.name, nth=nth)
            if lead_to_death(scene, worker, boundary.leaving) == -signal.SIGKILL:
                return
        raise Missed(f"it ended with {worker.status}:{scene.tail(worker)}")

    return inject


def lead_to_death(scene: Scene, worker: Worker, leaving: bool) -> int:
    """Let events flow until `worker` has died, at the latest when it is told to end."""
    for _ in range(1 if leaving else 10):
        scene.flow(EVERY)
        scene.until(lambda: not worker.alive or scene.caught_up(), "it dies or catches up")
        if not worker.alive:
            break
    scene.until(lambda: not worker.alive or scene.recovered(worker), "it dies or recovers")
    worker.send(signal.SIGTERM)
    return worker.gone()


# Redis


def server_killed(appendfsync: str) -> Inject:
    """With `everysec` the server may lose what it had acknowledged, even committed decisions."""

    def inject(scene: Scene) -> None:
        scene.running()
        scene.client.config_set("appendfsync", appendfsync)
        reports = scene.last_alert()
        scene.flow(40)
        pause(scene, 0.0, 0.1)
        scene.server.kill()
        scene.bot.pause()
        scene.proxy.become("cut")
        pause(scene, 0.0, 0.3)
        scene.server.start(appendfsync)
        lost = scene.record.lose()
        scene.lost += len(lost)
        scene.verdict.require(
            not lost or appendfsync != "always", "lost with appendfsync always", str(lost)
        )
        scene.proxy.become("open")
        scene.bot.resume(scene.first_lost(lost))
        scene.settle()
        there = {"0-0"} | {raw.id for raw in scene.record.entries}
        reported = scene.reported_since(reports)
        allowed = 0 if appendfsync == "always" else 1
        scene.verdict.require(
            set(reported) <= there and len(reported) <= allowed,
            "losses not reported as they are",
            str(reported),
        )

    return inject


@contextmanager
def losing(scene: Scene, worker_alive: bool = True, die_at: str | None = None) -> Iterator[None]:
    """Within, the server loses its tail; after, the loss is as it was reported, and made good.

    With `die_at` the first worker that finds out about it dies there.
    """
    scene.bot.pause()
    scene.poll()
    reports = scene.last_alert()
    before = scene.record.checkpoint()
    scene.proxy.become("cut")
    yield
    lost = scene.record.lose()
    scene.lost += len(lost)
    left = scene.record.checkpoint()
    known = [info.manifest.position or "" for info in scene.snapshots()]
    known = [before] if worker_alive else known
    known = [position for position in known if order(position) > order(left)]
    scene.proxy.become("open")
    if die_at is not None:
        first = scene.start(die_at=die_at)
        if first.gone("it dies where it was told to") != -signal.SIGKILL:
            raise Missed(f"it ended with {first.status}:{scene.tail(first)}")
    scene.bot.resume(scene.first_lost(lost))
    scene.settle()
    scene.require_report(reports, max(known, key=order) if known else None)


def older_file(scene: Scene) -> None:
    scene.settle()
    mark = scene.server.log_size()
    scene.flow(scene.random.randint(10, 60))
    scene.settle()
    with losing(scene):
        scene.server.kill()
        scene.server.cut_log(scene.random.randint(mark, scene.server.log_size()))
        scene.server.start()


def older_file_and_worker_killed(scene: Scene) -> None:
    scene.settle()
    mark = scene.server.log_size()
    scene.flow(scene.random.randint(EVERY, 2 * EVERY))
    scene.settle()
    scene.running().kill()
    with losing(scene, worker_alive=False):
        scene.server.kill()
        scene.server.cut_log(scene.random.randint(mark, scene.server.log_size()))
        scene.server.start()


def older_file_and_death(boundary: Boundary) -> Inject:
    """The worker that finds out what was lost dies while it reports that."""

    def inject(scene: Scene) -> None:
        scene.settle()
        mark, there = scene.server.log_size(), order(scene.record.checkpoint())

        def beyond() -> bool:
            return any(order(info.manifest.position or START) > there for info in scene.snapshots())

        worker = scene.running()
        flow_until(scene, worker, beyond)
        worker.kill()
        with losing(scene, worker_alive=False, die_at=boundary.name):
            scene.server.kill()
            scene.server.cut_log(mark)
            scene.server.start()

    return inject


def replica_promoted(scene: Scene) -> None:
    """The primary dies after its replica has been promoted and has missed some writes."""
    scene.settle()
    replica, primary = scene.new_server(), scene.server
    replica.start()
    replica.client.replicaof("127.0.0.1", primary.port)

    def in_sync() -> bool:
        info = replica.client.info("replication")
        mine = primary.client.info("replication")["master_repl_offset"]
        return info["master_link_status"] == "up" and info["slave_repl_offset"] == mine

    wait_until(in_sync, "the replica is in sync")
    replica.client.replicaof("NO", "ONE")
    scene.flow(scene.random.randint(10, 60))
    scene.settle()
    with losing(scene):
        primary.close()
        scene.server = replica
        scene.proxy.target = replica.port
        scene.record.follow(replica.port)


def flushed(scene: Scene) -> None:
    """All is gone. What came before is judged first; the bot publishes its open trades again."""
    scene.judge()
    scene.settle()
    with losing(scene):
        scene.client.flushall()
        scene.record.entries = []
        again = scene.open_signals()
        scene.lost += scene.bot.cursor
    scene.bot.resume(again=again)
    scene.settle()


def group_deleted(scene: Scene) -> None:
    scene.flow(20)
    scene.settle()
    scene.client.xgroup_destroy(Keys().events, "closeloop")
    scene.flow(20)
    scene.settle()
    groups = [group["name"] for group in scene.client.xinfo_groups(Keys().events)]
    scene.verdict.require(groups == [b"closeloop"], "the group isn't back", str(groups))


def out_of_memory(scene: Scene) -> None:
    refused(scene, lambda: scene.client.config_set("maxmemory", 1))
    scene.client.config_set("maxmemory", 0)
    scene.settle()


def read_only(scene: Scene) -> None:
    """The server becomes somebody's replica for a while."""
    refused(scene, lambda: scene.client.replicaof("127.0.0.1", 1))
    scene.client.replicaof("NO", "ONE")
    scene.settle()


def refused(scene: Scene, make_refuse: Callable[[], object]) -> None:
    worker = scene.running()
    before = scene.said(worker, "writes_refused")
    scene.flow(20)
    make_refuse()
    scene.flow(10)
    scene.until(
        lambda: scene.said(worker, "writes_refused") > before, "the worker is refused", worker
    )


def busy(scene: Scene) -> None:
    """A script of somebody's keeps the server from answering."""
    scene.running()
    scene.flow(30)
    script = """
    local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end
    local stop = now() + tonumber(ARGV[1])
    while now() < stop do end
    """

    def keep_busy() -> None:
        with redis.Redis(port=scene.server.port, protocol=2) as client:
            client.eval(script, 0, 400)

    thread = Thread(target=keep_busy)
    thread.start()
    thread.join()
    scene.settle()


def answered_with(*errors: bytes) -> Inject:
    def inject(scene: Scene) -> None:
        worker = scene.running()
        before = scene.said(worker, "server_lost") + scene.said(worker, "writes_refused")
        scene.proxy.error = scene.random.choice(errors)
        scene.flow(30)
        pause(scene, 0.0, 0.05)
        scene.proxy.become("refuse")
        scene.until(
            lambda: (
                scene.said(worker, "server_lost") + scene.said(worker, "writes_refused") > before
            ),
            "the worker is refused",
            worker,
        )
        scene.proxy.pass_all()
        scene.settle()

    return inject


# The network


def cut(scene: Scene) -> None:
    scene.running()
    scene.flow(40)
    pause(scene, 0.0, 0.05)
    scene.proxy.become("cut")
    pause(scene, 0.1, 0.8)
    scene.proxy.become("open")
    scene.settle()


def half_open(scene: Scene) -> None:
    """Connections stand and carry nothing; the worker's own time-out finds out."""
    scene.running()
    scene.flow(30)
    pause(scene, 0.0, 0.05)
    scene.proxy.become("half_open")
    pause(scene, 0.1, 0.4)
    scene.proxy.pass_all()
    scene.settle()


def slow(scene: Scene) -> None:
    scene.running()
    scene.proxy.become("bytes")
    scene.flow(40)
    scene.settle()
    scene.proxy.pass_all()


def stalled(scene: Scene) -> None:
    scene.running()
    scene.proxy.stall_s = scene.random.uniform(0.05, 0.3)
    scene.proxy.become("stall")
    scene.flow(16)
    pause(scene, 0.3, 0.8)
    scene.proxy.pass_all()
    scene.settle()


def reset_in_mid_reply(scene: Scene) -> None:
    scene.running()
    scene.flow(40)
    pause(scene, 0.0, 0.05)
    before = scene.proxy.resets
    scene.proxy.reset_after = scene.random.choice([0, 1, 3, 10, 200])
    scene.proxy.become("reset")
    wait = scene.random.randint(2, 6)
    scene.until(lambda: scene.proxy.resets >= before + wait, "connections are reset")
    scene.proxy.pass_all()
    scene.settle()


# The disk


def folder_gone(scene: Scene) -> None:
    """Where the folder was lies a file; then it is back."""
    worker = scene.running()
    before = scene.said(worker, "snapshot_failed")
    with snapshot_faults.folder_replaced(scene.store().directory):
        flow_until(scene, worker, lambda: scene.said(worker, "snapshot_failed") > before)
    scene.settle()


def disk_full(scene: Scene) -> None:
    """No file of the worker's can grow, not even its log."""
    worker = scene.running()
    scene.settle()
    full_since = order(scene.record.checkpoint())
    worker.limit_file_size(2_000)
    scene.flow(3 * EVERY)
    scene.settle()
    positions = [order(info.manifest.position or "0-0") for info in scene.snapshots()]
    worker.limit_file_size(-1)
    scene.verdict.require(
        all(position <= full_since for position in positions), "snapshots on a full disk"
    )


def flow_until(scene: Scene, worker: Worker, happened: Callable[[], object]) -> None:
    """Let events flow until something has happened."""
    end = monotonic() + 30
    while not happened():
        if monotonic() > end:
            raise Stuck(f"it didn't happen:{scene.tail(worker)}")
        scene.flow(EVERY)
        scene.until(scene.caught_up, "everything published is committed", worker)


def damaged(change: Callable[[Scene], Path]) -> Inject:
    """With the worker ended the newest snapshot is changed; the next one must see that."""

    def inject(scene: Scene) -> None:
        scene.settle()
        # From the first one alone there is no other way back than the whole stream.
        flow_until(scene, scene.running(), lambda: len(snapshot_faults.whole(scene)) > 1)
        scene.end_worker()
        name = change(scene).name
        scene.flow(20)
        worker = scene.running()
        recovered = next(line for line in scene.log(worker) if line["event"] == "recovered")
        used = str(recovered["snapshot"])
        scene.verdict.require(name not in used, "bad snapshots used", name)
        scene.settle()

    return inject


_TRANSIENT = (
    b"-LOADING Redis is loading the dataset in memory",
    b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"-TRYAGAIN Multiple keys request during rehashing of slot",
    b"-CLUSTERDOWN The cluster is down",
)
_NO_WRITES = (
    b"-MISCONF Valkey is configured to save RDB snapshots, but it's unable to persist to disk.",
    b"-READONLY You can't write against a read only replica.",
    b"-OOM command not allowed when used memory > 'maxmemory'.",
)

FAULTS = (
    Fault("worker", "SIGKILL", killed, 2),
    Fault("worker", "SIGKILL while recovering", killed_while_recovering),
    Fault("worker", "SIGSTOP past its lease, SIGCONT", stopped_past_its_lease),
    Fault("worker", "SIGTERM", terminated),
    Fault("worker", "taken over while paused", taken_over),
    Fault("worker", "taken over, clocks 7 minutes apart", taken_over_with_clocks_apart),
    Fault("worker", "its fitting process killed", fitter_killed, 0.5),
    Fault("redis", "SIGKILL, appendfsync always", server_killed("always")),
    Fault("redis", "SIGKILL, appendfsync everysec", server_killed("everysec")),
    Fault("redis", "an older file", older_file, 1.5),
    Fault("redis", "an older file, worker killed", older_file_and_worker_killed),
    Fault("redis", "a replica promoted, writes missing", replica_promoted, 0.7),
    Fault("redis", "FLUSHALL", flushed, 0.2, at_most=2),
    Fault("redis", "consumer group deleted", group_deleted, 0.5),
    Fault("redis", "maxmemory reached", out_of_memory),
    Fault("redis", "made a replica: READONLY", read_only),
    Fault("redis", "busy with a script: BUSY", busy, 0.5),
    Fault("redis", "answers LOADING, BUSY, ...", answered_with(*_TRANSIENT)),
    Fault("redis", "answers MISCONF, READONLY, OOM", answered_with(*_NO_WRITES)),
    Fault("network", "cut", cut),
    Fault("network", "half-open", half_open, 0.5),
    Fault("network", "replies byte by byte", slow, 0.5),
    Fault("network", "stalled", stalled, 0.5),
    Fault("network", "reset in mid-reply", reset_in_mid_reply, 1.5),
    Fault("disk", "a file in the folder's place", folder_gone, 0.5),
    Fault("disk", "full", disk_full, 0.5),
    *(
        Fault("snapshot", name, damaged(change), 0.5)
        for name, change in snapshot_faults.CHANGES.items()
    ),
    *(
        Fault(
            f"dies at a {boundary.group}",
            boundary.name,
            (older_file_and_death if boundary.group == "loss" else at_boundary)(boundary),
            0.4,
        )
        for boundary in BOUNDARIES
    ),
)
