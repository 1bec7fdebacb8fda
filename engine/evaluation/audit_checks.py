"""The checks of an audit on a tape's events: each gives one verdict.

A problem makes what is learned from the tape wrong or loses events; a warning is something a person
should know before trusting figures from it. Each says what was found and what to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engine.core_config import LedgerConfig
from engine.evaluation.audit_columns import MINUTE, Columns, Ints
from engine.ledger import from_micros

Verdict = Literal["ok", "warning", "problem"]

ENOUGH = 100
"""Fewer signals, closes or events than this say nothing about a share or a stretch."""
ORPHANS = 0.01
UNCLOSED = 0.05
AT_ONCE = 0.05
LATE = 0.01
RARE_CLASS = 0.05
NEITHER = 0.2
JITTER = MINUTE
"""Several bots that write one log may be so far apart."""
LONG_GAP = 20.0
"""Times the 99th percentile of the time between events."""
TENTH_GAP = 3.0
"""Times the tenth longest: what comes every weekend is no gap."""
HOUR, DAY = 60 * MINUTE, 1_440 * MINUTE
AT_WEEKENDS = 0.05
"""Share of events at weekends below which a market is shut then."""
WEEKEND = 4 * DAY
"""With a holiday; what is shut at weekends is looked at no closer."""
STRETCHES = 20


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict: what was found, and what to do about it where it isn't `ok`."""

    name: str
    verdict: Verdict
    found: str
    do: str = ""
    where: list[str] = field(default_factory=list)


def rows(columns: Columns) -> Check:
    """Lines that are events, and those that are not."""
    bad = sum(columns.invalid.values())
    found = f"{columns.lines:,} lines, {columns.lines - bad:,} events"
    if not columns.lines or not len(columns.opened):
        return Check("rows", "problem", f"{found}, no signal", "name a tape of signals and closes")
    if not bad:
        return Check("rows", "ok", found)
    reason, times = columns.invalid.most_common(1)[0]
    return Check(
        "rows",
        "problem",
        f"{found}; {bad:,} lines are no events, {times:,} for: {reason}",
        "mend what writes them: the engine buries each as a dead letter",
        columns.invalid_examples,
    )


def joins(columns: Columns) -> Check:
    """Closes without signals or before them, signals without closes."""
    closes = columns.events["close"]
    faults: list[str] = []
    do: list[str] = []
    verdict: Verdict = "ok"
    if columns.orphans:
        faults.append(f"{columns.orphans:,} closes have no signal")
        do.append("look for signals lost or renamed; what has no signal teaches nothing")
        verdict = "problem" if columns.orphans > ORPHANS * closes else "warning"
    if columns.early:
        faults.append(f"{columns.early:,} closes stand before their signal")
        do.append("write the signal first; the engine parks such closes only so long")
        verdict = verdict if verdict == "problem" else "warning"
    unclosed = _unclosed(columns)
    signals = len(columns.opened)
    if signals >= ENOUGH and unclosed > UNCLOSED * signals:
        faults.append(f"{unclosed:,} of {signals:,} signals were never closed, others later were")
        do.append("follow skipped signals on paper (executed: false), or what is learned is biased")
        verdict = verdict if verdict == "problem" else "warning"
    joined = int(columns.joined.sum())
    found = f"{joined:,} of {signals:,} signals joined to their close"
    where = columns.orphan_examples + columns.early_examples
    return Check("joins", verdict, "; ".join([found, *faults]), "; ".join(do), where)


def _unclosed(columns: Columns) -> int:
    """Signals without a close though nearly all closes would have come by the tape's end."""
    delays = (columns.closed - columns.opened)[columns.joined]
    if not len(delays):
        return int((~columns.joined).sum())
    end = columns.times.max() - np.quantile(delays, 0.99)
    return int((~columns.joined & (columns.opened < end)).sum())


def duplicates(columns: Columns) -> Check:
    """What was sent again: as it was, or otherwise."""
    before_close = columns.changed_again - columns.changed_after_close
    if columns.conflicting_closes or before_close:
        found = (
            f"{columns.conflicting_closes:,} closes were sent again with another return, "
            f"{before_close:,} open signals with other content"
        )
        do = "give each trade one signal_id for good: only the first signal and close count"
        return Check("duplicates", "problem", found, do)
    if columns.repeated_signals or columns.repeated_closes:
        found = (
            f"{columns.repeated_signals:,} signals and {columns.repeated_closes:,} closes "
            "were sent again as they were"
        )
        return Check("duplicates", "warning", found, "harmless: the engine counts the first only")
    return Check("duplicates", "ok", "every signal and close is there once")


def label_delay(columns: Columns, ledger: LedgerConfig) -> Check:
    """How long closes take, against what the engine waits for and what trades need."""
    delays = (columns.closed - columns.opened)[columns.joined] / MINUTE
    if not len(delays):
        return Check("label_delay", "ok", "no signal has a close")
    found = f"a close comes {np.median(delays):,.0f} minutes after its signal (median)"
    late = int((delays > ledger.expire_days * 1440).sum())
    if late or columns.most_open > ledger.max_open:
        what = (
            f"{late:,} come after {ledger.expire_days:g} days"
            if late
            else f"{columns.most_open:,} signals are open at once"
        )
        grave = late > LATE * len(delays) or columns.most_open > ledger.max_open
        do = "raise core.ledger.expire_days or max_open, or such closes are not learned"
        return Check("label_delay", "problem" if grave else "warning", f"{found}; {what}", do)
    held = columns.outcome["hold_minutes"][columns.joined]
    # Half a minute for rounding.
    soon = int((delays < held - 0.5).sum())
    if soon > LATE * len(delays):
        what = f"{soon:,} come before the hold_minutes that they name are over"
        do = "give closes the time at which the trade ended: a label known too soon flatters"
        return Check("label_delay", "warning", f"{found}; {what}", do)
    at_once = int((delays == 0).sum())
    if at_once > AT_ONCE * len(delays):
        what = f"{at_once:,} come at the very time of their signal"
        do = "give signals the time of entry and closes that of exit: a label at once flatters"
        return Check("label_delay", "warning", f"{found}; {what}", do)
    return Check("label_delay", "ok", found)


def balance(columns: Columns) -> Check:
    """Wins against losses: overall, by group and over time."""
    joined = columns.joined
    won, count = columns.won[joined], int(joined.sum())
    if count < ENOUGH:
        return Check("balance", "ok", f"{count:,} closes: too few to tell")
    rate = float(won.mean())
    found = f"{rate:.1%} of {count:,} closes were won"
    do = "check the returns' sign and that losing trades are logged too"
    if rate in (0.0, 1.0):
        return Check("balance", "problem", found, do)
    one_sided = [
        f"{kind} {name}"
        for kind, names in (
            ("symbol", columns.symbol),
            ("strategy", columns.strategy),
            ("side", columns.side),
        )
        for name in np.unique(names[joined])
        if (of := names[joined] == name).sum() >= ENOUGH and won[of].mean() in (0.0, 1.0)
    ]
    parts = np.array_split(won, min(STRETCHES, count // ENOUGH))
    one_sided += [
        f"stretch {number} of {len(parts)}"
        for number, part in enumerate(parts, 1)
        if len(parts) > 1 and part.mean() in (0.0, 1.0)
    ]
    if one_sided:
        return Check("balance", "warning", f"{found}; all or none in {named(one_sided)}", do)
    if not RARE_CLASS <= rate <= 1 - RARE_CLASS:
        return Check("balance", "warning", found, do)
    neither = float((columns.outcome["return_pct"][joined] == 0).mean())
    if neither > NEITHER:
        what = f"{found}; {neither:.0%} returned exactly 0 and count as losses"
        return Check("balance", "warning", what, "leave out what was never a trade")
    return Check("balance", "ok", found)


def time_order(columns: Columns) -> Check:
    """Events and closes that go back in time, and gaps."""
    faults: list[str] = []
    verdict: Verdict = "ok"
    negative = int((columns.closed < columns.opened)[columns.joined].sum())
    if len(columns.back):
        most = columns.back.max()
        verdict = "problem" if most > JITTER else "warning"
        faults.append(f"{len(columns.back):,} events go back, by up to {most / MINUTE:,.1f} min")
    if negative:
        verdict = "problem"
        faults.append(f"{negative:,} closes are earlier than their signal")
    if faults:
        do = "sort by time, closes before signals at the same time; check clocks and time zones"
        return Check("time_order", verdict, "; ".join(faults), do, columns.back_examples)
    gaps = long_gaps(columns.times)
    if gaps:
        start, minutes = gaps[0]
        found = f"{len(gaps):,} long gaps, the longest {minutes / 1440:,.1f} days from {start}"
        return Check("time_order", "warning", found, "check that nothing was lost there")
    if not len(columns.times):
        return Check("time_order", "ok", "no events")
    first, last = day(columns.times.min()), day(columns.times.max())
    return Check("time_order", "ok", f"in order from {first} to {last}")


def long_gaps(times: Ints) -> list[tuple[str, float]]:
    """Where nothing came for much longer than ever else: from when, minutes; the longest first."""
    if len(times) < ENOUGH:
        return []
    ordered = np.sort(times)
    gaps = np.diff(ordered)
    # 1970 began on a Thursday.
    weekend = np.isin((ordered // DAY + 3) % 7, (5, 6)).mean()
    limit = max(
        LONG_GAP * float(np.quantile(gaps, 0.99)),
        TENTH_GAP * float(np.sort(gaps)[-10]),
        WEEKEND if weekend < AT_WEEKENDS else HOUR,
    )
    long = np.flatnonzero(gaps > limit)
    longest = long[np.argsort(-gaps[long], kind="stable")]
    return [(day(ordered[at]), float(gaps[at] / MINUTE)) for at in longest]


def day(micros: float) -> str:
    """A time in microseconds since 1970, as its date."""
    return f"{from_micros(int(micros)):%Y-%m-%d}"


def named(names: list[str], most: int = 6) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listed(said: Mapping[str, object]) -> str:
    """Names, each with what is said of it."""
    return named([f"{name} ({what})" for name, what in said.items()])
