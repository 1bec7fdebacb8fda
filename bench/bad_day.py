"""A bad day by script: which safety answered, after how long, and what it cost.

    python bench/bad_day.py [--tape TAPE] [--json OUT] [--seed N]

A healthy beginning, made here or the first part of a tape, then trouble, then it is over. Each
trouble begins with the same snapshot: what won loses; the strongest feature is stuck, scaled by a
million or shuffled; closes say the opposite, or absurd returns, until a refit was fitted and judged
on them; closes don't come, and then all at once. `bench/bad_day_runs.py` says what runs through
each, `docs/bad-day.md` what to make of it. At last, live, a webhook that never answers.

Exit status 1 when the wrong regime or the stuck closes are not noticed, by something that stays
silent on the undisturbed day; when a replay comes to anything else; or when the webhook delays
decisions by more than noise (`bench/slow_webhook.py` says how that is judged).
"""

import random
import sys
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from bench import slow_webhook
from bench.bad_day_runs import Answer, Found, Healthy, lived, news
from bench.bad_days import (
    Day,
    Event,
    Spoiler,
    cut,
    labels_absurd,
    labels_stuck,
    labels_turned,
    made,
    poisoned,
    strongest,
    to_and_fro,
    undisturbed,
    wrong_regime,
)
from bench.results import BenchError, JsonOption, Results, progress, run
from engine.core_config import CoreConfig
from learners import warm_up
from streams import Close, Signal, Tape

USUAL = "undisturbed"
WRONG = "wrong regime"
FRO = "to and fro"
STUCK = "closes stuck"
MIXTURE = "drift: mixture"
POISONS = ("stuck", "scaled", "shuffled")


def troubles(feature: str) -> dict[str, Spoiler]:
    """What goes wrong, by name; first of all, nothing."""
    return {
        USUAL: undisturbed,
        WRONG: wrong_regime,
        FRO: to_and_fro,
        **{f"feature {how}": poisoned(feature, how) for how in POISONS},
        "closes turned": labels_turned,
        "closes absurd": labels_absurd,
        STUCK: labels_stuck,
    }


def recorded(tape: Path, signals: int) -> list[Event]:
    """A tape's signals and closes, up to a little after that many signals."""
    events: list[Event] = []
    for line in islice(Tape(tape), 4 * signals):
        event = line.entry().event
        if isinstance(event, Signal | Close):
            events.append(event)
    return events


def day_of(events: list[Event], trouble: int, after: int) -> Day:
    """The day that follows: so many signals in trouble, and so many after it."""
    truth = {event.signal_id: event.return_pct for event in events if isinstance(event, Close)}
    first, last = cut(events, trouble), cut(events, trouble + after)
    return Day(events[:first], events[first:last], truth)


def faults(found: Mapping[str, Found]) -> list[str]:
    """What must hold and doesn't, for a person."""
    broken = [
        f"{name}: a replay comes to something else"
        for name, each in found.items()
        if not each.replays
    ]
    noticed = {name: {a.what for a in news(each, found[USUAL])} for name, each in found.items()}
    broken += [
        f"{name}: nobody noticed" for name in (WRONG, FRO) if name in found and not noticed[name]
    ]
    if STUCK in found and "late_labels" not in noticed[STUCK]:
        broken.append(f"{STUCK}: `late_labels` didn't fire")
    return broken


def main(
    tape: Annotated[
        Path | None,
        typer.Option(help="The day is its first part.", show_default="made from the seed"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the engine and all that is made.")] = 42,
    healthy: Annotated[int, typer.Option(min=300, help="Signals of the beginning.")] = 6_000,
    trouble: Annotated[int, typer.Option(min=50, help="Signals while it lasts.")] = 1_000,
    after: Annotated[int, typer.Option(min=1, help="Signals when it is over.")] = 1_000,
    only: Annotated[
        str | None, typer.Option(help="Troubles, by commas.", show_default="all")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Times the webhook is measured; 0: not at all.")
    ] = 10,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each.")] = 5.0,
    rate: Annotated[float, typer.Option(min=1.0, help="Signals a second, of each.")] = 200.0,
    json_out: JsonOption = None,
) -> None:
    """A bad day by script: which safety answered, after how long, and what it cost."""
    names = named(only)
    results = Results("bad_day", json_out)
    config = CoreConfig(seed=seed)
    hooked = None
    with progress() as bar:
        task = bar.add_task("a healthy beginning", total=None)
        warm_up()
        spare = 2_000
        total = healthy + trouble + after + spare
        events = list(made(total, seed)) if tape is None else recorded(tape, total)
        start = Healthy(config, events, cut(events, healthy))
        feature = strongest(events[: start.events])
        day = day_of(events[start.events :], trouble, after)
        bar.remove_task(task)
        found = scenarios(names, start, day, feature, seed, bar)
        if rounds:
            hooked = slow_webhook.measured(rate, seconds, rounds, seed, bar)
    results.add({"tape": tape.name if tape else None, "seed": seed, "feature": feature})
    begun = {name: getattr(start, name) for name in ("closes", "champion", "armed", "firing")}
    results.add({"healthy": begun | {"fired": start.fired}})
    results.add({"signals": {"trouble": trouble, "after": after}})
    results.add({"days": {name: as_json(each, found[USUAL]) for name, each in found.items()}})
    show(results, found, start, feature, trouble)
    broken = faults(found)
    if hooked is not None:
        results.add({"webhook": slow_webhook.figures(hooked, rate)})
        show_webhook(results, hooked, rate)
        if hooked.delays:
            broken.append("the slow webhook delays decisions by more than noise")
    results.add({"broken": broken})
    for fault in broken or ["all that must hold does"]:
        results.note(fault)
    results.write()
    sys.exit(1 if broken else 0)


def named(only: str | None) -> list[str]:
    """The troubles that are asked for, the undisturbed day first. Raises `BenchError`."""
    known = list(troubles(""))
    names = known if only is None else [USUAL, *(name.strip() for name in only.split(","))]
    for name in names:
        if name not in known:
            raise BenchError(f"there is no trouble {name!r}; there are: {', '.join(known)}")
    return list(dict.fromkeys(names))


def scenarios(
    names: list[str], start: Healthy, day: Day, feature: str, seed: int, bar: Progress
) -> dict[str, Found]:
    """What comes of each trouble."""
    known = troubles(feature)
    task = bar.add_task("troubles", total=len(names))
    found = {}
    for name in names:
        bar.update(task, description=name)
        found[name] = lived(name, start, known[name](day, random.Random(seed)))
        bar.advance(task)
    bar.remove_task(task)
    return found


def show(
    results: Results, found: Mapping[str, Found], start: Healthy, feature: str, trouble: int
) -> None:
    """The tables: who answered, what it cost while it lasted, and after."""
    usual = found[USUAL]
    known = {answer.what for answer in usual.runs["on"].answers}
    armed = ", armed by a person" if start.armed else ""
    results.note(
        f"after {start.closes:,} healthy closes, champion {start.champion}{armed}; the strongest"
        f" feature is {feature}; warnings on already: {', '.join(start.firing) or 'none'}"
    )
    rows: list[list[object]] = []
    for name, each in found.items():
        for place, answer in enumerate(_chief(each.runs["on"].answers) or [None]):
            rows.append([name if place == 0 else "", *_answered(answer, known)])
    results.table(
        "who answered, and when", ["trouble", "answer", "state", "closes", "signals"], rows
    )
    results.note(
        f"since the trouble began, which lasts {trouble:,} signals\n*: on the undisturbed day, too;"
        " of alarms over single experts only the first is here"
    )
    rows = []
    for name, each in found.items():
        on = each.runs["on"]
        refits = f"{len(on.installed)} / {on.rejected}"
        same = "yes" if each.replays else "NO"
        rows.append([name, on.reduced, on.halted, on.limited, each.affected, refits, same])
    results.table(
        "signals of the trouble, refits let in / refused, the same in a replay",
        ["trouble", "REDUCING", "HALTED", "limit", "changed", "refits", "replay"],
        rows,
    )
    rows = []
    for name, each in found.items():
        on, never = each.runs["on"], each.runs["never"]
        figures = [on.trouble_pct, on.lowest_pct, never.trouble_pct, never.lowest_pct]
        figures += [each.runs["perfect"].trouble_pct, on.trouble_pct - never.trouble_pct]
        rows.append([name, *(f"{figure:+.2f}" for figure in figures)])
    results.table(
        "percent of equity: trades begun in the trouble",
        ["trouble", "safety on", "lowest", "never", "lowest", "perfect", "safety's"],
        rows,
    )
    rows = []
    for name, each in found.items():
        runs = each.runs
        order = ("on", "operator", "never", "perfect")
        operator = runs["operator"]
        commands = [f"{c} !" if c in operator.refused else c for c in operator.commands]
        rows.append(
            [name, *(f"{runs[run].after_pct:+.2f}" for run in order), ", ".join(commands) or None]
        )
    results.table(
        "percent of equity: trades begun after it",
        ["trouble", "safety on", "operator", "never", "perfect", "commands"],
        rows,
    )
    results.note("never: as if no trigger did more than warn; perfect: halted just for the trouble")
    results.note("!: the command was refused")
    poisons = [name for name in found if name.startswith("feature ")]
    if poisons:
        worst = min(poisons, key=lambda name: found[name].runs["never"].trouble_pct)
        results.note(f"the worst poison for an engine that never halts: {worst}")


def _chief(answers: list[Answer]) -> list[Answer]:
    """Of the alarms over single experts only the first; all are in the JSON."""
    chief = []
    expert = False
    for answer in answers:
        single = answer.what.startswith("drift: ") and answer.what != MIXTURE
        if not (single and expert):
            chief.append(answer)
        expert = expert or single
    return chief


def _answered(answer: Answer | None, known: set[str]) -> list[object]:
    if answer is None:
        return ["nobody", None, None, None]
    what = f"{answer.what} *" if answer.what in known else answer.what
    return [what, answer.becomes, answer.closes, answer.signals]


def show_webhook(results: Results, found: slow_webhook.Webhook, rate: float) -> None:
    """Latencies with and without."""
    figures: Any = slow_webhook.figures(found, rate)
    rows = [
        [f"{side} the webhook", *(one[name] for name in ("signals", "p50", "p99", "worst"))]
        for side, one in figures["latency_ms"].items()
    ]
    results.table(
        f"a webhook that never answers, {rate:,.0f} signals/s",
        ["worker", "signals", "p50, ms", "p99, ms", "worst, ms"],
        rows,
    )
    for name, one in figures["slower"].items():
        results.note(
            f"{name} with the webhook, round by round: {one['median_ms']:+.3f} ms (median),"
            f" p {one['p']:.2f}, noise {one['noise_ms']:.3f} ms"
        )
    results.note(
        f"triggers fired {found.fired} times; {found.requests} requests hung;"
        f" alerts given up: {found.undelivered:.0f}, delivered: {found.sent:.0f}"
    )


def as_json(found: Found, usual: Found) -> dict[str, object]:
    """A day for JSON, without the position of each trade."""
    runs = {}
    for name, told in found.runs.items():
        runs[name] = asdict(told)
        del runs[name]["positions"]
    return {
        "runs": runs,
        "affected": found.affected,
        "replays": found.replays,
        "noticed_by": [answer.what for answer in news(found, usual)],
    }


if __name__ == "__main__":
    run(main)
