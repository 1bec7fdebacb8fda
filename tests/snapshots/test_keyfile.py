import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snapshots import SnapshotKeyError, load_key


def test_the_first_run_makes_a_key_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "made" / "snapshot.key"
    key = load_key(path)
    assert len(key) == 32
    assert load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert load_key(tmp_path / "other.key") != key


def test_first_runs_at_the_same_time_end_with_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(load_key, [tmp_path / "snapshot.key"] * 8))
    assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "snapshot.key"
    key = load_key(path)
    path.chmod(mode)
    with pytest.raises(SnapshotKeyError, match=f"mode {mode:04o}.* chmod 600"):
        load_key(path)
    path.chmod(0o600)
    assert load_key(path) == key


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_file_that_holds_no_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "snapshot.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SnapshotKeyError, match="doesn't hold 32 bytes"):
        load_key(path)
    assert path.read_bytes() == content


def test_a_key_file_that_cannot_be_made_or_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "snapshot.key", tmp_path):
        with pytest.raises(SnapshotKeyError, match="can't be used"):
            load_key(path)
