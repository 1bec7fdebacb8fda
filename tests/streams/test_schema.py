"""The published schema says what the decoder does."""

import json
from datetime import datetime

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator, FormatChecker

from streams.events import Input, encode, read_entry
from streams.keys import Keys
from streams.schema import CHANNELS, asyncapi, json_schema
from tests.streams.generated import events, nearly_events

TAPE = [
    '{"type":"signal","signal_id":"89e4","ts":"2006-03-28T07:00:00Z","symbol":"XAUUSD",'
    '"side":"long","strategy":"orb","price":567.05,"features":{"rsi":67.878509,"hour":6.0,'
    '"session":"Tokyo","gap":null,"up":true}}',
    '{"type":"close","signal_id":"89e4","ts":"2006-03-28T09:00:00Z","exit_price":565.610471,'
    '"exit_reason":"stop","return_pct":-0.273863,"profit":-27.3863,"mfe_pct":0.070541,'
    '"mae_pct":0.405608,"hold_minutes":120}',
    '{"type":"signal","signal_id":"1d6b","ts":"2006-03-28T09:00:00.250Z","symbol":"XAUUSD",'
    '"side":"short","features":{},"v":1,"meta":{"note":["any",{"json":1}]}}',
    '{"type":"close","signal_id":"1d6b","ts":"2006-03-28T14:00:00+00:00","return_pct":0,'
    '"executed":false}',
    '{"type":"control","command":"refit","ts":"2006-03-28T15:00:00Z","by":"ana",'
    '"reason":"new data","args":{"window":500},'
    '"sig":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"}',
]
BAD = [
    "[]",
    "{}",
    '{"type":"sell"}',
    '{"type":"close","signal_id":"a","ts":"2006-03-28T14:00:00Z"}',
    '{"type":"close","signal_id":"a","ts":"2006-03-28T14:00:00Z","return_pct":"1"}',
    '{"type":"close","signal_id":"a","ts":"2006-03-28T14:00:00Z","return_pct":true}',
    '{"type":"close","signal_id":"a","ts":"2006-03-28T14:00:00","return_pct":1}',
    '{"type":"close","signal_id":"","ts":"2006-03-28T14:00:00Z","return_pct":1}',
    '{"type":"close","signal_id":"a","ts":"2006-03-28T14:00:00Z","return_pct":1,"v":true}',
    '{"type":"close","signal_id":"a","ts":"2006-03-28T14:00:00Z","return_pct":1,"fee":1}',
    '{"signal_id":"a","ts":"2006-03-28T14:00:00Z","return_pct":1}',
]

formats = FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)
def a_day_in_the_calendar(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.fromisoformat(value.upper()))


INPUT_SCHEMA = json_schema() | {
    "oneOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in CHANNELS["events"]]
}
INPUT = Draft202012Validator(INPUT_SCHEMA, format_checker=formats)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("line", TAPE)
def test_lines_of_a_tape_fit_it(line: str) -> None:
    assert [error.message for error in INPUT.iter_errors(json.loads(line))] == []
    assert read_entry("0-1", line.encode()).error is None


@pytest.mark.parametrize("line", BAD)
def test_what_is_no_event_does_not_fit_it(line: str) -> None:
    assert not INPUT.is_valid(json.loads(line))
    assert read_entry("0-1", line.encode()).error is not None


@given(events)
def test_every_event_fits_it(event: Input) -> None:
    assert INPUT.is_valid(json.loads(encode(event)))


@given(nearly_events())
def test_it_and_the_decoder_agree_on_what_is_nearly_an_event(fields: dict[str, object]) -> None:
    decoded = read_entry("0-1", json.dumps(fields).encode()).event is not None
    assert INPUT.is_valid(fields) == decoded


def test_it_does_not_change_from_call_to_call() -> None:
    assert json.dumps(json_schema()) == json.dumps(json_schema())
    assert json.dumps(asyncapi()) == json.dumps(asyncapi())


# AsyncAPI


def test_every_stream_has_its_channel() -> None:
    ours = {name for name in vars(Keys) if isinstance(vars(Keys)[name], property)}
    assert set(asyncapi()["channels"]) == ours - {
        "checkpoint",
        "lease",
        "notified",
        "standby",
        "view",
    }


def test_a_channel_with_its_shard_is_the_key() -> None:
    for name, channel in asyncapi()["channels"].items():
        assert channel["address"].replace("{shard}", "{3}") == getattr(Keys(3), name)


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi()
    references = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            references.extend([value["$ref"]] if "$ref" in value else [])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert references
    for reference in references:
        target: object = document
        for part in reference.removeprefix("#/").split("/"):
            assert isinstance(target, dict)
            target = target[part]


def test_every_channel_is_written_and_read_by_someone_but_snapshots() -> None:
    uses = {
        (operation["channel"]["$ref"].rpartition("/")[2], operation["action"])
        for operation in asyncapi()["operations"].values()
    }
    everything = {(name, action) for name in CHANNELS for action in ("send", "receive")}
    assert everything - uses == {("snapshots", "receive")}


def test_its_payloads_are_the_schema() -> None:
    document = asyncapi()
    schemas = json.dumps(document["components"]["schemas"])
    assert schemas.replace("#/components/schemas/", "#/$defs/") == json.dumps(
        json_schema()["$defs"]
    )
