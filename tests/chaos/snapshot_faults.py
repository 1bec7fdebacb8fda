"""What can be wrong with the newest snapshot, or with the folder it is in."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from engine.bootstrap import snapshot_key_of
from engine.snapshotting import take, to_bytes
from snapshots import SnapshotError, libraries, read, verify
from snapshots.manifest import FORMAT

if TYPE_CHECKING:
    from tests.chaos.scene import Scene


@contextmanager
def folder_replaced(folder: Path) -> Iterator[None]:
    """Within, a file lies in the folder's place."""
    away = folder.with_name(folder.name + "-away")
    folder.rename(away)
    folder.write_text("in the way")
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


def newest(scene: "Scene") -> Path:
    return whole(scene)[0]


def whole(scene: "Scene") -> list[Path]:
    """The snapshots of this stream history that verify, newest first."""
    key, lineage = snapshot_key_of(scene.config), scene.record.lineage()
    found = []
    for info in scene.snapshots():
        with suppress(SnapshotError, FileNotFoundError):
            if verify(info.path.read_bytes(), key).lineage == lineage:
                found.append(info.path)
    return found


def cut(scene: "Scene") -> Path:
    path = newest(scene)
    data = path.read_bytes()
    path.write_bytes(data[: scene.random.randrange(len(data))])
    return path


def flipped(scene: "Scene") -> Path:
    path = newest(scene)
    data = bytearray(path.read_bytes())
    data[scene.random.randrange(len(data))] ^= 1 << scene.random.randrange(8)
    path.write_bytes(data)
    return path


def older_format(scene: "Scene") -> Path:
    """The whole file as an older version would have written it, signed."""
    return _written_again(scene, lambda: patch("snapshots.format.FORMAT", FORMAT - 1))


def other_library(scene: "Scene") -> Path:
    there = libraries() | {"river": "0.0.1"}
    return _written_again(scene, lambda: patch("snapshots.format.libraries", lambda: there))


def other_config(scene: "Scene") -> Path:
    return _written_again(scene, config_digest="0" * 64)


def future_position(scene: "Scene") -> Path:
    return _written_again(scene, position="99999999999999-0")


def other_key(scene: "Scene") -> Path:
    return _written_again(scene, key=b"nobody's key, of good length")


def older_state(scene: "Scene") -> Path:
    """The newest one's place and position, but the state of an older one, signed: a bug of ours."""
    newer, *_, older = whole(scene)
    position = verify(newer.read_bytes(), snapshot_key_of(scene.config)).position
    return _written_again(scene, position=position, source=older)


def _written_again(
    scene: "Scene",
    elsewhere: Callable[[], AbstractContextManager[object]] = nullcontext,
    config_digest: str | None = None,
    position: str | None = None,
    key: bytes | None = None,
    source: Path | None = None,
) -> Path:
    """Write the newest snapshot anew as another set-up would have, or with `source`'s state."""
    own_key = snapshot_key_of(scene.config)
    path = newest(scene)
    found = read((source or path).read_bytes(), own_key)
    core = scene.new_core()
    core.restore(found.tree)
    taken = take(core, found.manifest.lineage, position or found.manifest.position)
    if config_digest is not None:
        taken = replace(taken, config_digest=config_digest)
    with elsewhere():
        path.write_bytes(to_bytes(taken, key or own_key))
    return path


CHANGES: dict[str, Callable[["Scene"], Path]] = {
    "cut off": cut,
    "a bit flipped": flipped,
    "an older format": older_format,
    "another library version": other_library,
    "another config": other_config,
    "a future position": future_position,
    "another key": other_key,
    "an older state under its name": older_state,
}
