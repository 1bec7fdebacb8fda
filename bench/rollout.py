"""Whether a rollout's test keeps its word, over simulated rollouts looked at after every close.

    python bench/rollout.py [TAPE] [--rollouts N] [--closes N] [--seed N] [--json OUT]

Equal arms: the model's trades are no better and no worse than the baseline's, so any step is a
wrong one. At most `error_rate` of the rollouts may take one, whatever the returns are like: normal,
with heavy tails, skewed as of one who sells insurance, alike within days; with a TAPE its own,
whole days drawn with replacement. Rollouts begin in canary at the first stage, or in shadow. The
model takes all that it decides; or a share at random, each signal for itself or whole days; or, on
a tape, what the engine took there, with its returns moved so that they are no better.

A true edge: what the model takes is better by what taking added on the tape fx of
`bench/quality.py`. Told are the share of rollouts that come to their first promotion and to live
within as many closes as that tape has, and after how many.

It is `engine.safety.rollout.Rollout` that is run. Exit status 1 when a bar isn't met.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.stats import binomtest

from bench.results import BenchError, JsonOption, Results, progress, run, shown
from engine.core import Core
from engine.core_config import CoreConfig
from engine.fitting import InlineFitter
from engine.safety.rollout import ClosedTrade, Rollout
from engine.safety.sequences import FEWEST_PAIRS
from engine.safety.settings import RolloutConfig
from learners import warm_up
from streams import Outcome, Tape
from streams.events import Action, Mode

MEAN_PCT, SPREAD_PCT, A_DAY = -0.02, 0.456, 12
"""Of the returns of the tape fx, and how many closes it has in a day."""
EDGE_PCT = 0.043
"""What taking added there, taken less offered, a trade."""
TAKEN = 0.071
"""The share that was taken there."""
EDGE_CLOSES = 43_080
"""Closes there."""
PROMOTED = 0.8
"""The share of rollouts with an edge that must be promoted."""
DELAY = 20
"""Signals between a signal and its close."""
_START = datetime(2020, 1, 1, tzinfo=UTC)

MODES: tuple[Mode, ...] = ("canary", "shadow")
ENDS = ("first", "live")

Figures: TypeAlias = dict[str, Any]
Floats: TypeAlias = NDArray[np.float64]
Drawn: TypeAlias = tuple[Floats, NDArray[np.int64], NDArray[np.bool_] | None]
"""Returns in percent, the day of each, and whether the engine took it; shape (closes,)."""
Draw: TypeAlias = Callable[[np.random.Generator, int], Drawn]
Picks: TypeAlias = Literal["all", "signals", "days", "the engine's"]


@dataclass(frozen=True)
class World:
    """Where rollouts happen, and how they begin.

    Parameters
    ----------
    draw
        Makes returns.
    mode
        What a rollout begins with.
    picks
        What the model takes: all, signals or days at random, or what the engine took.
    edge
        By how much what is taken is better than what is offered, percent a trade.
    """

    returns: str
    draw: Draw
    mode: Mode = "canary"
    picks: Picks = "all"
    edge: float = 0.0

    @property
    def picked(self) -> str:
        """What the model takes, in words."""
        return f"{TAKEN:.1%} of {self.picks}" if self.picks in ("signals", "days") else self.picks


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a rollout: after how many closes; None: never."""

    first: int | None = None
    live: int | None = None
    demoted: int | None = None


def made(shape: Callable[[np.random.Generator, int], Floats]) -> Draw:
    """Returns with the mean and spread of fx, `A_DAY` a day, of a shape with mean 0, spread 1."""

    def draw(rng: np.random.Generator, closes: int) -> Drawn:
        return MEAN_PCT + SPREAD_PCT * shape(rng, closes), np.arange(closes) // A_DAY, None

    return draw


def normal(rng: np.random.Generator, closes: int) -> Floats:
    """Independent and normal."""
    return rng.standard_normal(closes)


def heavy(rng: np.random.Generator, closes: int) -> Floats:
    """Student's t of three degrees of freedom: its fourth moment is infinite."""
    return np.asarray(rng.standard_t(3, closes) / np.sqrt(3.0))


def skewed(rng: np.random.Generator, closes: int) -> Floats:
    """Nineteen small wins to a large loss."""
    lost = rng.random(closes) < 0.05
    return np.asarray(np.where(lost, -0.95, 0.05) / np.sqrt(0.05 * 0.95))


def clustered(rng: np.random.Generator, closes: int) -> Floats:
    """A tenth of the variance is the day's: sums over days vary as in fx, twice as much."""
    days = rng.standard_normal(closes // A_DAY + 1).repeat(A_DAY)[:closes]
    return np.asarray(np.sqrt(0.1) * days + np.sqrt(0.9) * rng.standard_normal(closes))


SHAPES = {"normal": normal, "heavy tails": heavy, "skewed": skewed, "days alike": clustered}


def resampled(outcomes: Iterable[Outcome]) -> Draw:
    """Whole days of a run of the engine, drawn with replacement; its first tenth isn't."""
    rows = [(o.ts.toordinal(), o.return_pct, o.action != "skip") for o in outcomes]
    rows = rows[len(rows) // 10 :]
    if not rows:
        raise BenchError("the tape has no closes; give one with closes")
    days: dict[int, list[tuple[float, bool]]] = {}
    for day, value, taken in rows:
        days.setdefault(day, []).append((value, taken))
    blocks = [np.array(closes) for closes in days.values()]
    returns, took = np.concatenate(blocks).T
    taken = took > 0.0
    if not 0 < taken.sum() < len(taken):
        raise BenchError("on this tape the engine takes all or nothing; give another")
    # What it was better by is taken out of what it took.
    gap = (returns[taken].mean() - returns.mean()) / (1.0 - taken.mean())

    def draw(rng: np.random.Generator, closes: int) -> Drawn:
        drawn: list[Floats] = []
        count = 0
        while count < closes:
            drawn.append(blocks[rng.integers(len(blocks))])
            count += len(drawn[-1])
        lengths = [len(block) for block in drawn]
        values, took = np.concatenate(drawn)[:closes].T
        days = np.arange(len(drawn)).repeat(lengths)[:closes]
        return values - gap * (took - taken.mean()), days, took > 0.0

    return draw


def outcomes(tape: Path, bar: Progress) -> list[Outcome]:
    """What the engine makes of a tape."""
    task = bar.add_task(f"{tape.name}: the engine", total=1.0)
    warm_up()
    core, lines = Core(CoreConfig(), InlineFitter()), Tape(tape)
    found = []
    for number, line in enumerate(lines):
        found += [each for each in core.apply(line.entry()) if isinstance(each, Outcome)]
        if number % 256 == 0:
            bar.update(task, completed=lines.progress)
    bar.remove_task(task)
    return found


def simulate(world: World, closes: int, seed: int) -> Course:
    """One rollout, each step taken as soon as it is told, until it is live or demoted."""
    rng = np.random.default_rng(seed)
    drawn, days, took = world.draw(rng, closes)
    if world.picks == "all":
        picked = np.ones(closes, np.bool_)
    elif world.picks == "signals":
        picked = rng.random(closes) < TAKEN
    elif world.picks == "days":
        picked = (rng.random(int(days[-1]) + 1) < TAKEN)[days]
    else:
        assert took is not None
        picked = took
    share = float(picked.mean())
    if share < 1.0:
        # What is picked is better, what isn't is worse; the mean of all stays.
        drawn = drawn + (picked - share) * world.edge / (1.0 - share)
    returns, picks = drawn.tolist(), picked.tolist()
    times = [_START + timedelta(days=day) for day in range(int(days[-1]) + 1)]
    when = days.tolist()
    rollout = Rollout(RolloutConfig(mode=world.mode), seed)
    waiting: deque[ClosedTrade] = deque()
    first = None
    for number in range(closes + DELAY):
        learned = max(0, number - DELAY)
        if number < closes:
            arm = rollout.arm(f"s{number}")
            advised: Action = "take" if picks[number] else "skip"
            value = returns[number]
            if arm == "model" and share == 1.0:
                value += world.edge
            waiting.append(
                ClosedTrade(
                    arm,
                    rollout.mode,
                    learned,
                    times[when[number]],
                    advised if arm == "model" else "take",
                    advised,
                    value,
                )
            )
        if number < DELAY:
            continue
        trade = waiting.popleft()
        step = rollout.learn(trade)
        if step is None:
            continue
        if step.kind == "demotion":
            return Course(first, demoted=learned + 1)
        first = first or learned + 1
        if step.mode == "live":
            return Course(first, live=learned + 1)
        rollout.move(step.mode, step.percent, learned + 1, trade.ts)
    return Course(first)


def simulated(world: World, rollouts: int, closes: int, seed: int, bar: Progress) -> list[Course]:
    """What became of many rollouts."""
    task = bar.add_task(f"{world.returns}, {world.mode}, {world.picked}", total=rollouts)
    courses = []
    for number in range(rollouts):
        courses.append(simulate(world, closes, seed + number))
        bar.advance(task)
    bar.remove_task(task)
    return courses


def deceived(rollouts: int, closes: int, seed: int) -> float:
    """The share of A/A tests in which a 95 % interval, looked at as often, ever leaves out zero."""
    fooled = 0
    for number in range(rollouts):
        rng = np.random.default_rng(seed + number)
        model, values = rng.random(closes) < 0.1, rng.standard_normal(closes)
        n1, n = np.cumsum(model), np.arange(1, closes + 1)
        with np.errstate(all="ignore"):
            gap = np.cumsum(values * model) / n1 - np.cumsum(values * ~model) / (n - n1)
            pairs = n1 * (n - n1) / n
        outside = np.abs(gap) * np.sqrt(pairs) > 1.96
        fooled += bool(outside[pairs >= FEWEST_PAIRS].any())
    return fooled / rollouts


def share(count: int, of: int) -> tuple[float, float, float]:
    """A share and its 95 % interval (Clopper and Pearson 1934)."""
    interval = binomtest(count, of).proportion_ci()
    return count / of, float(interval.low), float(interval.high)


def after(closes: Sequence[int | None], quantile: float) -> float | None:
    """A quantile of closes, those that never came being the latest; None when it is one of them."""
    known = [np.inf if count is None else float(count) for count in closes]
    value = float(np.quantile(known, quantile, method="higher"))
    return value if np.isfinite(value) else None


def equal_figures(world: World, courses: Sequence[Course]) -> Figures:
    """What equal arms came to."""
    promoted = sum(course.first is not None for course in courses)
    demoted = sum(course.demoted is not None for course in courses)
    wrong = sum(course.first is not None or course.demoted is not None for course in courses)
    value, low, high = share(wrong, len(courses))
    return {
        "returns": world.returns,
        "from": world.mode,
        "picks": world.picked,
        "promoted": promoted,
        "demoted": demoted,
        "wrong": value,
        "low": low,
        "high": high,
        "met": value <= RolloutConfig().error_rate,
    }


def edge_figures(world: World, courses: Sequence[Course]) -> Figures:
    """What a true edge came to."""
    firsts = [course.first for course in courses]
    lives = [course.live for course in courses]
    value, low, high = share(sum(first is not None for first in firsts), len(courses))
    return {
        "returns": world.returns,
        "from": world.mode,
        "picks": world.picked,
        "demoted": sum(course.demoted is not None for course in courses),
        "promoted": value,
        "low": low,
        "high": high,
        "live": share(sum(live is not None for live in lives), len(courses))[0],
        "first_median": after(firsts, 0.5),
        "first_90": after(firsts, 0.9),
        "live_median": after(lives, 0.5),
        "live_90": after(lives, 0.9),
        # One that takes few signals has few trades in canary: that is told, without a bar.
        "met": None if world.mode == "canary" and world.picks != "all" else value >= PROMOTED,
    }


def cost_us(closes: int = 50_000) -> float:
    """Microseconds that `Rollout.learn` takes, in canary."""
    rollout = Rollout(RolloutConfig(mode="canary"), 0)
    returns, days, _ = made(normal)(np.random.default_rng(0), closes)
    trades = [
        ClosedTrade(
            rollout.arm(f"s{number}"), "canary", number, _START + timedelta(days=day), "take",
            "take", value,
        )
        for number, (value, day) in enumerate(zip(returns.tolist(), days.tolist(), strict=True))
    ]  # fmt: skip
    started = perf_counter()
    for trade in trades:
        rollout.learn(trade)
    return 1e6 * (perf_counter() - started) / closes


def main(
    tape: Annotated[
        Path | None,
        typer.Argument(help="Run by the engine, to draw days from.", show_default="none"),
    ] = None,
    rollouts: Annotated[int, typer.Option(min=10, help="Of each kind.")] = 200,
    closes: Annotated[int, typer.Option(min=500, help="Of each rollout of equal arms.")] = 20_000,
    edge_closes: Annotated[
        int, typer.Option(min=500, help="Of each rollout with an edge.")
    ] = EDGE_CLOSES,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 42,
    json_out: JsonOption = None,
) -> None:
    """Whether a rollout's test keeps its word, over simulated rollouts."""
    results = Results("rollout", json_out)
    draws: dict[str, Draw] = {name: made(shape) for name, shape in SHAPES.items()}
    random: list[Picks] = ["signals", "days"]
    own: list[Picks] = ["signals"] if tape is None else ["the engine's"]
    with progress() as bar:
        if tape is not None:
            draws[tape.name.partition(".")[0]] = resampled(outcomes(tape, bar))
        name, draw = list(draws.items())[-1]
        equal = [World(name, draw) for name, draw in draws.items()] + [
            World(name, draw, mode, picks)
            for mode in MODES
            for picks in dict.fromkeys(random + own)
        ]
        edged = [
            World(name, draw, "canary", "all", EDGE_PCT),
            World(name, draw, "shadow", own[0], EDGE_PCT),
            World(name, draw, "canary", own[0], EDGE_PCT),
        ]
        even = [
            equal_figures(world, simulated(world, rollouts, closes, seed, bar)) for world in equal
        ]
        better = [
            edge_figures(world, simulated(world, rollouts, edge_closes, seed, bar))
            for world in edged
        ]
    cost, fooled = cost_us(), deceived(rollouts, closes, seed)
    show(results, even, better)
    results.note(f"{rollouts} rollouts each; learning a close takes {cost:.1f} us in canary")
    results.note(f"a 95 % interval, looked at as often, is wrong in {fooled:.1%} of equal arms")
    results.add({"rollouts": rollouts, "closes": closes, "edge_closes": edge_closes, "seed": seed})
    results.add({"tape": tape.name if tape else None, "edge_pct": EDGE_PCT, "taken": TAKEN})
    results.add({"equal": even, "edge": better, "cost_us": cost, "single_interval": fooled})
    results.write()
    if any(figures["met"] is False for figures in even + better):
        sys.exit(1)


def show(results: Results, even: Sequence[Figures], better: Sequence[Figures]) -> None:
    """Both tables."""
    answers = {True: "yes", False: "NO", None: "–"}

    def percents(figures: Figures, value: str) -> str:
        seen, low, high = (100.0 * figures[name] for name in (value, "low", "high"))
        return f"{seen:.1f} ({low:.1f} … {high:.1f})"

    results.table(
        "equal arms",
        ["returns", "from", "picks", "promoted", "demoted", "wrong, %", "met"],
        [
            [
                *(row[name] for name in ("returns", "from", "picks", "promoted", "demoted")),
                percents(row, "wrong"),
                answers[row["met"]],
            ]
            for row in even
        ],
    )
    results.table(
        "a true edge: closes to the first promotion and to live, median and 90 % quantile",
        ["returns", "from", "picks", "promoted, %", "first", "live", "met"],
        [
            [
                *(row[name] for name in ("returns", "from", "picks")),
                percents(row, "promoted"),
                *(f"{shown(row[f'{to}_median'])}, {shown(row[f'{to}_90'])}" for to in ENDS),
                answers[row["met"]],
            ]
            for row in better
        ],
    )


if __name__ == "__main__":
    run(main)
