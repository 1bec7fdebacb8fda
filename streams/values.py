"""The values that events are made of: names, times, features, notes, and what is right for each."""

import re
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

MAX_FEATURES = 256
MAX_NAME = 128
MAX_TEXT = 256
MAX_NESTING = 200
"""Levels of objects and arrays in an event. How many Python bears depends on its stack."""

RFC3339_UTC = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]"
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|\+00:00)$"
)
_rfc3339_utc = re.compile(RFC3339_UTC[1:-1])
_INT64, _UINT64 = -(2**63), 2**64 - 1

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Id = Name
"""A signal's name, given by the bot and unique for good."""
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
FeatureValue = float | bool | Text | None
"""A feature as the bot saw it. A number, a bool, a category, or null where it is missing."""
Features = Annotated[dict[Name, FeatureValue], Meta(max_length=MAX_FEATURES)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Notes = dict[str, Any]

if TYPE_CHECKING:
    Timestamp = datetime
    Version = int
else:
    # msgspec would read a time more widely, and round it; so these go through `read_value`, as
    # types that it doesn't know. What comes back passes as an instance of them.

    class _AsTime(type):
        __instancecheck__ = datetime.__instancecheck__

    class Timestamp(metaclass=_AsTime):
        """RFC 3339 in UTC on the wire, a `datetime` in UTC in Python."""

    class _AsInt(type):
        __instancecheck__ = int.__instancecheck__

    class Version(metaclass=_AsInt):
        """1."""


def read_value(kind: type, value: object) -> object:
    """msgspec's ``dec_hook``. Raises `ValueError` that says what is right."""
    return timestamp(value) if kind is Timestamp else version(value)


def value_schema(kind: type) -> dict[str, object]:
    """msgspec's ``schema_hook``."""
    if kind is Timestamp:
        return {"type": "string", "format": "date-time", "pattern": RFC3339_UTC}
    return {"const": 1}


def timestamp(value: object) -> datetime:
    """A time in UTC to the microsecond, from RFC 3339 (finer digits are cut off) or a `datetime`.

    Raises `ValueError` for what isn't one, with what is wrong with it.
    """
    if isinstance(value, str):
        if value[4::3] == "--T::Z" and len(value) == 20:
            # The usual form at a third of the pattern's price: what is between is checked here.
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                pass  # The pattern says what is wrong.
        if _rfc3339_utc.fullmatch(value):
            return datetime.fromisoformat(value.upper())
    if isinstance(value, datetime) and value.utcoffset() is not None:
        try:
            utc = value.astimezone(UTC)
        except OverflowError:
            raise ValueError("is outside the years 1 to 9999 in UTC") from None
        # pandas' Timestamp is a datetime too.
        return utc if type(utc) is datetime else datetime.combine(utc.date(), utc.time(), UTC)
    raise ValueError("is not an RFC 3339 time in UTC; write it like 2026-05-01T13:30:00Z")


def version(value: object) -> int:
    """1, if `value` is that; True isn't. Raises `ValueError` otherwise."""
    if value == 1 and not isinstance(value, bool):
        return 1
    raise ValueError("must be 1")


def check_notes(notes: Notes) -> None:
    """Raise `ValueError` unless every reader of JSON can read `notes`.

    Finite numbers, integers of at most 64 bits, strings as names, and no more than `MAX_NESTING`
    levels with the event itself.
    """
    level: list[object] = [notes]
    for _ in range(1, MAX_NESTING):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                for name in item:
                    if not isinstance(name, str):
                        raise ValueError(f"has the name {name!r}; JSON has strings as names only")
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
            elif isinstance(item, float):
                if not isfinite(item):
                    raise ValueError(f"holds {item}; JSON has finite numbers only")
            elif isinstance(item, int):
                if not _INT64 <= item <= _UINT64:
                    raise ValueError("holds an integer of more than 64 bits; write it as a string")
            elif item is not None and not isinstance(item, str):
                raise ValueError(f"holds a {type(item).__name__}, which JSON doesn't have")
        if not below:
            return
        level = below
    raise ValueError(f"recursion limit exceeded: at most {MAX_NESTING} levels are read")
