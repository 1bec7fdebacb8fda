"""What a log has: its paths, their types, the values of its lists; and the mapping held against it.

A log is read twice. The first time nothing is converted; so an unknown path is named before
anything is written, and a feature has one type and one set of names throughout.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches

from engine.evaluation.import_mapping import (
    REST,
    Mapping,
    MappingError,
    closing_paths,
    later,
    sources,
)
from engine.evaluation.import_records import KEY, Flat, Record, Scalar
from streams.values import MAX_FEATURES, MAX_NAME

MAX_VALUES = 64
"""Values of a list that become features; a list of more is no set of tags."""
_DISTINCT = 200


@dataclass(slots=True)
class Column:
    """What stands under one path over all records."""

    count: int = 0
    numeric: bool = True
    boolean: bool = True
    words: bool = False
    times: bool = False
    is_list: bool = False
    values: set[str] = field(default_factory=set)
    """Of a list its elements, else the texts; at most a few."""

    def see(self, value: Scalar | list[Scalar]) -> None:
        """Take in one value."""
        if value is None:
            return
        self.count += 1
        if isinstance(value, list):
            self.is_list = True
            if len(self.values) <= _DISTINCT:
                self.values.update(str(item) for item in value)
        elif isinstance(value, datetime):
            self.times = True
        elif isinstance(value, str):
            self.words = True
            self.numeric = self.numeric and is_number(value)
            self.boolean = self.boolean and value.lower() in ("true", "false")
            if len(self.values) <= _DISTINCT:
                self.values.add(value)
        elif isinstance(value, bool):
            self.numeric = False
        else:
            self.boolean = False

    @property
    def is_text(self) -> bool:
        """Whether some of it is written as neither a number nor true or false."""
        return self.words and not (self.numeric or self.boolean)

    @property
    def is_note(self) -> bool:
        """Whether it is a text that nearly every record has another of: an ID, a comment."""
        distinct = len(self.values)
        return self.is_text and (
            distinct > _DISTINCT or (distinct > 20 and distinct * 2 > self.count)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the paths.

    Parameters
    ----------
    features
        Plain features: their paths.
    lists
        Lists: their path, and the values each of which becomes a feature.
    left_out
        Paths that `*` or `a.*` could have meant, and why they are no features.
    columns
        By path.
    """

    features: list[str]
    lists: dict[str, list[str]]
    left_out: dict[str, str]
    columns: dict[str, Column]

    def of(self, flat: Flat) -> dict[str, float | bool | str | None]:
        """A record's features."""
        found: dict[str, float | bool | str | None] = {}
        for path in self.features:
            value = flat.get(path)
            column = self.columns[path]
            if isinstance(value, str):
                if column.numeric:
                    value = float(value)
                elif column.boolean:
                    value = value.lower() == "true"
            elif value is not None and column.is_text:
                value = str(value)
            assert not isinstance(value, list | datetime)
            found[path] = value
        for path, names in self.lists.items():
            value = flat.get(path)
            having = {str(item) for item in value} if isinstance(value, list) else None
            for name in names:
                found[f"{path}.{name}"] = None if having is None else name in having
        return found


def is_number(text: str) -> bool:
    """Whether a text is written as a finite number."""
    try:
        return abs(float(text)) != float("inf")
    except ValueError:
        return False


def survey(records: Iterable[Record]) -> dict[str, Column]:
    """Every path of the records and what stands there."""
    columns: dict[str, Column] = {}
    for record in records:
        for path, value in (record.flat or {}).items():
            columns.setdefault(path, Column()).see(value)
    return columns


def plan(mapping: Mapping, columns: dict[str, Column]) -> Plan:
    """The mapping held against what the log has.

    Raises `MappingError` for a path that isn't there, with the nearest that are, and for features
    that can't be.
    """
    for part, section in (("signal", mapping.signal), ("close", mapping.close)):
        for name, source in sources(section):
            if not source.may_be_missing and not any(path in columns for path in source.names):
                raise _unknown(f"{part}.{name}", list(source.names), columns)
    used = {path for _, source in sources(mapping.signal) for path in source.names}
    closing = set(closing_paths(mapping))
    excluded: set[str] = set()
    for pattern in mapping.signal.exclude:
        excluded.update(_matching("signal.exclude", pattern, columns))
    features: list[str] = []
    lists: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    for pattern in mapping.signal.features:
        named = not pattern.removesuffix("?").endswith(REST)
        for path in _matching("signal.features", pattern, columns):
            if path in excluded or path in lists or path in features:
                continue
            if not named and (path in used or path in closing or path == KEY):
                continue
            column = columns[path]
            reason = None if named else _no_feature(path, column, mapping)
            if reason is not None:
                left_out[path] = reason
            elif column.times:
                raise MappingError(f"signal.features: `{path}` is a time; leave it out")
            elif not column.is_list:
                features.append(path)
            elif len(column.values) > MAX_VALUES:
                left_out[path] = f"a list of more than {MAX_VALUES} different values"
            else:
                lists[path] = sorted(column.values)
    _check_names([*features, *(f"{p}.{v}" for p, values in lists.items() for v in values)])
    return Plan(features, lists, left_out, columns)


def _no_feature(path: str, column: Column, mapping: Mapping) -> str | None:
    if later(path) and path not in mapping.signal.known_at_entry:
        return "an outcome by its name"
    if not column.count:
        return "always empty"
    if column.times or all(_looks_like_time(value) for value in column.values or ("",)):
        return "a time"
    return "a text that is another nearly each time" if column.is_note else None


def _looks_like_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return not is_number(text)


def _matching(entry: str, pattern: str, columns: dict[str, Column]) -> Iterator[str]:
    name = pattern.removesuffix("?")
    if name == REST:
        yield from columns
    elif name.endswith(".*"):
        inside = [path for path in columns if path.startswith(name[:-1])]
        if not inside and name == pattern:
            raise _unknown(entry, [name.removesuffix(".*")], columns)
        yield from inside
    elif name in columns:
        yield name
    elif name == pattern:
        raise _unknown(entry, [name], columns)


def _unknown(entry: str, paths: list[str], columns: dict[str, Column]) -> MappingError:
    known = {path.lower(): path for path in columns}
    # Groups can be meant too, and the same name elsewhere.
    for path in columns:
        parts = path.split(".")
        for end in range(1, len(parts)):
            known.setdefault(".".join(parts[:end]).lower(), ".".join(parts[:end]))
    near: list[str] = []
    for path in paths:
        leaf = path.lower().rpartition(".")[2]
        near += [
            *get_close_matches(path.lower(), known, 3, 0.5),
            *(low for low in known if low.rpartition(".")[2] == leaf),
        ]
    nearest = ", ".join(f"`{known[low]}`" for low in dict.fromkeys(near)) or "nothing like it"
    wanted = " or ".join(f"`{path}`" for path in paths)
    return MappingError(
        f"{entry}: no record has {wanted}; nearest: {nearest}; "
        f'correct it, or write "{paths[0]}?" if it may be missing'
    )


def _check_names(names: list[str]) -> None:
    if len(names) > MAX_FEATURES:
        raise MappingError(
            f"signal.features: {len(names)} features; a signal has at most {MAX_FEATURES}: "
            "put some into signal.exclude"
        )
    for name in names:
        if len(name) > MAX_NAME:
            raise MappingError(
                f"signal.features: the name `{name[:60]}…` is longer than {MAX_NAME} characters; "
                "put it into signal.exclude"
            )
