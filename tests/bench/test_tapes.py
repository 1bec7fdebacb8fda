"""What the benches are fed."""

from itertools import islice, pairwise

import orjson
import pytest

from bench.tapes import endless, generated, is_signal, opened, slots
from streams import Close, Signal, Tape, decode, encode
from tests.bench.short_tapes import short_tape


def test_a_generated_tape_is_the_same_every_time_and_closes_every_signal():
    events = list(generated(60))
    assert events == list(generated(60))
    signals = [event.signal_id for event in events if isinstance(event, Signal)]
    closes = [event.signal_id for event in events if isinstance(event, Close)]
    assert len(signals) == 60
    assert closes == signals
    assert all(one.ts <= other.ts for one, other in pairwise(events))


def test_laps_of_a_tape_go_on_in_time_under_names_of_their_own(tmp_path):
    tape = Tape(short_tape(tmp_path, 30))
    found = [decode(data) for data in islice(endless(tape), 3 * 60)]
    assert [encode(event) for event in found[:60]] == [line.data for line in tape]
    names = [event.signal_id for event in found if isinstance(event, Signal)]
    assert len(set(names)) == 90
    assert {event.signal_id for event in found if isinstance(event, Close)} == set(names)
    times = [event.ts for event in found]
    assert times == sorted(times)
    assert times[60] > times[59]


def test_a_lap_changes_nothing_but_names_and_times(tmp_path):
    tape = Tape(short_tape(tmp_path, 30))
    entries = [orjson.loads(data) for data in islice(endless(tape), 120)]
    for event in entries:
        del event["signal_id"], event["ts"]
    assert entries[:60] == entries[60:]


def test_what_is_no_event_is_passed_on_as_it_stands(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b"not json\n" + encode(next(generated(1))) + b"\n")
    found = list(islice(endless(Tape(path)), 4))
    assert found[0] == found[2] == b"not json"
    assert found[1] != found[3]


def test_a_tape_without_events_is_refused_instead_of_read_for_ever(tmp_path):
    path = tmp_path / "none.jsonl"
    path.write_bytes(b"not json\n")
    with pytest.raises(ValueError, match="no signal and no close"):
        list(endless(Tape(path)))


def test_signals_are_told_from_closes_without_decoding():
    for event in generated(40):
        assert is_signal(encode(event)) == isinstance(event, Signal)


def test_a_slot_is_a_signal_and_the_closes_before_it():
    entries = [encode(event) for event in generated(40)]
    found = list(slots(iter(entries)))
    assert [data for slot in found for data in slot] == entries[: sum(map(len, found))]
    assert len(found) == 40
    for slot in found:
        assert [is_signal(data) for data in slot] == [False] * (len(slot) - 1) + [True]


def test_without_a_path_a_tape_is_generated():
    with opened(None, signals=25) as (tape, name):
        assert sum(1 for _ in tape) == 50
        assert name == "generated, 50 events"
