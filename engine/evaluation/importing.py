"""Someone else's trade log into a tape.

Each trade becomes a signal at its entry and a close at its exit. The tape is in the order of time,
closes before signals at the same time, as the engine would have seen them. A record that can't be
used is kept beside the tape with the reason.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson
from msgspec.structs import replace

from engine.evaluation.import_fields import Fields, Unusable
from engine.evaluation.import_mapping import Mapping
from engine.evaluation.import_records import Record, read_records
from engine.evaluation.import_survey import Plan, plan, survey
from engine.evaluation.pages import Findings, Table
from engine.ledger import to_micros
from streams import Close, EventError, Signal, TapeError
from streams.protocol import prepared
from streams.tape import write_tape

# What comes first at the same time. A trade that ends as it begins still begins first.
_CLOSE, _SIGNAL, _OWN_CLOSE = range(3)
_SHOWN = 20


@dataclass(slots=True)
class _Trade:
    """What is written of one trade so far."""

    opened: datetime
    digest: bytes
    closed: bool


@dataclass(slots=True)
class _Import:
    """The tape while it is made."""

    mapping: Mapping
    plan: Plan
    fields: Fields
    events: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    trades: dict[str, _Trade] = field(default_factory=dict)
    rejected: list[bytes] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def take(self, record: Record) -> None:
        self.counts["records"] += 1
        try:
            if record.flat is None:
                raise Unusable(record.error)
            self._convert(record)
        except (Unusable, EventError) as error:
            reason = str(error)
            self.reasons[reason.partition("; got")[0]] += 1
            told = {
                "log": str(record.path),
                "number": record.number,
                "reason": reason,
                "record": record.raw,
            }
            self.rejected.append(orjson.dumps(told, default=str))

    def _convert(self, record: Record) -> None:
        flat, read = record.flat or {}, self.fields
        status = read.status(flat)
        opened = read.time("signal.time", self.mapping.signal.time, flat)
        if opened is None:
            raise Unusable("signal.time: no value")
        side = read.side(flat)
        price = read.number("signal.price", self.mapping.signal.price, flat)
        close = None if status == "open" else read.close(flat, opened, side, price)
        named = read.text("signal.id", self.mapping.signal.id, flat)
        signal = Signal(
            signal_id=named or "",
            ts=opened,
            symbol=read.needed("signal.symbol", self.mapping.signal.symbol, flat),
            side=side,
            features=self.plan.of(flat),
            strategy=read.text("signal.strategy", self.mapping.signal.strategy, flat),
            price=price,
            baseline=read.baseline(flat),
        )
        digest = hashlib.blake2b(repr(sorted(flat.items())).encode(), digest_size=8).digest()
        name = named or self._derived(signal, digest, close is not None)
        before = self.trades.get(name)
        if before is not None:
            self._complete(name, before, digest, close)
            return
        signal_bytes = prepared(replace(signal, signal_id=name))
        close_bytes = None if close is None else prepared(replace(close, signal_id=name))
        self.trades[name] = _Trade(opened, digest, close is not None)
        self._add(opened, _SIGNAL, signal_bytes)
        self.counts["signals"] += 1
        if close is not None and close_bytes is not None:
            self._add_close(close, opened, close_bytes)

    def _complete(self, name: str, before: _Trade, digest: bytes, close: Close | None) -> None:
        """A second record of a trade: its close, if only its signal is there yet."""
        if digest == before.digest:
            raise Unusable("the same record again")
        if before.closed or close is None:
            raise Unusable(f"another record of a trade that is there; got {name!r}")
        if close.ts < before.opened:
            raise Unusable("it ends before it begins")
        self._add_close(close, before.opened, prepared(replace(close, signal_id=name)))
        before.closed = True
        self.counts["completed_by_a_later_record"] += 1

    def _add_close(self, close: Close, opened: datetime, data: bytes) -> None:
        self._add(close.ts, _OWN_CLOSE if close.ts == opened else _CLOSE, data)
        self.counts["closes"] += 1

    def _add(self, ts: datetime, kind: int, data: bytes) -> None:
        self.events.append((to_micros(ts), kind, len(self.events), data))

    def _derived(self, signal: Signal, digest: bytes, closed: bool) -> str:
        """A name that is the same in every import; trades alike in all of it are numbered."""
        parts = [signal.symbol, signal.side, signal.strategy, signal.ts.isoformat(), signal.price]
        stem = hashlib.blake2b(orjson.dumps(parts), digest_size=8).hexdigest()
        name, number = stem, 1
        while (there := self.trades.get(name)) is not None:
            if there.digest == digest or (closed and not there.closed):
                break
            number += 1
            name = f"{stem}-{number}"
        return name


def import_logs(
    logs: Sequence[Path],
    out: Path,
    mapping: Mapping,
    progress: Callable[[float], None] = lambda _: None,
) -> Findings:
    """Write the trades of `logs` as a tape, and beside it what couldn't be used, if anything.

    The log is read twice: once for what is there, once for the events, which are held in memory as
    bytes until they are sorted. Raises `MappingError` for what the mapping names and the log lacks,
    `TapeError` for what can't be read or written.
    """

    def read(log: int, share: float) -> Callable[[float], None]:
        return lambda done: progress((share + (log + done) / len(logs)) / 2)

    columns = survey(
        record
        for number, log in enumerate(logs)
        for record in read_records(log, mapping.format, mapping.records, read(number, 0.0))
    )
    if not columns:
        raise TapeError(f"{', '.join(map(str, logs))}: no records; name a log with trades")
    importing = _Import(mapping, plan(mapping, columns), Fields(mapping))
    for number, log in enumerate(logs):
        for record in read_records(log, mapping.format, mapping.records, read(number, 1.0)):
            importing.take(record)
    with write_tape(out) as tape:
        for *_, data in sorted(importing.events):
            tape.write(data)
    aside = rejected_path(out)
    if importing.rejected:
        with write_tape(aside) as tape:
            for data in importing.rejected:
                tape.write(data)
    else:
        aside.unlink(missing_ok=True)
    return _findings(importing, out)


def rejected_path(out: Path) -> Path:
    """Where the records go that couldn't be used."""
    return out.with_name(f"{out.name}.rejected.jsonl")


def _findings(importing: _Import, out: Path) -> Findings:
    counts, fields, planned = importing.counts, importing.fields, importing.plan
    features = [*planned.features, *(f"{p}.{v}" for p, vs in planned.lists.items() for v in vs)]
    open_signals = counts["signals"] - counts["closes"]
    rejected = sum(importing.reasons.values())
    figures: dict[str, object] = {
        "out": str(out),
        "records": counts["records"],
        "signals": counts["signals"],
        "closes": counts["closes"],
        "open": open_signals,
        "completed_by_a_later_record": counts["completed_by_a_later_record"],
        "rejected": rejected,
        "rejected_to": str(rejected_path(out)) if rejected else None,
        "reasons": dict(importing.reasons.most_common()),
        "returns_from": dict(fields.returns_from),
        "exit_times_from": dict(fields.times_from),
        "exit_reasons_without_a_meaning": dict(fields.unmapped),
        "features": features,
        "left_out": planned.left_out,
    }
    shown: list[list[object]] = [
        ["records", counts["records"]],
        ["signals", counts["signals"]],
        ["closes", counts["closes"]],
        ["open: signals without a close", open_signals],
        ["rejected", rejected],
        ["features", len(features)],
    ]
    shown += [[f"return from {name}", count] for name, count in fields.returns_from.items()]
    shown += [[f"time of exit from {name}", count] for name, count in fields.times_from.items()]
    tables = [Table("import", ["", "count"], shown)]
    for title, columns, found in (
        ("rejected, by reason", ["reason", "records"], importing.reasons.most_common(_SHOWN)),
        ("exit reasons without a meaning", ["reason", "trades"], fields.unmapped.most_common()),
        ("no features", ["path", "why"], list(planned.left_out.items())),
    ):
        if found:
            tables.append(Table(title, columns, [list(row) for row in found]))
    summary = f"{counts['signals'] + counts['closes']:,} events in {out}."
    if rejected:
        where = rejected_path(out)
        summary += f" Of {counts['records']:,} records {rejected:,} couldn't be used: see {where}."
    return Findings("Import", summary, figures, tables)
