"""Replay: the same core over a recorded log, as fast as it goes, with what came of it."""

from collections.abc import Callable, Iterable
from time import perf_counter, perf_counter_ns

import numpy as np

from engine.core import Core
from engine.heap import BATCHES, quiet_heap, tidy
from engine.report import Report
from snapshots import state_digest
from streams import Decision, Outcome, Signal
from streams.tape import Line

PROGRESS_EVERY = 256


def replay(
    core: Core,
    lines: Iterable[Line],
    progress: Callable[[int], None] = lambda events: None,
) -> dict[str, object]:
    """Apply every line to `core` and sum up.

    Parameters
    ----------
    core
        Left in its final state, ready to be saved.
    lines
        Of a tape.
    progress
        Called now and then with the number of events so far.

    Returns
    -------
    The figures of `closeloop replay --json`.
    """
    report = Report()
    latencies: list[int] = []
    started = perf_counter()
    with quiet_heap():
        _run(core, lines, progress, report, latencies)
    seconds = perf_counter() - started
    return figures(core, report, seconds) | {"latency_us": _percentiles(latencies)}


def _run(
    core: Core,
    lines: Iterable[Line],
    progress: Callable[[int], None],
    report: Report,
    latencies: list[int],
) -> None:
    for count, line in enumerate(lines):
        before = perf_counter_ns()
        entry = line.entry()
        outputs = core.apply(entry)
        if isinstance(entry.event, Signal):
            latencies.append(perf_counter_ns() - before)
        for output in outputs:
            if isinstance(output, Outcome):
                report.add(output)
            elif isinstance(output, Decision):
                report.actions[output.action] += 1
        if count % PROGRESS_EVERY == 0:
            progress(count)
            if count % (PROGRESS_EVERY * BATCHES) == 0:
                tidy()


def figures(core: Core, report: Report, seconds: float) -> dict[str, object]:
    """What there is to say about a run of `core` that `report` has watched."""
    counts = core.counts
    summary = report.summary()
    experts = summary["experts"]
    assert isinstance(experts, dict)
    beliefs = core.model.forecaster.figures()
    return {
        **counts,
        "seconds": seconds,
        "events_per_s": counts["events"] / seconds if seconds else None,
        "decisions_digest": core.decisions_digest,
        "state_digest": state_digest(core.state()),
        **summary,
        "actions": dict(report.actions),
        "experts": {
            name: {**experts.get(name, {}), "weight": weight, "regret": beliefs["regret"][name]}
            for name, weight in beliefs["expert_weight"].items()
        },
        "calibration_weight": beliefs["calibration_weight"],
        "interval_coverage": beliefs["interval_coverage"],
        "drifts": core.model.drifts,
        "refits": core.model.champions.refits,
        "champion": core.model.champion,
        "safety": core.guard.switch.figures(),
        "rollout": core.guard.rollout.figures(),
    }


def _percentiles(nanoseconds: list[int]) -> dict[str, float | None]:
    names = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
    if not nanoseconds:
        return dict.fromkeys(names)
    values = np.percentile(np.array(nanoseconds) / 1_000, list(names.values()))
    return dict(zip(names, values.tolist(), strict=True))
