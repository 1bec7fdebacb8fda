"""Checks of the snapshots: the folder, the key, and what the next start would recover from."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from drift import FeatureDrift
from engine.bootstrap import KEY_FILE, store_of
from engine.config import Config
from engine.doctor.diagnosis import Diagnosis, from_error
from engine.recovery import unusable
from snapshots import PassedOver, Snapshot, SnapshotError, libraries, state_digest
from streams import START, RedisTransport


def folder(config: Config) -> Iterator[Diagnosis]:
    """Whether snapshots can be written, and with a key that nobody else can read."""
    directory = config.snapshots.directory.absolute()
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        mend = f"let this user write to {nearest}, or choose another snapshots.directory"
        yield Diagnosis("problem", "snapshot folder", f"{directory} can't be written to", mend)
    else:
        later = "" if nearest == directory else ", to be made at the first start"
        yield Diagnosis("ok", "snapshot folder", f"{directory}{later}")
    if config.snapshots.key is not None:
        yield Diagnosis("ok", "snapshot key", "from the settings")
        return
    path = directory / KEY_FILE
    if not path.exists():
        if any(directory.glob("*/snapshot-*")):
            mend = f"put {path} back from a copy; without it the snapshots are of no use"
            yield Diagnosis("problem", "snapshot key", f"{path} is gone", mend)
        else:
            yield Diagnosis("ok", "snapshot key", f"{path}, to be made at the first start")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        seen = f"{path} has mode {mode:04o}: others can get at it"
        yield Diagnosis("problem", "snapshot key", seen, f"chmod 600 '{path}'")
    else:
        yield Diagnosis("ok", "snapshot key", f"{path}, its owner's alone")


def recovery(config: Config, transport: RedisTransport | None) -> Iterator[Diagnosis]:
    """What the next start would recover from; without a server, as far as can be told."""
    directory = config.snapshots.directory
    has_key = config.snapshots.key is not None or (directory / KEY_FILE).exists()
    if not directory.is_dir() or not has_key:
        # Opening the store would make both.
        yield Diagnosis("ok", "snapshots", "none yet")
        return
    try:
        yield from _newest_usable(config, transport)
    except SnapshotError as error:
        yield from_error("problem", "snapshots", error)


def _newest_usable(config: Config, transport: RedisTransport | None) -> Iterator[Diagnosis]:
    passed_over = False
    for found in store_of(config).newest(
        config_digest=config.core.digest,
        usable=None if transport is None else lambda manifest: unusable(manifest, transport),
    ):
        if isinstance(found, PassedOver):
            passed_over = True
            mend = "recovery passes it over; closeloop snapshots verify tells more"
            yield Diagnosis("warning", "snapshot", str(found.error), mend)
        else:
            yield _sound(found)
            yield _features(config, found)
            return
    if transport is not None and not transport.reaches_back_to(START):
        seen = "none can be used, and the stream doesn't reach back to its beginning"
        mend = "bring back a snapshot, or the settings and libraries it was made with"
        yield Diagnosis("problem", "snapshots", seen, mend)
    elif passed_over:
        seen = "none can be used: the next start applies the whole stream again"
        yield Diagnosis("warning", "snapshots", seen, "closeloop snapshots verify says why")
    else:
        yield Diagnosis("ok", "snapshots", "none yet")


def _sound(found: Snapshot) -> Diagnosis:
    """A snapshot that recovery would take, looked at once more: is the state what was frozen?"""
    manifest = found.manifest
    if state_digest(found.tree) != manifest.state_digest:
        mend = "go back to an older one: closeloop snapshots restore"
        return Diagnosis("problem", "snapshots", f"{found.name}: not the state it names", mend)
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created)
    shown = timedelta(seconds=round(age.total_seconds()))
    seen = f"the newest holds {manifest.events:,} events, is whole and {shown} old"
    return Diagnosis("ok", "snapshots", seen)


def _features(config: Config, found: Snapshot) -> Diagnosis:
    """Features that say nothing, as of that snapshot."""
    drift = config.core.drift
    # As the model makes it: the same ring, or the rows would be taken in another order.
    watch = FeatureDrift(drift.feature_reference, drift.feature_window, drift.feature_window)
    model: Any = found.tree["model"]
    watch.restore(model["features"])
    health = watch.health(model["encoder"]["names"])
    silent = {
        "without a value": health.missing,
        "constant": health.constant,
        "stale": health.stale,
    }
    said = "; ".join(
        f"{what} for {drift.feature_window} signals or more: {', '.join(names)}"
        for what, names in silent.items()
        if names
    )
    if not said:
        return Diagnosis("ok", "features", "none is missing, constant or stale")
    mend = "look at what the bot sends; leave out what stays so, closeloop features tells its worth"
    return Diagnosis("warning", "features", said, mend)


def versions() -> Iterator[Diagnosis]:
    """What states and refits depend on here."""
    seen = ", ".join(f"{name} {version}" for name, version in sorted(libraries().items()))
    yield Diagnosis("ok", "libraries", seen)
