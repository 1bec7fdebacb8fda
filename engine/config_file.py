"""The commented `closeloop.toml`, made from the settings' own names, meanings and defaults.

Every setting stands there commented out, ``#name = default``, under its meaning, ``# prose``:
taking one `#` away sets it, and what is left alone follows the defaults of later releases.
"""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import orjson
from pydantic import BaseModel, TypeAdapter

from engine.config import Config

_WIDTH = 78
_LIMITS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
)
_HEAD = """\
closeloop's settings. Each stands here commented out with its default: take away the #
before its name to set it.

The environment comes before this file: CLOSELOOP_ and the path in capitals, parts joined by
two underscores, as in CLOSELOOP_STREAM__ADDRESS. Secrets are best given that way.

Everything under [core] changes the answers. Its digest stands in every decision, and a
snapshot made with another one isn't used: the state is then rebuilt from the stream.
"""


def config_file() -> str:
    """The text of a `closeloop.toml` that changes nothing and tells everything."""
    # Not Config(): that would read the environment.
    return "\n".join([*_prose(_HEAD), *_table(Config.model_construct(), ()), ""])


def _table(section: object, path: tuple[str, ...]) -> Iterator[str]:
    """A section's settings, then the sections inside it: TOML wants them in that order."""
    properties = TypeAdapter(type(section)).json_schema()["properties"]
    values = {name: getattr(section, name) for name in properties}
    if path:
        yield from ["", *_prose(_meaning(section)), f"[{'.'.join(path)}]"]
    for name, schema in properties.items():
        if not (_is_section(values[name]) or _are_sections(values[name])):
            yield from _setting(name, schema, values[name])
    for name, value in values.items():
        if _is_section(value) and _are_alike(value):
            yield from _like_tables(value, (*path, name))
        elif _is_section(value):
            yield from _table(value, (*path, name))
        elif _are_sections(value):
            yield from _named_tables(value, (*path, name))


def _is_section(value: object) -> bool:
    return isinstance(value, BaseModel) or is_dataclass(value)


def _are_sections(value: object) -> bool:
    return isinstance(value, dict) and any(map(_is_section, value.values()))


def _are_alike(section: object) -> bool:
    """Whether a section is nothing but sections of one kind."""
    values = list(dict(section).values()) if isinstance(section, BaseModel) else []
    return len(values) > 1 and _is_section(values[0]) and len(set(map(type, values))) == 1


def _like_tables(section: BaseModel, path: tuple[str, ...]) -> Iterator[str]:
    """Sections of one kind: what their settings mean stands there once."""
    fields = type(section).model_fields
    kind = type(getattr(section, next(iter(fields))))
    yield from ["", *_prose(_meaning(section))]
    for name, field in kind.model_fields.items():
        yield from _hanging(f"{name}: {field.description}")
    for name, field in fields.items():
        yield from ["", *_prose(field.description or ""), f"#[{'.'.join((*path, name))}]"]
        for setting, value in getattr(section, name).model_dump(exclude_none=True).items():
            yield f"#{setting} = {_toml(value)}"


def _hanging(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="#   ", subsequent_indent="#     ")


def _setting(name: str, schema: Mapping[str, Any], value: object) -> Iterator[str]:
    if "description" in schema:
        yield from ["", *_prose(schema["description"] + _limits(schema))]
    # What has no default is no TOML until somebody fills it in.
    yield f"#{name} ={'' if value is None else ' ' + _toml(value)}"


def _named_tables(sections: Mapping[str, BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    """Sections under names that the user chooses."""
    first = next(iter(sections.values()))
    yield from ["", *_prose(_meaning(first))]
    for name, field in type(first).model_fields.items():
        yield f"#   {name}: {field.description}"
    yield from _prose(f"These are the default {path[-1]}; naming one here replaces them all.")
    for name, section in sections.items():
        yield f"#[{'.'.join((*path, name))}]"
        given = section.model_dump(exclude_defaults=True)
        yield from (f"#{setting} = {_toml(value)}" for setting, value in given.items())


def _limits(schema: Mapping[str, Any]) -> str:
    limits = [phrase.format(schema[key]) for key, phrase in _LIMITS if key in schema]
    if "enum" in schema:
        limits.append("one of " + ", ".join(schema["enum"]))
    if "enum" in schema.get("items", ()):
        limits.append("any of " + ", ".join(schema["items"]["enum"]))
    return f" ({', '.join(limits)})" if limits else ""


def _toml(value: object) -> str:
    """`value` in TOML, which for scalars and lists is JSON; a table of those stands on one line."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name} = {_toml(one)}" for name, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return orjson.dumps(value, default=str).decode().replace('","', '", "')


def _meaning(section: object) -> str:
    return (type(section).__doc__ or "").partition("\n\n")[0]


def _prose(text: str) -> list[str]:
    lines = []
    for paragraph in text.strip().split("\n\n"):
        lines += [
            *textwrap.wrap(paragraph, _WIDTH, initial_indent="# ", subsequent_indent="# "),
            "#",
        ]
    return lines[:-1]
