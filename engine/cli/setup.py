"""`closeloop init`, `show-config`, `schema` and `doctor`: set closeloop up, and see that it is."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    note,
    print_json,
    results,
    settings,
)
from engine.config import DEFAULT_PATH, ConfigError
from engine.config_file import config_file
from engine.doctor import examine
from streams.connection import masked
from streams.schema import asyncapi, json_schema

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command("init")(init)
    app.command("show-config")(show_config)
    app.command("schema")(schema)
    app.command("doctor")(doctor)


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_PATH,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a settings file: every setting with its meaning and its default, commented out."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(config_file())
    except FileExistsError:
        raise ConfigError(
            f"{path} exists; name another file, or overwrite it with --force"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"can't write {path}: {error.strerror}; name a file in a folder you may write to"
        ) from None
    note(f"wrote {path}; `closeloop doctor` checks what it leads to")


def show_config(
    config: ConfigOption = None, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Print the settings in effect, from file, environment and defaults; secrets are masked."""
    effective = settings(config, address)
    shown = effective.model_dump(mode="json")
    shown["stream"]["address"] = masked(effective.stream.address)
    if as_json:
        print_json({"core_digest": effective.core.digest, "settings": shown})
        return
    table = Table("setting", Column("value", overflow="fold"))
    for name, value in _flat(shown):
        table.add_row(Text(name), Text("not set" if value is None else str(value)))
    table.add_section()
    table.add_row("digest of core", effective.core.digest)
    results().print(table)


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def schema(
    as_asyncapi: Annotated[
        bool,
        typer.Option("--asyncapi/--json-schema", help="Which of the two documents to print."),
    ] = False,
) -> None:
    """Print the wire contract: the events as JSON Schema, or the streams as AsyncAPI."""
    print_json(asyncapi() if as_asyncapi else json_schema())


def doctor(
    config: ConfigOption = None, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Check all that closeloop depends on, and say how to mend what is wrong.

    Looks at the server (version, persistence, eviction, memory), the streams, the lease, the
    clocks, the snapshots and the libraries. Changes nothing, and needs no worker. The exit status
    is 1 when there is a problem; warnings leave it 0.
    """
    diagnoses = list(examine(settings(config, address)))
    if as_json:
        print_json([asdict(diagnosis) for diagnosis in diagnoses])
    else:
        table = Table("", "check", Column("seen, and the mend", overflow="fold"))
        for diagnosis in diagnoses:
            style = _STYLES[diagnosis.level]
            seen = Text(diagnosis.seen)
            if diagnosis.mend is not None:
                seen.append(f"\n→ {diagnosis.mend}", style)
            table.add_row(Text(diagnosis.level, style), diagnosis.check, seen)
        results().print(table)
    if any(diagnosis.level == "problem" for diagnosis in diagnoses):
        raise typer.Exit(1)
