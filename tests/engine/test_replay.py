"""Replay: a tape ends where its events end live."""

from engine.replay import replay
from snapshots import state_digest
from streams import encode
from streams.tape import Tape
from tests.engine.histories import close, entries, history, new_core, run, signal


def test_every_line_counts_also_those_that_are_no_events_and_those_sent_again(tmp_path):
    events = [b"not JSON", *history(20), signal("s3"), close("s3"), b'{"type":"trade"}']
    path = tmp_path / "tape.jsonl"
    path.write_bytes(b"\n".join(e if isinstance(e, bytes) else encode(e) for e in events) + b"\n")
    core, live = new_core(), new_core()
    figures = replay(core, Tape(path))
    run(live, entries(*events))
    assert figures["decisions_digest"] == live.decisions_digest
    assert figures["state_digest"] == state_digest(live.state()) == state_digest(core.state())
    assert core.counts == live.counts
