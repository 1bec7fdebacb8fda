"""Why something is no event, for a person: which field, which value, and what is right.

msgspec stops at the first fault and names neither the feature nor the value. Here what it refused
is read once more, loosely, and gone through by the same types. Of the few types that only outputs
have nothing is known here; about those msgspec's own words are given.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from math import inf, isfinite
from typing import Any

from msgspec import Struct, inspect
from pydantic_core import from_json

from streams.values import MAX_TEXT, Timestamp, check_notes, timestamp, version

_Place = tuple[object, ...]
_FEATURE = f"must be a finite number, a bool, a string of at most {MAX_TEXT} characters, or null"


def why_not(data: bytes, models: Sequence[type[Struct]], refused: Exception) -> str:
    """Why `data` is none of `models`, in one line; `refused` is the decoder's word on it."""
    try:
        given = from_json(data)
    except ValueError as error:
        return _not_json(data, str(error))
    if not isinstance(given, dict):
        return "not a JSON object"
    tags = {str(model.__struct_config__.tag): model for model in models}
    if len(tags) == 1:
        ((tag, model),) = tags.items()
        if given.get("type", tag) != tag:
            return f"field `type`: must be {tag!r}; got {_short(given['type'])}"
    else:
        known = f"it is one of {', '.join(tags)}"
        if "type" not in given:
            return f"field `type` is missing; {known}"
        kind = given["type"]
        if not isinstance(kind, str) or kind not in tags:
            return f"unknown type {_short(kind)}; {known}"
        model = tags[kind]
    found = list(faults(model, given))
    if not found:
        return " ".join(str(refused).split())[:200]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0]}{more}"


def faults(model: type[Struct], given: Mapping[str, object]) -> Iterator[str]:
    """Everything for which `given`, by names of fields, is no `model`: its fields in order."""
    return _in_struct(_type_of(model), given, ())


@cache
def _type_of(model: type[Struct]) -> inspect.StructType:
    kind = inspect.type_info(model)
    assert isinstance(kind, inspect.StructType)
    return kind


def _in_struct(
    kind: inspect.StructType, given: Mapping[str, object], place: _Place
) -> Iterator[str]:
    for field in kind.fields:
        inner = (*place, field.name)
        if field.name in given:
            yield from _in(field.type, given[field.name], inner)
        elif field.required:
            yield f"{_where(inner)} is missing"
    known = {field.name for field in kind.fields} | {kind.tag_field}
    for name in given:
        if name not in known:
            yield f"{_where((*place, name))} is not part of the contract; put it under `meta`"


def _in(kind: inspect.Type, value: object, place: _Place) -> Iterator[str]:
    """The faults of one value, and of what it holds."""
    if isinstance(kind, inspect.Metadata):
        yield from _in(kind.type, value, place)
        return
    if isinstance(kind, inspect.UnionType):
        yield from _in_union(kind, value, place)
        return
    wrong = _wrong(kind, value)
    if wrong is not None:
        yield f"{_where(place)}: {wrong}; got {_short(value)}"
    elif isinstance(kind, inspect.DictType) and isinstance(value, dict):
        if kind.max_length is not None and len(value) > kind.max_length:
            most = f"at most {kind.max_length} are read"
            yield f"{_where(place)} has {len(value)} entries; {most}"
            return
        for name, item in value.items():
            wrong = _wrong(kind.key_type, name)
            if wrong is not None:
                yield f"the name of {_where((*place, name))}: {wrong}; got {_short(name)}"
            yield from _in(kind.value_type, item, (*place, name))
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        yield from _in_struct(kind, value, place)


def _in_union(kind: inspect.UnionType, value: object, place: _Place) -> Iterator[str]:
    if value is None and any(isinstance(member, inspect.NoneType) for member in kind.types):
        return
    members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
    if len(members) == 1:
        yield from _in(members[0], value, place)
    elif all(_wrong(member, value) is not None for member in members):
        yield f"{_where(place)}: {_FEATURE}; got {_short(value)}"


def _wrong(kind: inspect.Type, value: object) -> str | None:
    """What `value` isn't, whatever it holds; None when it is right."""
    match kind:
        case inspect.FloatType():
            return _wrong_number(kind, value)
        case inspect.StrType():
            return _wrong_text(kind, value)
        case inspect.BoolType() if not isinstance(value, bool):
            return "must be a valid boolean"
        case inspect.LiteralType() if value not in kind.values:
            *most, last = map(repr, kind.values)
            return f"must be {', '.join(most)} or {last}"
        case inspect.DictType() | inspect.StructType() if not isinstance(value, dict):
            return "must be an object"
        case inspect.DictType() if isinstance(kind.value_type, inspect.AnyType):
            return _said(check_notes, value)
        case inspect.CustomType():
            return _said(timestamp if kind.cls is Timestamp else version, value)
    return None


def _wrong_number(kind: inspect.FloatType, value: object) -> str | None:
    # Numbers of numpy and the like, which a bot gives, have `__float__`.
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return "must be a valid number"
    try:
        number = float(value)
    except OverflowError:
        number = inf
    except (TypeError, ValueError):
        return "must be a valid number"
    if not isfinite(number):
        return "must be a finite number"
    if kind.ge is not None and number < kind.ge:
        return f"must be greater than or equal to {kind.ge:g}"
    if kind.le is not None and number > kind.le:
        return f"must be less than or equal to {kind.le:g}"
    return None


def _wrong_text(kind: inspect.StrType, value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a valid string"
    if kind.min_length is not None and len(value) < kind.min_length:
        return f"must have at least {_characters(kind.min_length)}"
    if kind.max_length is not None and len(value) > kind.max_length:
        return f"must have at most {_characters(kind.max_length)}"
    if kind.pattern is not None and not re.search(kind.pattern, value):
        return f"must match pattern '{kind.pattern}'"
    return None


def _said(check: Callable[[Any], object], value: object) -> str | None:
    try:
        check(value)
    except ValueError as error:
        return str(error)
    return None


def _not_json(data: bytes, complaint: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
    if not text.strip():
        return "empty"
    if text.startswith("\ufeff"):
        return "not JSON: it starts with a byte order mark; write UTF-8 without one"
    if "hex escape" in complaint:
        complaint = f"a \\u escape is cut short or half of a surrogate pair ({complaint})"
    return f"not JSON: {complaint}"


def _where(place: _Place) -> str:
    """The field's name as its writer knows it."""
    kind = "feature" if place[0] == "features" and len(place) > 1 else "field"
    path = repr(".".join(map(str, place[1:] if kind == "feature" else place)))[1:-1]
    return f"{kind} `{path if len(path) <= 64 else path[:61] + '...'}`"


def _characters(number: int) -> str:
    return "1 character" if number == 1 else f"{number} characters"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 64 else shown[:61] + "..."
