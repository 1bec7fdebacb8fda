"""Tapes are read line by line, whatever stands in them, and written whole or not at all."""

import gzip
import os
import tracemalloc
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import TapeError
from streams.events import read_entry
from streams.tape import MAX_LINE_BYTES, Tape, write_tape

CLOSE = b'{"type":"close","signal_id":"a","ts":"2026-05-01T13:30:00Z","return_pct":0.5}'
SUFFIXES = ["jsonl", "jsonl.gz", "jsonl.zst"]


def written(path: Path, content: bytes) -> Path:
    """A file of these bytes, compressed by another tool than ours as its suffix says."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def read(*paths: Path) -> list[tuple[str, bytes]]:
    return [(line.id, line.data) for line in Tape(*paths)]


def incompressible(count: int) -> Iterator[bytes]:
    return (md5(b"%d" % number).hexdigest().encode() for number in range(count))


# Reading


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_line_has_its_number_as_its_id_and_blank_lines_count(tmp_path: Path, suffix: str) -> None:
    tape = written(tmp_path / f"t.{suffix}", b"one\n\n  \r\nfour\r\nfive")
    assert read(tape) == [("0-1", b"one"), ("0-4", b"four"), ("0-5", b"five")]


def test_over_several_tapes_the_count_goes_on_and_the_place_is_told(tmp_path: Path) -> None:
    tapes = [written(tmp_path / f"{name}.jsonl", b"one\n\nthree\n") for name in "ab"]
    places = [(line.id, line.path, line.number) for line in Tape(*tapes)]
    assert places == [
        ("0-1", tapes[0], 1),
        ("0-3", tapes[0], 3),
        ("0-4", tapes[1], 1),
        ("0-6", tapes[1], 3),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_tape_has_no_lines(tmp_path: Path, suffix: str) -> None:
    tape = Tape(written(tmp_path / f"t.{suffix}", b""))
    assert list(tape) == []


def test_a_file_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    for suffix, compress in (("gz", gzip.compress), ("zst", zstandard.compress)):
        path = tmp_path / f"t.{suffix}"
        path.write_bytes(compress(b"one\ntw") + compress(b"o\n") + compress(b"three\n"))
        assert read(path) == [("0-1", b"one"), ("0-2", b"two"), ("0-3", b"three")]


def test_it_can_be_read_again(tmp_path: Path) -> None:
    tape = Tape(written(tmp_path / "t.jsonl.gz", b"one\ntwo\n"))
    assert list(tape) == list(tape)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_progress_goes_from_0_to_1_and_never_back(tmp_path: Path, suffix: str) -> None:
    lines = b"".join(line + b"\n" for line in incompressible(50_000))
    tape = Tape(*(written(tmp_path / f"{name}.{suffix}", lines) for name in "ab"))
    assert tape.progress == 0.0
    seen = [tape.progress for _ in tape]
    assert seen == sorted(seen)
    assert 0.0 < seen[0] < 0.25
    assert 0.5 <= seen[60_000] < 0.75
    assert tape.progress == 1.0


def test_a_line_is_an_entry(tmp_path: Path) -> None:
    good, bad = (line.entry() for line in Tape(written(tmp_path / "t", CLOSE + b"\nnonsense\n")))
    assert (good.id, good.data, good.error) == ("0-1", CLOSE, None)
    assert (bad.id, bad.data, bad.event) == ("0-2", b"nonsense", None)
    assert bad.error == "not JSON: expected ident at line 1 column 2"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_endless_line_is_cut_in_memory_and_is_a_dead_letter(tmp_path: Path, suffix: str) -> None:
    size = 24 * MAX_LINE_BYTES + 7
    path = written(tmp_path / f"t.{suffix}", CLOSE + b"\n" + b"x" * size + b"\r\n" + CLOSE)
    tracemalloc.start()
    try:
        before, long, after = (line.entry() for line in Tape(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (before.error, after.error) == (None, None)
    assert (long.id, after.id) == ("0-2", "0-3")
    assert long.data == b"x" * MAX_LINE_BYTES
    assert long.error == f"the entry has {size} bytes; at most 65536 are read"
    assert peak < 16 * MAX_LINE_BYTES


@pytest.mark.parametrize("excess", [0, 1, 2])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_only_a_line_beyond_the_limit_is_cut(tmp_path: Path, excess: int, end: bytes) -> None:
    (line,) = Tape(written(tmp_path / "t", b"x" * (MAX_LINE_BYTES + excess) + end))
    assert (len(line.data), line.size) == (MAX_LINE_BYTES, MAX_LINE_BYTES + excess)


# What can't be read


def test_a_missing_file_is_told_before_anything_is_read(tmp_path: Path) -> None:
    there = written(tmp_path / "there", b"one\n")
    with pytest.raises(TapeError, match="gone: can't be read: No such file or directory"):
        Tape(there, tmp_path / "gone")


def test_a_folder_is_no_tape(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="Is a directory; check its name and rights"):
        Tape(tmp_path)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_file_cut_short_gives_its_lines_and_then_says_where_it_broke(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"t.{suffix}"
    with write_tape(path) as tape:
        for line in incompressible(50_000):
            tape.write(line)
    whole = [line.data for line in Tape(path)]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = []
    with pytest.raises(TapeError) as told:
        found.extend(line.data for line in Tape(path))
    assert 1_000 < len(found) < 50_000
    assert found == whole[: len(found)]
    assert str(told.value).startswith(f"{path}: broken after line {len(found)}: ")
    assert "copy it again" in str(told.value)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_file_cut_anywhere_never_passes_for_a_whole_one(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"t.{suffix}", b"one\ntwo\nthree\n")
    content = path.read_bytes()
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(TapeError, match="broken after line"):
            list(Tape(path))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_file_that_is_not_compressed_as_it_is_named_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(b"one\ntwo\n")
    with pytest.raises(TapeError, match="broken after line 0"):
        list(Tape(path))


# Writing


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    lines = [b"one", CLOSE, bytes(range(11, 13)) + b"two", "drei \u2028 ä".encode()]
    with write_tape(path) as tape:
        for line in lines:
            tape.write(line)
    assert [line.data for line in Tape(path)] == lines


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_lines_give_equal_files(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        with write_tape(tmp_path / f"{name}.{suffix}") as tape:
            tape.write(CLOSE)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_time_of_writing_is_not_in_a_gzip_tape(tmp_path: Path) -> None:
    with write_tape(tmp_path / "t.gz") as tape:
        tape.write(CLOSE)
    # RFC 1952: bytes 4 to 7 of the header are the time, 0 for none.
    assert (tmp_path / "t.gz").read_bytes()[4:8] == bytes(4)


@given(
    st.lists(
        st.binary(max_size=20)
        | st.sampled_from([b"", b" ", b"\r\n", CLOSE.replace(b'"a"', b'"a\nb"')])
        | st.tuples(*[st.sampled_from([b"", b"\n", b" ", b"\r"])] * 4).map(
            lambda gaps: gaps[0] + CLOSE[:1] + gaps[1] + CLOSE[1:7] + gaps[2] + CLOSE[7:] + gaps[3]
        ),
        max_size=5,
    )
)
def test_each_entry_is_one_line_and_an_event_stays_one_and_a_dead_letter_too(
    tmp_path_factory: pytest.TempPathFactory, entries: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "recorded.jsonl"
    with write_tape(path) as tape:
        for entry in entries:
            tape.write(entry)
    found = [line.entry().event for line in Tape(path)]
    assert found == [read_entry("", entry).event for entry in entries]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_leaves_nothing_behind_and_the_older_tape_as_it_was(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"t.{suffix}"
    with write_tape(path) as tape:
        tape.write(b"older")
    with pytest.raises(ConnectionError, match="not the tape's fault"), write_tape(path) as tape:
        tape.write(b"newer")
        raise ConnectionError("not the tape's fault")
    assert read(path) == [("0-1", b"older")]
    assert list(tmp_path.iterdir()) == [path]


def test_a_tape_in_the_making_is_not_seen_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with write_tape(path) as tape:
        tape.write(b"one")
        assert not path.exists()
    assert path.exists()


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(TapeError, match="can't be written: No such file or directory; check"),
        write_tape(tmp_path / "gone" / "t.jsonl"),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk always full")
@pytest.mark.parametrize("lines", [1, 1_000])
def test_a_full_disk_is_told(tmp_path: Path, lines: int) -> None:
    (tmp_path / f".t.jsonl.{os.getpid()}.part").symlink_to("/dev/full")
    with (
        pytest.raises(TapeError, match="No space left on device; check the folder"),
        write_tape(tmp_path / "t.jsonl") as tape,
    ):
        for _ in range(lines):
            tape.write(b"x" * 1_000)
    assert list(tmp_path.iterdir()) == []
