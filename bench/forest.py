"""The forest against River's, CapyMOA's and Vowpal Wabbit: quality, speed and size in one run.

    python bench/forest.py [--tapes DIR] [--trees 10] [--events 5000] [--seeds 5] [--json OUT]

DIR holds weather.jsonl.gz and sea.jsonl.gz; the other six streams are River's
(`bench/forest_streams.py`). Rivals that are not installed are left out, with a line that says so.

Every model sees the same events one by one, predicts, then learns at once, each fed as suits it
best (`bench/forest_models.py`); the default settings of each but for the number of trees. The
models take turns every 250 events, so that a noisy machine is noisy for all.

log loss, accuracy
    The mean over seeds and its standard error. Probabilities are clipped at 0.001 for all, which
    spares rivals that answer 0 or 1.
than ours
    The rival's log loss less ours, seed by seed: above zero, ours is the better one.
events/s, x faster
    Median over all turns; how many times faster ours is, turn by turn, on the same 250 events.
kB
    State as each would save it, at the end, the mean over seeds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from time import perf_counter
from typing import Annotated, Any

import typer

from bench.forest_models import DISTRIBUTIONS, MODELS, Model, missing
from bench.forest_streams import DRAWN, TAPES, Event, taken
from bench.results import BenchError, JsonOption, Results, progress, run
from learners.forest import warm_up

TURN = 250
CLIP = 1e-3
WARM_UP = 2_000
"""Events that every model sees before the race: a Java machine is slow at first."""

Figures = dict[str, Any]


@dataclass(slots=True)
class Score:
    """How a model did on one stream with one seed; `rates` are events/s, one per turn."""

    log_loss: float = 0.0
    accuracy: float = 0.0
    size: int = 0
    rates: list[float] = field(default_factory=list)


def race(
    events: Sequence[Event],
    models: dict[str, Model],
    done: Callable[[int], None] = lambda events: None,
) -> dict[str, Score]:
    """Run all models over `events`, in turns; `done` is told how many events a turn had."""
    scores = {name: Score() for name in models}
    for at in range(0, len(events), TURN):
        turn = events[at : at + TURN]
        for name, model in models.items():
            score = scores[name]
            inputs = [(model.prepare(x), y) for x, y in turn]
            predict, learn = model.predict, model.learn
            answers = []
            began = perf_counter()
            for x, y in inputs:
                answers.append(predict(x))
                learn(x, y)
            score.rates.append(len(turn) / (perf_counter() - began))
            for p, (_, y) in zip(answers, turn, strict=True):
                score.log_loss += log_loss(p, y) / len(events)
                score.accuracy += ((p >= 0.5) == y) / len(events)
        done(len(turn))
    for name, model in models.items():
        scores[name].size = model.size()
    return scores


def log_loss(p: float, y: bool) -> float:
    """Loss in nats of a probability, clipped."""
    q = min(max(p, CLIP), 1.0 - CLIP)
    return -math.log(q if y else 1.0 - q)


def summary(seeds: Sequence[dict[str, Score]]) -> dict[str, Figures]:
    """One stream's figures for each model, over its seeds; a standard error of one seed is None."""
    figures = {}
    for name in seeds[0]:
        theirs = [scores[name] for scores in seeds]
        ours = [scores["ours"] for scores in seeds]
        pairs = list(zip(theirs, ours, strict=True))
        ratios = [
            mine / its
            for their, our in pairs
            for its, mine in zip(their.rates, our.rates, strict=True)
        ]
        figures[name] = {
            "log_loss": mean_and_error([score.log_loss for score in theirs]),
            "accuracy": mean_and_error([score.accuracy for score in theirs]),
            "log_loss_than_ours": mean_and_error([t.log_loss - o.log_loss for t, o in pairs]),
            "events_per_s": median(rate for score in theirs for rate in score.rates),
            "ours_times_faster": median(ratios),
            "bytes": round(fmean(score.size for score in theirs)),
        }
    return figures


def mean_and_error(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds, its standard error, and the values it comes from."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": fmean(values), "error": error, "by_seed": list(values)}


def against(rival: str, table: dict[str, dict[str, Figures]]) -> Figures:
    """What one rival comes to over all streams."""
    apart = [by_model[rival]["log_loss_than_ours"]["mean"] for by_model in table.values()]
    faster = [by_model[rival]["ours_times_faster"] for by_model in table.values()]
    return {
        "version": version(DISTRIBUTIONS[rival]),
        "streams": len(table),
        "log_loss_at_most_theirs": sum(more >= 0.0 for more in apart),
        "times_faster_median": median(faster),
        "times_faster_least": min(faster),
    }


def chosen(given: str | None, known: Sequence[str], option: str) -> list[str]:
    """The names in a comma-separated option, all of `known` when it isn't given."""
    names = list(known) if given is None else [name.strip() for name in given.split(",") if name]
    for name in names:
        if name not in known:
            raise BenchError(f"{option} {name!r} is none of {', '.join(known)}")
    return names


def main(
    tapes: Annotated[Path | None, typer.Option(help="Where weather and sea are.")] = None,
    trees: Annotated[int, typer.Option(min=1, help="Of every forest.")] = 10,
    events: Annotated[int, typer.Option(min=TURN, help="At most, per stream.")] = 5_000,
    seeds: Annotated[int, typer.Option(min=1, help="Of the models and the generators.")] = 5,
    rivals: Annotated[
        str | None, typer.Option(help="Who else runs.", show_default="river,capymoa,vw")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Streams to run.", show_default="all")] = None,
    json_out: JsonOption = None,
) -> None:
    """Ours against River's, CapyMOA's and Vowpal Wabbit: quality, speed and size of state."""
    asked = chosen(rivals, [name for name in MODELS if name != "ours"], "--rivals")
    wanted = chosen(only, [*(TAPES if tapes else ()), *DRAWN], "--only")
    results = Results("forest", json_out)
    left_out = {name: why for name in asked if (why := missing(name)) is not None}
    for name, why in left_out.items():
        results.note(f"{name} is left out: {why}")
    if tapes is None:
        results.note(f"{' and '.join(TAPES)} are left out: their tapes' folder is given by --tapes")
    names = ["ours", *(name for name in asked if name not in left_out)]
    warm_up()
    first = taken("agrawal", 0, WARM_UP)
    race(first, _models(names, first, trees, 0))
    runs: dict[str, list[dict[str, Score]]] = {name: [] for name in wanted}
    with progress() as bar:
        for seed, name in product(range(1, seeds + 1), wanted):
            found = taken(name, seed, events, tapes)
            task = bar.add_task(f"{name}, seed {seed} of {seeds}", total=len(found))
            models = _models(names, found, trees, seed)
            runs[name].append(race(found, models, partial(bar.advance, task)))
            bar.remove_task(task)
    table = {name: summary(by_seed) for name, by_seed in runs.items()}
    verdicts = {rival: against(rival, table) for rival in names[1:]}
    _show(results, table, verdicts, f"{trees} trees, {seeds} seeds, at most {events:,} events each")
    results.add({"trees": trees, "seeds": seeds, "events": events, "clip": CLIP})
    results.add({"streams": table, "against": verdicts, "left_out": left_out})
    results.write()


def _models(names: list[str], events: list[Event], trees: int, seed: int) -> dict[str, Model]:
    return {name: MODELS[name](list(events[0][0]), trees, seed) for name in names}


def _show(
    results: Results,
    table: dict[str, dict[str, Figures]],
    verdicts: dict[str, Figures],
    title: str,
) -> None:
    rows = [
        (
            stream,
            model,
            _with_error(row["log_loss"]),
            _with_error(row["log_loss_than_ours"]) if model != "ours" else None,
            _with_error(row["accuracy"]),
            row["events_per_s"],
            row["ours_times_faster"] if model != "ours" else None,
            row["bytes"] / 1_000,
        )
        for stream, by_model in table.items()
        for model, row in by_model.items()
    ]
    columns = ("stream", "model", "log loss", "than ours", "accuracy")
    results.table(title, (*columns, "events/s", "x faster", "kB"), rows)
    if verdicts:
        results.table(
            "ours against each",
            ("rival", "version", "log loss at most theirs on", "x faster, median stream", "least"),
            [
                (
                    rival,
                    found["version"],
                    f"{found['log_loss_at_most_theirs']} of {found['streams']}",
                    found["times_faster_median"],
                    found["times_faster_least"],
                )
                for rival, found in verdicts.items()
            ],
        )


def _with_error(figure: Figures) -> str:
    error = "" if figure["error"] is None else f" ±{figure['error']:.4f}"
    return f"{figure['mean']:.4f}{error}"


if __name__ == "__main__":
    run(main)
