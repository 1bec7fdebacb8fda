"""How someone else's trade log becomes a tape: the mapping, its presets, and what it refuses.

A path names a value in a record: `outcome.profit` is `profit` inside `outcome`; a CSV column goes
by its name. A path in the mapping must be in the log, unless it ends in `?`.
"""

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from engine.config import ConfigError
from engine.section import Section

PRESETS = {
    "confluence": "confluence.toml",
    "csv": "rows.toml",
    "freqtrade": "freqtrade.toml",
    "parquet": "rows.toml",
}
"""The mappings that come along, by name."""

FORMATS = ("jsonl", "json", "csv", "parquet")
REST = "*"
"""The feature pattern that means all that is left."""

LATER = re.compile(
    r"outcome|result|label|orders|duration|is_open|updated_at|funding_fees|fee_close"
    r"|(net_|realized_|gross_)?(profit|pnl)(_abs|_pct|_ratio)?|returns?(_pct)?|won|(is_)?win"
    r"|exit(_\w+)?|sell_reason|closed_at|close_(time|date|timestamp|price|rate|reason)"
    r"|(mfe|mae)(_pct)?|(max|min)_rate|hold(ing)?_(time|hours|minutes)|trade_duration"
    r"|stop_loss_(abs|ratio)|(stop|target)_hit"
)
"""Names that only a trade that has ended has a value for."""


class MappingError(ConfigError):
    """A mapping that can't be used; the message names the entry, the value and the mend."""


def _as_source(value: object) -> object:
    if isinstance(value, str | list):
        return {"path": value}
    return value


class Source(Section):
    """Where a field comes from. A string or a list in TOML is short for its `path`."""

    path: tuple[str, ...] = Field((), description="paths; the first with a value counts")
    default: str | float | bool | None = Field(None, description="the value where none has one")
    map: dict[str, str] = Field({}, description="from the log's words, in lower case, to ours")
    scale: float = Field(1.0, description="numbers are multiplied by it")

    @model_validator(mode="before")
    @classmethod
    def _one_path(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("path"), str):
            return given | {"path": (given["path"],)}
        return given

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.path and self.default is None:
            raise ValueError("give a path or a default")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The paths without their `?`."""
        return tuple(path.removesuffix("?") for path in self.path)

    @property
    def may_be_missing(self) -> bool:
        """Whether a log without any of the paths will do."""
        return self.default is not None or any(path.endswith("?") for path in self.path)


From = Annotated[Source, BeforeValidator(_as_source)]
Formats = Annotated[
    tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
]


class TimesMapping(Section):
    """How times are written."""

    timezone: str = Field("UTC", description="of times that name none: UTC, Europe/London, …")
    format: Formats = Field(
        ("auto",), description="auto (ISO 8601 or epoch), s, ms, us, ns, or strptime's; tried so"
    )


class SignalMapping(Section):
    """What was known at entry."""

    id: From | None = Field(None, description="the trade's name; without, one is derived")
    time: From = Field(description="of entry")
    symbol: From
    side: From = Field(description="long, buy, short, sell and the like, or by its map")
    strategy: From | None = None
    price: From | None = Field(None, description="of entry")
    baseline: From | None = Field(None, description="take or skip: what the bot's own rules did")
    features: tuple[str, ...] = Field(description="paths; `a.*`: all inside a; `*`: all the rest")
    exclude: tuple[str, ...] = Field((), description="paths that are no features after all")
    known_at_entry: tuple[str, ...] = Field(
        (), description="features known at entry though they are named like an outcome"
    )


class CloseMapping(Section):
    """How the trade ended. What is named here can be no feature, but for the stake and the fee."""

    status: From | None = Field(None, description="open, closed, or void (never a trade)")
    time: From | None = Field(None, description="of exit")
    return_pct: From | None = Field(None, description="percent, net of costs")
    exit_price: From | None = Field(None, description="gives the return where return_pct doesn't")
    fee_pct: From | None = Field(None, description="costs of entry and exit together, percent")
    profit: From | None = Field(None, description="in money")
    stake: From | None = Field(None, description="gives the return of a profit without prices")
    exit_reason: From | None = Field(None, description="target, stop, timeout or manual")
    mfe_pct: From | None = None
    mae_pct: From | None = None
    hold_minutes: From | None = Field(None, description="gives the time of exit without `time`")
    assume_hold_minutes: float | None = Field(
        None, gt=0, description="the time to exit where the log has neither"
    )
    executed: From | None = Field(None, description="false: tracked on paper")


class Mapping(Section):
    """From the records of a log to signals and closes."""

    format: Literal["jsonl", "json", "csv", "parquet"] | None = Field(
        None, description="without: by the file's suffix"
    )
    records: str = Field("", description="json: where the trades are; `*`: under every name")
    times: TimesMapping = TimesMapping()
    signal: SignalMapping
    close: CloseMapping

    @model_validator(mode="after")
    def _nothing_of_the_close_in_the_signal(self) -> Self:
        closing = set(closing_paths(self))
        for pattern in self.signal.features:
            name = pattern.removesuffix("?")
            if name == REST:
                continue
            inside = name.removesuffix(".*") + "."
            for path in closing:
                if path == name or (name.endswith(".*") and path.startswith(inside)):
                    raise ValueError(
                        f"signal.features: `{pattern}` takes in `{path}`, which [close] uses: "
                        "nobody knows it at entry; leave it out"
                    )
            if not name.endswith(".*") and later(name) and name not in self.signal.known_at_entry:
                raise ValueError(
                    f"signal.features: `{name}` is an outcome by its name; leave it out, or, if it "
                    "is known at entry, put it into signal.known_at_entry too"
                )
        return self


def sources(part: Section) -> Iterator[tuple[str, Source]]:
    """The fields of `[signal]` or `[close]` that come from the log."""
    for name in type(part).model_fields:
        source = getattr(part, name)
        if isinstance(source, Source):
            yield name, source


def closing_paths(mapping: Mapping) -> Iterator[str]:
    """All paths that `[close]` uses for what is known only then."""
    for name, source in sources(mapping.close):
        if name not in ("stake", "fee_pct"):
            yield from source.names


def later(path: str) -> bool:
    """Whether a part of the path is named like what only a trade that has ended has."""
    parts = path.lower().replace(" ", "_").replace("-", "_").split(".")
    return any(LATER.fullmatch(part) for part in parts)


def preset_text(name: str) -> str:
    """A preset's TOML. Raises `MappingError` for an unknown name."""
    if name not in PRESETS:
        raise MappingError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return (files("engine.evaluation") / "presets" / PRESETS[name]).read_text(encoding="utf-8")


def load_mapping(path: Path) -> Mapping:
    """A mapping file. Raises `MappingError` when it can't be read or isn't one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"{path}: can't be read: {error}") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, where: str) -> Mapping:
    """A mapping in TOML. Raises `MappingError` that names the entry."""
    try:
        return Mapping.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"{where}: not TOML: {error}") from error
    except ValidationError as error:
        # A name misspelt says more than that another is missing.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        entry = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "there is no such entry"
        raise MappingError(
            f"{where}: {entry + ': ' if entry else ''}{message}; "
            "`closeloop import --show-preset csv` prints a mapping with every entry"
        ) from error
