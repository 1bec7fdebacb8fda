"""Trade logs as flat records: JSON lines, JSON documents (zipped too), CSV and Parquet.

A record is a dict from paths to values, so that `{"vwap": {"in_band": true}}` and a CSV column
`vwap.in_band` read the same.
"""

import csv
import gzip
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from engine.evaluation.import_mapping import FORMATS, MappingError
from streams.errors import TapeError
from streams.tape import Tape

KEY = "@key"
"""The path of the name that the last `*` of `records` stood for."""

Scalar = float | bool | str | datetime | None
Flat = dict[str, Scalar | list[Scalar]]


@dataclass(frozen=True, slots=True)
class Record:
    """One trade as its log has it.

    Parameters
    ----------
    path, number
        Where it stands: its line, or which of the trades it is; the first is 1.
    flat
        The values by path; None when it is no record.
    raw
        What to show of it when it is refused.
    error
        Why it is no record.
    """

    path: Path
    number: int
    flat: Flat | None
    raw: object
    error: str = ""


def read_records(
    path: Path, form: str | None, where: str, progress: Callable[[float], None]
) -> Iterator[Record]:
    """The records of one log, in its order; `progress` hears how much of it is read.

    Raises `TapeError` for a file that can't be read, `MappingError` when its format isn't known or
    there are no trades where the mapping says.
    """
    form = form or _by_suffix(path)
    try:
        if form == "jsonl":
            yield from _json_lines(path, progress)
        elif form == "csv":
            yield from _csv(path)
        elif form == "parquet":
            yield from _parquet(path, progress)
        else:
            yield from _document(path, where)
    except (OSError, UnicodeDecodeError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise TapeError(f"{path}: can't be read as {form}: {error}") from error
    progress(1.0)


def flatten(value: Mapping[str, Any], prefix: str = "") -> Flat:
    """The values of nested objects by their dotted paths; lists of plain values stay lists."""
    flat: Flat = {}
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if isinstance(inner, Mapping):
            flat |= flatten(inner, f"{path}.")
        elif isinstance(inner, list | tuple):
            if not any(isinstance(item, Mapping | list | tuple) for item in inner):
                flat[path] = [item for item in map(_plain, inner) if item is not None]
        else:
            flat[path] = _plain(inner)
    return flat


def _plain(value: Any) -> Scalar:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, datetime):
        # Parquet's may be pandas' own, to the nanosecond.
        return datetime.combine(value.date(), value.time(), value.tzinfo)
    if isinstance(value, str):
        return value if value.strip().lower() not in ("", "nan") else None
    if isinstance(value, int):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if hasattr(value, "__float__"):  # floats, decimals
        number = float(value)
        return number if math.isfinite(number) else None
    return str(value)


def _by_suffix(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    suffix = suffixes[-1].lower().lstrip(".") if suffixes else ""
    known = {"zip": "json", "ndjson": "jsonl", "pq": "parquet", "tsv": "csv", "txt": "csv"}
    form = known.get(suffix, suffix)
    if form not in FORMATS:
        raise MappingError(
            f"{path}: the format isn't known by the suffix {path.suffix!r}; "
            f"write `format` into the mapping: {', '.join(FORMATS)}"
        )
    return form


def _json_lines(path: Path, progress: Callable[[float], None]) -> Iterator[Record]:
    tape = Tape(path)
    for line in tape:
        progress(tape.progress)
        text = line.data.decode("utf-8", "replace")
        try:
            # Not orjson: other programs write NaN.
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Record(path, line.number, None, text, f"not JSON: {error}")
            continue
        if isinstance(found, dict):
            yield Record(path, line.number, flatten(found), found)
        else:
            yield Record(path, line.number, None, text, "not a JSON object")


def _csv(path: Path) -> Iterator[Record]:
    raw = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 - closed below
    with raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        header = text.readline()
        delimiter = max(",;\t|", key=header.count)
        names = next(csv.reader([header], delimiter=delimiter), [])
        reader = csv.reader(text, delimiter=delimiter)
        for row in reader:
            number = reader.line_num + 1  # the header was read before
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                error = f"{len(row)} columns where the header has {len(names)}"
                yield Record(path, number, None, row, error)
            else:
                raw_row = dict(zip(names, row, strict=True))
                flat = flatten({name.strip(): cell.strip() for name, cell in raw_row.items()})
                yield Record(path, number, flat, raw_row)


def _parquet(path: Path, progress: Callable[[float], None]) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        rows, number = max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield Record(path, number, flatten(row), row)
            progress(number / rows)
    except pa.ArrowException as error:
        raise TapeError(f"{path}: can't be read as parquet: {error}") from error


def _document(path: Path, where: str) -> Iterator[Record]:
    data = _unzipped(path) if zipfile.is_zipfile(path) else path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TapeError(f"{path}: not JSON: {error}") from error
    trades = _at(document, where.split(".") if where else [], "", path, where)
    for number, (key, found) in enumerate(trades, 1):
        if isinstance(found, dict):
            flat = flatten(found)
            if key:
                flat[KEY] = key
            yield Record(path, number, flat, found)
        else:
            yield Record(path, number, None, found, "not a JSON object")


def _unzipped(path: Path) -> bytes:
    """The document in a zip: the one named like it, else the only one there."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".json")]
        own = f"{path.stem}.json"
        others = [name for name in names if not name.endswith(("_config.json", ".meta.json"))]
        chosen = own if own in names else others[0] if len(others) == 1 else None
        if chosen is None:
            raise TapeError(f"{path}: no {own} in it; unpack the document and name that")
        return archive.read(chosen)


def _at(
    found: Any, parts: list[str], key: str, path: Path, where: str
) -> Iterator[tuple[str, object]]:
    if not parts:
        if not isinstance(found, list):
            raise MappingError(
                f"{path}: no list of trades at `{where or 'the top'}`; "
                "say in the mapping's `records` where it stands"
            )
        for item in found:
            yield key, item
        return
    part, *rest = parts
    if not isinstance(found, dict):
        raise MappingError(f"{path}: nothing inside at `{part}` of records = {where!r}")
    if part == "*":
        for name, inner in found.items():
            yield from _at(inner, rest, str(name), path, where)
    elif part in found:
        yield from _at(found[part], rest, key, path, where)
    else:
        names = ", ".join(map(str, list(found)[:8]))
        raise MappingError(f"{path}: no `{part}` of records = {where!r}; there are {names}")
