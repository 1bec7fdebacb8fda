"""`closeloop publish` and `record`: what goes in comes out, byte for byte and in order."""

import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest

from streams.connection import Connection, connect
from streams.events import encode
from streams.keys import Keys, shard_of
from streams.tape import Tape
from tests.engine.conftest import Command
from tests.engine.histories import close, history
from tests.engine.histories import signal as a_signal

BAD = b'{"type": "signal", "signal_id": 7}'


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def entries(connection: Connection, key: str = Keys().events) -> list[bytes]:
    return [fields[b"e"] for _, fields in connection.redis.xrange(key)]


def lines(path: Path) -> list[bytes]:
    return [line.data for line in Tape(path)]


def test_every_line_is_published_as_it_stands_and_bad_ones_too(
    closeloop: Command, address: str, connection: Connection, tmp_path: Path
) -> None:
    odd = b' {"type":"close",  "signal_id":"a", "ts":"2026-01-05T09:31:00+00:00", "return_pct":1} '
    tape = write(tmp_path / "t.jsonl", encode(a_signal("a")), b"", odd, BAD, b"   ", b"\xff\xfe")
    ran = closeloop("publish", tape, "--address", address, "--json")
    assert entries(connection) == [encode(a_signal("a")), odd, BAD, b"\xff\xfe"]
    counts = ran.json
    assert counts.pop("seconds") >= 0
    assert counts == {"lines": 4, "signal": 1, "close": 1, "bad": 2}
    assert ran.status == 0


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_what_was_published_is_recorded_again(
    closeloop: Command, address: str, tmp_path: Path, suffix: str
) -> None:
    events = [encode(event) for event in history(1_200)]
    tape = write(tmp_path / "in.jsonl", *events[:1000], BAD, *events[1000:])
    out = tmp_path / f"out.{suffix}"
    closeloop("publish", tape, "--address", address)
    ran = closeloop("record", out, "--address", address)
    assert ran.status == 0
    assert lines(out) == lines(tape)


def test_skip_and_limit_count_lines_over_all_tapes(
    closeloop: Command, address: str, connection: Connection, tmp_path: Path
) -> None:
    one = write(tmp_path / "1.jsonl", b"1", b"", b"2", b"3")
    two = write(tmp_path / "2.jsonl", b"4", b"5", b"6")
    closeloop("publish", one, two, "--skip", 2, "--limit", 3, "--address", address)
    assert entries(connection) == [b"3", b"4", b"5"]


def test_a_close_goes_to_the_shard_of_its_signal(
    closeloop: Command, address: str, connection: Connection, tmp_path: Path
) -> None:
    symbols = {f"s{i}": f"SYM{i}" for i in range(20)}
    signals = [a_signal(name, symbol=symbol) for name, symbol in symbols.items()]
    events = [encode(event) for event in (*signals, *map(close, symbols), close("unknown"))]
    write(tmp_path / "t.jsonl", *events, BAD)
    (tmp_path / "closeloop.toml").write_text("[stream]\nshards = 3\nprefix = 'mine'\n")
    closeloop("publish", "t.jsonl", "--address", address)
    for shard in range(3):
        here = [name for name, symbol in symbols.items() if shard_of(symbol, 3) == shard]
        expected = [*(encode(a_signal(n, symbol=symbols[n])) for n in here)]
        expected += [encode(close(name)) for name in here]
        expected += [encode(close("unknown")), BAD] if shard == 0 else []
        assert entries(connection, Keys(shard, "mine").events) == expected


def test_a_tape_is_published_at_a_multiple_of_its_own_pace(
    closeloop: Command, tmp_path: Path
) -> None:
    tape = write(
        tmp_path / "t.jsonl",
        *(encode(a_signal(str(i), minutes=i)) for i in range(3)),
        BAD,
        encode(a_signal("earlier", minutes=0)),
    )
    ran = closeloop("publish", tape, "--speed", 600, "--address", "memory://paced", "--json")
    # Two minutes at 600 times their pace; what is bad or late doesn't wait.
    assert 0.2 <= ran.json["seconds"] < 2
    with connect("memory://paced") as connection:
        ids = [int(i.split(b"-")[0]) for i, _ in connection.redis.xrange(Keys().events)]
        assert ids[1] - ids[0] >= 95
        assert ids[2] - ids[0] >= 195
        assert len(ids) == 5


def test_a_tape_that_breaks_off_says_where_to_go_on(closeloop: Command, tmp_path: Path) -> None:
    tape = tmp_path / "t.jsonl.gz"
    source = write(tmp_path / "t.jsonl", *(encode(event) for event in history(1_000)))
    closeloop("publish", source, "--address", "memory://whole")
    closeloop("record", tape, "--address", "memory://whole")
    tape.write_bytes(tape.read_bytes()[:-200])
    ran = closeloop("publish", tape, "--address", "memory://half")
    assert ran.status == 4
    with connect("memory://half") as connection:
        sent = len(entries(connection))
    assert 0 < sent < 2_000
    assert f"--skip {sent}" in ran.err


def test_an_interrupted_run_says_where_to_go_on(
    closeloop: Command, address: str, connection: Connection, tmp_path: Path
) -> None:
    hour_apart = [encode(a_signal(str(i), minutes=60 * (i // 3))) for i in range(6)]
    tape = write(tmp_path / "t.jsonl", *hour_apart)

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while len(entries(connection)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    other = Thread(target=interrupt)
    other.start()
    ran = closeloop("publish", tape, "--speed", 1, "--address", address)
    other.join()
    assert ran.status == 130
    assert "--skip 3" in ran.err
    assert "Traceback" not in ran.err
    closeloop("publish", tape, "--skip", 3, "--address", address)
    assert entries(connection) == hour_apart


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("publish", "missing.jsonl", "--address", "memory://x"), 4),
        (("publish", "t.jsonl", "--address", "redis://127.0.0.1:1"), 3),
        (("publish", "t.jsonl", "--address", "gopher://x"), 2),
        (("record", "t.jsonl", "--address", "memory://x"), 4),
        (("record", "no/folder/o.jsonl", "--address", "memory://x"), 4),
        (("record", "new.jsonl", "--address", "redis://127.0.0.1:1"), 3),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_with_the_mend(
    closeloop: Command, tmp_path: Path, arguments: tuple[str, ...], status: int
) -> None:
    write(tmp_path / "t.jsonl", BAD)
    ran = closeloop(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert [line for line in ran.err.splitlines() if line.startswith("closeloop: ")]
    assert "Traceback" not in ran.err
    assert not (tmp_path / "new.jsonl").exists()


def test_bad_usage_is_status_2(closeloop: Command) -> None:
    assert closeloop("publish").status == 2
    assert closeloop("publish", "t.jsonl", "--speed", "-1").status == 2
    assert closeloop("record", "o.jsonl", "--from", "yesterday").status == 2
    assert closeloop("record", "o.jsonl", "--stream", "gossip").status == 2


def test_recording_goes_on_where_it_ended(
    closeloop: Command, address: str, connection: Connection, tmp_path: Path
) -> None:
    for i in range(3):
        connection.redis.xadd(Keys().events, {"e": str(i)})
    first = closeloop("record", "1.jsonl", "--address", address, "--json").json
    assert first["entries"] == 3
    nothing = closeloop(
        "record", "2.jsonl", "--from", first["next"], "--address", address, "--json"
    )
    assert nothing.json == first | {"entries": 0}
    connection.redis.xadd(Keys().events, {"e": "3"})
    closeloop("record", "3.jsonl", "--from", first["next"], "--address", address)
    assert lines(tmp_path / "3.jsonl") == [b"3"]
    third = connection.redis.xrange(Keys().events)[2][0].decode()
    closeloop("record", "4.jsonl", "--from", third, "--address", address)
    assert lines(tmp_path / "4.jsonl") == [b"2", b"3"]


def test_each_entry_is_one_line_and_a_dead_letter_stays_one(
    closeloop: Command, address: str, connection: Connection, tmp_path: Path
) -> None:
    pretty = encode(a_signal("a")).replace(b",", b",\n")
    for data in (pretty, b"not\njson", b"", b"\n"):
        connection.redis.xadd(Keys().events, {"e": data})
    connection.redis.xadd(Keys().events, {"e": encode(a_signal("b")), "and": "more"})
    closeloop("record", "t.jsonl", "--address", address)
    read = [line.entry() for line in Tape(tmp_path / "t.jsonl")]
    assert [entry.event for entry in read] == [a_signal("a"), None, None, None, None]


@pytest.mark.parametrize("stream", ["decisions", "outcomes", "alerts", "dead"])
def test_the_other_streams_are_recorded_by_name(
    closeloop: Command, address: str, connection: Connection, tmp_path: Path, stream: str
) -> None:
    connection.redis.xadd(getattr(Keys(), stream), {"e": stream})
    closeloop("record", "t.jsonl", "--stream", stream, "--address", address)
    assert lines(tmp_path / "t.jsonl") == [stream.encode()]


def test_a_tape_is_overwritten_only_when_forced(closeloop: Command, tmp_path: Path) -> None:
    tape = write(tmp_path / "t.jsonl", b"mine")
    assert closeloop("record", tape, "--address", "memory://empty").status == 4
    assert tape.read_bytes() == b"mine\n"
    assert closeloop("record", tape, "--force", "--address", "memory://empty").status == 0
    assert tape.read_bytes() == b""


def test_a_trimmed_history_is_pointed_out(
    closeloop: Command, connection: Connection, address: str
) -> None:
    ids = [connection.redis.xadd(Keys().events, {"e": str(i)}) for i in range(5)]
    connection.redis.xtrim(Keys().events, minid=ids[2])
    connection.redis.hset(Keys().checkpoint, "trimmed", ids[2])
    told = closeloop("record", "t.jsonl", "--address", address)
    assert ids[2].decode() in told.err
    untold = closeloop("record", "u.jsonl", "--from", ids[3].decode(), "--address", address)
    assert untold.err == ""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_following_records_what_comes_until_it_is_stopped(
    closeloop: Command, redis_server: str, tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "t.jsonl.zst"
    with connect(redis_server) as connection:
        connection.redis.flushall()
        connection.redis.xadd(Keys().events, {"e": "before"})

        def add_and_stop() -> None:
            deadline = time.monotonic() + 30
            while not connection.redis.info("clients")["blocked_clients"]:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            connection.redis.xadd(Keys().events, {"e": "after"})
            os.kill(os.getpid(), stop)

        other = Thread(target=add_and_stop)
        other.start()
        ran = closeloop("record", out, "--follow", "--address", redis_server)
        other.join()
    assert ran.status == 0
    assert ran.out.startswith("2 entries")
    assert lines(out) == [b"before", b"after"]
