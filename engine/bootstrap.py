"""The composition root: everything is built here, from the configuration, and nowhere else."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from engine.api.mailbox import Mailbox
from engine.champions import Fitter
from engine.config import Config
from engine.core import Core
from engine.fitting import ProcessFitter
from engine.metrics import Metrics
from engine.sending import control_key_of
from engine.snapshotting import Snapshotter
from engine.watch import Watch
from engine.worker import Worker
from snapshots import SnapshotStore, load_key
from streams import Connection, Keys, RedisTransport

KEY_FILE = "snapshots.key"


def keys_of(config: Config) -> Keys:
    """The key names of the configured shard."""
    return Keys(config.stream.shard, config.stream.prefix)


def snapshot_key_of(config: Config) -> bytes:
    """What signs snapshots: the configured key, or one in a file that is made on the first run."""
    key = config.snapshots.key
    if key is not None:
        return key.get_secret_value().encode()
    config.snapshots.directory.mkdir(parents=True, exist_ok=True)
    return load_key(config.snapshots.directory / KEY_FILE)


def store_of(config: Config) -> SnapshotStore:
    """The configured shard's snapshots."""
    folder = f"{config.stream.prefix}-{config.stream.shard}"
    return SnapshotStore(
        config.snapshots.directory / folder, snapshot_key_of(config), config.snapshots.keep
    )


def new_core(config: Config, fitter: Fitter) -> Core:
    """An empty core."""
    return Core(config.core, fitter, _control_key_of(config), keys_of(config).events)


def _control_key_of(config: Config) -> bytes | None:
    """What signs control events, if there is a key."""
    return None if config.control_key is None else control_key_of(config)


@contextmanager
def process_fitter() -> Iterator[ProcessFitter]:
    """A fitter with a process of its own, ended on the way out."""
    fitter = ProcessFitter()
    try:
        yield fitter
    finally:
        fitter.close()


@contextmanager
def new_worker(
    config: Config,
    connection: Connection,
    metrics: Metrics,
    stop: Event,
    start_from: Path | None = None,
    mailbox: Mailbox | None = None,
) -> Iterator[Worker]:
    """A worker for the configured shard; what it needs is closed on the way out."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    keys = keys_of(config)
    transport = RedisTransport(
        connection, keys, config.stream.max_outputs, config.stream.max_dead_bytes
    )
    snapshotter = Snapshotter(
        store_of(config), snapshot_key_of(config), transport, config.snapshots, metrics
    )
    with process_fitter() as fitter:
        worker = Worker(
            transport,
            keys,
            snapshotter,
            lambda: new_core(config, fitter),
            config.worker,
            owner,
            metrics,
            stop,
            mailbox or Mailbox(),
            Watch(connection, keys, config.core.safety.triggers, _control_key_of(config), owner),
            start_from,
        )
        fitter.on_wait = worker.keep_lease
        metrics.watch(lambda: worker.core)
        metrics.refit_wait_seconds.set_function(lambda: fitter.waited_seconds)
        try:
            yield worker
        finally:
            snapshotter.close()
