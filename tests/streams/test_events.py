"""What is an event and what isn't, and what a person is told about it."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from math import inf, nan

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.errors import EventError
from streams.events import (
    MAX_DEAD_BYTES,
    MAX_ENTRY_BYTES,
    Close,
    Dead,
    Decision,
    Input,
    ModelRef,
    Signal,
    dead,
    decode,
    decode_output,
    encode,
    read_entry,
)
from streams.protocol import prepared
from streams.values import MAX_NESTING
from tests.streams.generated import events, json_values, nearly_events

TIME = "2026-05-01T13:30:00Z"
SIGNAL = {
    "type": "signal",
    "signal_id": "a",
    "ts": TIME,
    "symbol": "EURUSD",
    "side": "long",
    "features": {"rsi": 61.5, "up": True, "session": "Tokyo", "gap": None},
}
CLOSE = {"type": "close", "signal_id": "a", "ts": TIME, "return_pct": 0.5}
DECISION = Decision(
    decision_id="1-0",
    signal_id="a",
    ts=datetime(2026, 5, 1, tzinfo=UTC),
    symbol="EURUSD",
    action="take",
    probability=0.7,
    expected_return_pct=0.1,
    risk=0.2,
    size_multiplier=1.0,
    reasons=("over_threshold",),
    model=ModelRef(update=3, last_close=None, champion=None, config="0123456789ab"),
    probability_interval=(0.6, 0.8),
)
TIME_IN_PYTHON = datetime(2026, 5, 1, 13, 30, tzinfo=UTC)
ENDLESS: dict[str, object] = {}
ENDLESS["again"] = ENDLESS
A_VALUE = "must be a finite number, a bool, a string of at most 256 characters, or null"


def reason(data: bytes | dict[str, object]) -> str:
    """What a person is told about an entry that is no event."""
    with pytest.raises(EventError) as told:
        decode(data if isinstance(data, bytes) else json.dumps(data).encode())
    return str(told.value)


def a_signal(**fields: object) -> Signal:
    given = {"signal_id": "a", "ts": TIME_IN_PYTHON, "symbol": "X", "side": "long", "features": {}}
    return Signal(**(given | fields))


def with_features(json_text: str) -> bytes:
    return json.dumps(SIGNAL | {"features": "%"}).replace('"%"', json_text).encode()


def with_meta(json_text: str) -> bytes:
    return json.dumps(SIGNAL | {"meta": {"x": "%"}}).replace('"%"', json_text).encode()


# Bytes and back


@given(events)
def test_an_event_survives_the_wire_unchanged(event: Input) -> None:
    assert decode(encode(event)) == event


@given(events)
def test_equal_events_have_equal_bytes(event: Input) -> None:
    assert encode(decode(encode(event))) == encode(event)


@given(nearly_events())
def test_what_decodes_can_be_encoded_and_is_the_same_event(fields: dict[str, object]) -> None:
    entry = read_entry("1-0", json.dumps(fields).encode())
    if entry.event is not None:
        assert decode(encode(entry.event)) == entry.event


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"")
@example(b"\xff")
@example(b"{" * 5_000)
@example(b'{"type":' * 5_000)
@example(b"[" * MAX_ENTRY_BYTES)
@example(b'{"type":"signal","type":"close"}')
@example(b"-")
@example(b"9" * 5_000)
def test_reading_never_raises_whatever_the_bytes(data: bytes) -> None:
    entry = read_entry("1-0", data)
    assert (entry.id, entry.data) == ("1-0", data)
    assert (entry.event is None) == bool(entry.error)


@given(json_values | nearly_events() | events.map(lambda event: json.loads(encode(event))))
def test_reading_never_raises_whatever_the_json(value: object) -> None:
    entry = read_entry("1-0", json.dumps(value).encode())
    assert (entry.event is None) == bool(entry.error)
    assert entry.error is None or "\n" not in entry.error


@given(st.binary(max_size=300))
def test_a_dead_letter_keeps_the_original_bytes(data: bytes) -> None:
    letter = dead("closeloop:{0}:events", "1-0", "invalid", "why", data)
    kept = base64.b64decode(letter.data_base64) if letter.data is None else letter.data.encode()
    assert kept == data
    assert decode_output(type(letter), encode(letter)) == letter


@pytest.mark.parametrize("data", [b"\x00" * MAX_DEAD_BYTES, b"\x1b[0m" * 200_000, b'"' * 900_000])
def test_a_dead_letter_is_never_much_larger_than_what_it_keeps(data: bytes) -> None:
    letter = decode_output(Dead, encode(dead("events", "1-0", "invalid", "no event", data)))
    kept = (
        letter.data.encode() if letter.data_base64 is None else base64.b64decode(letter.data_base64)
    )
    assert kept == data
    assert len(encode(letter)) < 2 * len(data) + 1_000


def test_a_decision_survives_the_wire_unchanged() -> None:
    assert decode_output(Decision, encode(DECISION)) == DECISION


def test_something_else_than_the_output_asked_for_is_refused_with_its_reason() -> None:
    with pytest.raises(EventError, match="field `type`: must be 'decision'; got 'close'"):
        decode_output(Decision, json.dumps(CLOSE).encode())
    with pytest.raises(EventError, match="not UTF-8: byte 0xff at offset 0"):
        decode_output(Decision, b"\xff")
    with pytest.raises(EventError, match="not a JSON object"):
        decode_output(Decision, b"[]")


def test_absent_fields_are_left_out_and_missing_features_are_kept() -> None:
    assert (
        encode(decode(json.dumps(SIGNAL).encode()))
        == json.dumps(SIGNAL, separators=(",", ":")).encode()
    )


# What is accepted


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-05-01T13:30:00+00:00", TIME),
        ("2026-05-01t13:30:00z", TIME),
        ("2026-05-01T13:30:00.5Z", "2026-05-01T13:30:00.500000Z"),
        ("2026-05-01T13:30:00.123456789Z", "2026-05-01T13:30:00.123456Z"),
        ("2026-12-31T23:59:59.9999999Z", "2026-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_utc_to_the_microsecond(written: str, meant: str) -> None:
    event = decode(json.dumps(CLOSE | {"ts": written}).encode())
    assert json.loads(encode(event))["ts"] == meant


def test_a_time_in_another_zone_becomes_utc_in_python() -> None:
    there = datetime(2026, 5, 1, 15, 30, tzinfo=timezone(timedelta(hours=2)))
    assert b'"ts":"2026-05-01T13:30:00Z"' in prepared(a_signal(ts=there))


def test_a_subclass_of_datetime_can_be_written() -> None:
    class Stamp(datetime):
        pass

    signal = a_signal(ts=Stamp(2026, 5, 1, 13, 30, tzinfo=UTC))
    assert b'"ts":"2026-05-01T13:30:00Z"' in encode(signal)
    assert prepared(signal) == encode(signal)


def test_a_time_beyond_the_calendar_is_refused_in_python() -> None:
    late = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))
    with pytest.raises(EventError, match="outside the years 1 to 9999"):
        prepared(a_signal(ts=late))


@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), Decimal("1.5")])
def test_numbers_of_other_libraries_are_numbers(number: float) -> None:
    signal = decode(prepared(a_signal(features={"a": number}, price=number)))
    assert (signal.features["a"], signal.price) == (1.5, 1.5)
    assert b'"a":3.0' in prepared(a_signal(features={"a": np.int64(3)}))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"features": {"a": 1.0, "b": nan}}, f"feature `b`: {A_VALUE}; got nan"),
        ({"features": {"b": np.float32("inf")}}, f"feature `b`: {A_VALUE}; got np.float32(inf)"),
        ({"features": {"b": Decimal("NaN")}}, f"feature `b`: {A_VALUE}; got Decimal('NaN')"),
        ({"features": {"b": TIME_IN_PYTHON}}, f"feature `b`: {A_VALUE}; got datetime"),
        ({"features": {"b": b"x"}}, f"feature `b`: {A_VALUE}; got b'x'"),
        ({"features": {1: 1.0}}, "the name of feature `1`: must be a valid string; got 1"),
        ({"price": inf}, "field `price`: must be a finite number; got inf"),
        ({"price": "1.5"}, "field `price`: must be a valid number; got '1.5'"),
        ({"meta": {"a": [nan]}}, "field `meta`: holds nan; JSON has finite numbers only"),
        ({"meta": {"a": {1: 2}}}, "field `meta`: has the name 1; JSON has strings as names only"),
        ({"meta": {"a": {1, 2}}}, "field `meta`: holds a set, which JSON doesn't have"),
        ({"meta": ENDLESS}, "can't be written: maximum recursion depth"),
        ({"side": "buy"}, "field `side`: must be 'long' or 'short'; got 'buy'"),
        ({"features": {"b": 1j}}, "signal 'a' can't be written: a complex can't go on the wire"),
    ],
)
def test_what_json_would_make_something_else_of_is_refused_in_python(
    wrong: dict[str, object], told: str
) -> None:
    with pytest.raises(EventError, match=re.escape(told)):
        prepared(a_signal(**wrong))


def test_a_return_that_is_no_number_is_refused_in_python_as_what_it_is() -> None:
    with pytest.raises(EventError, match="field `return_pct`: must be a finite number; got nan"):
        prepared(Close(signal_id="a", ts=TIME_IN_PYTHON, return_pct=nan))


def test_of_a_name_given_twice_the_last_counts() -> None:
    event = decode(with_features('{"a": 1, "a": 2}'))
    assert isinstance(event, Signal)
    assert event.features == {"a": 2.0}


def test_big_integers_are_numbers_among_features() -> None:
    event = decode(with_features('{"a": 1' + "0" * 50 + "}"))
    assert isinstance(event, Signal)
    assert event.features == {"a": 1e50}


def test_notes_may_hold_any_json_that_every_reader_can_read() -> None:
    event = decode(with_meta('[{"a": [1, -9223372036854775808, 18446744073709551615, 0.5]}]'))
    assert decode(encode(event)) == event


# What is refused, and how a person is told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe", "not UTF-8: byte 0xff at offset 0"),
        (b'{"a":"\xff"}', "not UTF-8: byte 0xff at offset 6"),
        (b"\xef\xbb\xbf{}", "not JSON: it starts with a byte order mark; write UTF-8 without one"),
        (b"{'a': 1}", "not JSON: key must be a string at line 1 column 2"),
        (b'{"type": "sig', "not JSON: EOF while parsing a string at line 1 column 13"),
        (b"{} {}", "not JSON: trailing characters at line 1 column 4"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b"{}", "field `type` is missing; it is one of signal, close, control"),
        (b'{"type": 1}', "unknown type 1; it is one of signal, close, control"),
        (b'{"type": ["x"]}', "unknown type ['x']; it is one of signal, close, control"),
        (b'{"type": "decision"}', "unknown type 'decision'; it is one of signal, close, control"),
        (b'{"type": "close"}', "field `signal_id` is missing (and 2 more)"),
    ],
)
def test_what_is_no_event_at_all_is_named(data: bytes, told: str) -> None:
    assert reason(data) == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"foo": 1}, "field `foo` is not part of the contract; put it under `meta`"),
        ({"side": "buy"}, "field `side`: must be 'long' or 'short'; got 'buy'"),
        ({"signal_id": 5}, "field `signal_id`: must be a valid string; got 5"),
        ({"signal_id": ""}, "field `signal_id`: must have at least 1 character; got ''"),
        ({"price": "1.5"}, "field `price`: must be a valid number; got '1.5'"),
        ({"price": True}, "field `price`: must be a valid number; got True"),
        ({"v": 2}, "field `v`: must be 1; got 2"),
        ({"v": True}, "field `v`: must be 1; got True"),
        ({"meta": 3}, "field `meta`: must be an object; got 3"),
        ({"features": 3}, "field `features`: must be an object; got 3"),
        ({"features": {"a": [1]}}, f"feature `a`: {A_VALUE}; got [1]"),
        ({"features": {"a": {}, "b": []}}, f"feature `a`: {A_VALUE}; got {{}} (and 1 more)"),
        ({"features": {"": 1}}, "the name of feature ``: must have at least 1 character; got ''"),
        (
            {"features": {str(number): 1 for number in range(300)}},
            "field `features` has 300 entries; at most 256 are read",
        ),
        (
            {"ts": "2026-05-01 13:30:00"},
            "field `ts`: is not an RFC 3339 time in UTC; write it like 2026-05-01T13:30:00Z; "
            "got '2026-05-01 13:30:00'",
        ),
        (
            {"ts": "2026-02-30T00:00:00Z"},
            "field `ts`: day is out of range for month; got '2026-02-30T00:00:00Z'",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_the_mend(
    change: dict[str, object], told: str
) -> None:
    assert reason(SIGNAL | change) == told


@pytest.mark.parametrize(
    "time",
    [
        1_700_000_000,
        None,
        "",
        "2026-05-01T13:30:00",
        "2026-05-01T24:00:00Z",
        "2026-05-01T23:59:60Z",
        "2026-05-01T13:30:00+02:00",
        "2026-05-01T13:30:00-00:00",
        "2026-05-01T133000.0Z",
        "2026-05-01T13:30:00.1234567890Z",
        "2026-05-01T13:30:0\u0660Z",
    ],
)
def test_what_is_no_time_in_utc_is_refused(time: object) -> None:
    assert "is not an RFC 3339 time in UTC" in reason(CLOSE | {"ts": time})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_numbers_that_are_not_finite_are_refused_everywhere(value: str) -> None:
    assert reason(with_features(f'{{"a": {value}}}')).startswith(f"feature `a`: {A_VALUE}; got ")
    price = json.dumps(SIGNAL)[:-1] + f', "price": {value}}}'
    assert reason(price.encode()).startswith("field `price`: must be a finite number; got ")
    assert reason(with_meta(f"[{value}]")).startswith("field `meta`: holds ")


@pytest.mark.parametrize("value", [str(2**64), str(-(2**63) - 1)])
def test_integers_in_notes_have_at_most_64_bits(value: str) -> None:
    assert "more than 64 bits; write it as a string" in reason(with_meta(value))


def test_numbers_with_thousands_of_digits_are_refused() -> None:
    assert "number out of range" in reason(with_meta("1" + "0" * 5_000))


def test_half_a_surrogate_pair_is_refused() -> None:
    assert "half of a surrogate pair" in reason(with_features(r'{"a": "\ud800"}'))
    assert "half of a surrogate pair" in reason(with_features(r'{"\ud800": 1}'))
    assert "half of a surrogate pair" in reason(with_meta(r'"\udc00"'))


def nested(levels: int) -> bytes:
    """A signal with so many levels; the event and `meta` are two of them."""
    return with_meta("[" * (levels - 2) + "]" * (levels - 2))


def test_deep_nesting_is_refused_from_one_level_on() -> None:
    event = decode(nested(MAX_NESTING))
    assert decode(encode(event)) == event
    for levels in (MAX_NESTING + 1, MAX_NESTING + 2, 600, 1_500, 30_000):
        assert "recursion limit exceeded" in reason(nested(levels))


def test_a_name_given_twice_must_be_right_each_time() -> None:
    told = reason(json.dumps(CLOSE)[:-1].encode() + b',"profit":"x","profit":1}')
    assert "`$.profit`" in told


def test_an_entry_too_long_is_refused_unread() -> None:
    told = "the entry has 65537 bytes; at most 65536 are read"
    assert reason(b"[" * (MAX_ENTRY_BYTES + 1)) == told


def test_names_and_values_too_long_are_refused_and_cut_in_the_message() -> None:
    for change in ({"symbol": "a" * 129}, {"features": {"a" * 129: 1}}, {"b" * 10_000: 1}):
        told = reason(SIGNAL | change)
        assert len(told) < 250
    assert "must have at most 128 characters" in reason(SIGNAL | {"symbol": "a" * 129})
    assert reason(SIGNAL | {"features": {"a": "x" * 257}}).startswith(f"feature `a`: {A_VALUE}")


def test_an_event_cannot_be_changed() -> None:
    event = decode(json.dumps(CLOSE).encode())
    with pytest.raises(AttributeError, match="immutable"):
        event.signal_id = "b"  # type: ignore[misc]
