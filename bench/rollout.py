"""Whether a rollout's test keeps its word, over simulated rollouts looked at after every close.

    python bench/rollout.py [TAPE] [--rollouts N] [--closes N] [--seed N] [--json OUT]

A/A: the model's trades are no better and no worse than the baseline's, so any step is a wrong one.
At most `error_rate` of the rollouts may take one, whatever the returns are like: normal, with heavy
tails, skewed as of one who sells insurance, correlated within days; with a TAPE its own, whole days
drawn with replacement. Rollouts begin in canary at the first stage, or in shadow; there the model
picks a share of the signals at random, each for itself or all of a day.

Edge: the model's trades are better by what taking added on the tape fx of `bench/quality.py`. Told
are the share of rollouts that come to their first promotion and to live within as many closes as
that tape has, and after how many.

It is `engine.safety.rollout.Rollout` that is run. Exit status 1 when a bar isn't met.
"""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.stats import binomtest

from bench.results import BenchError, JsonOption, Results, progress, run, shown
from engine.safety.rollout import ClosedTrade, Rollout
from engine.safety.sequences import FEWEST_PAIRS
from engine.safety.settings import RolloutConfig
from streams import Close, Tape
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
EDGED: tuple[tuple[Mode, float], ...] = (("canary", 1.0), ("shadow", TAKEN), ("canary", TAKEN))
ENDS = ("first", "live")

Figures: TypeAlias = dict[str, Any]
Returns: TypeAlias = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Returns in percent, and the day of each, shape (closes,)."""
Draw: TypeAlias = Callable[[np.random.Generator, int], Returns]


@dataclass(frozen=True)
class World:
    """Where rollouts happen, and how they begin.

    Parameters
    ----------
    draw
        Makes returns.
    mode
        What a rollout begins with.
    taken
        The share of the signals that the model picks.
    by_day
        Whether it picks whole days.
    """

    returns: str
    draw: Draw
    mode: Mode = "canary"
    taken: float = 1.0
    by_day: bool = False
    edge: float = 0.0

    @property
    def picks(self) -> str:
        """How the model picks, in words."""
        if self.taken == 1.0:
            return "all"
        return f"{self.taken:.1%} of {'days' if self.by_day else 'signals'}"


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a rollout: after how many closes; None: never."""

    first: int | None = None
    live: int | None = None
    demoted: int | None = None


def made(shape: Callable[[np.random.Generator, int], NDArray[np.float64]]) -> Draw:
    """Returns with the mean and spread of fx, `A_DAY` a day, of a shape with mean 0, spread 1."""

    def draw(rng: np.random.Generator, closes: int) -> Returns:
        return MEAN_PCT + SPREAD_PCT * shape(rng, closes), np.arange(closes) // A_DAY

    return draw


def normal(rng: np.random.Generator, closes: int) -> NDArray[np.float64]:
    """Independent and normal."""
    return rng.standard_normal(closes)


def heavy(rng: np.random.Generator, closes: int) -> NDArray[np.float64]:
    """Student's t of three degrees of freedom: its fourth moment is infinite."""
    return np.asarray(rng.standard_t(3, closes) / np.sqrt(3.0))


def skewed(rng: np.random.Generator, closes: int) -> NDArray[np.float64]:
    """Nineteen small wins to a large loss."""
    lost = rng.random(closes) < 0.05
    return np.asarray(np.where(lost, -0.95, 0.05) / np.sqrt(0.05 * 0.95))


def clustered(rng: np.random.Generator, closes: int) -> NDArray[np.float64]:
    """A tenth of the variance is the day's: sums over days vary as in fx, twice as much."""
    days = rng.standard_normal(closes // A_DAY + 1).repeat(A_DAY)[:closes]
    return np.asarray(np.sqrt(0.1) * days + np.sqrt(0.9) * rng.standard_normal(closes))


SHAPES = {"normal": normal, "heavy tails": heavy, "skewed": skewed, "days alike": clustered}


def resampled(tape: Path) -> Draw:
    """Whole days of a tape's closes, drawn with replacement."""
    days: dict[int, list[float]] = {}
    for line in Tape(tape):
        event = line.entry().event
        if isinstance(event, Close):
            days.setdefault(event.ts.toordinal(), []).append(event.return_pct)
    if not days:
        raise BenchError(f"{tape} has no close; give a tape with closes")
    blocks = [np.array(returns) for returns in days.values()]

    def draw(rng: np.random.Generator, closes: int) -> Returns:
        drawn: list[NDArray[np.float64]] = []
        count = 0
        while count < closes:
            drawn.append(blocks[rng.integers(len(blocks))])
            count += len(drawn[-1])
        lengths = [len(block) for block in drawn]
        return np.concatenate(drawn)[:closes], np.arange(len(drawn)).repeat(lengths)[:closes]

    return draw


def simulate(world: World, closes: int, seed: int) -> Course:
    """One rollout, each step taken as soon as it is told, until it is live or demoted."""
    rng = np.random.default_rng(seed)
    drawn, days = world.draw(rng, closes)
    picked = rng.random(int(days[-1]) + 1 if world.by_day else closes) < world.taken
    if world.by_day:
        picked = picked[days]
    taken = 1.0 if world.taken == 1.0 else float(picked.mean())
    if 0.0 < taken < 1.0:
        # What is picked is better, what isn't is worse; the mean of all stays.
        drawn = drawn + (picked - taken) * world.edge / (1.0 - taken)
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
            if arm == "model" and taken == 1.0:
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
    task = bar.add_task(f"{world.returns}, {world.mode}, {world.picks}", total=rollouts)
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
        "picks": world.picks,
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
        "picks": world.picks,
        "demoted": sum(course.demoted is not None for course in courses),
        "promoted": value,
        "low": low,
        "high": high,
        "live": share(sum(live is not None for live in lives), len(courses))[0],
        "first_median": after(firsts, 0.5),
        "first_90": after(firsts, 0.9),
        "live_median": after(lives, 0.5),
        "live_90": after(lives, 0.9),
        # From canary, with one trade in 141 the model's, a tape is too short; that is told, no bar.
        "met": None if world.mode == "canary" and world.taken < 1.0 else value >= PROMOTED,
    }


def cost_us(closes: int = 50_000) -> float:
    """Microseconds that `Rollout.learn` takes, in canary."""
    rollout = Rollout(RolloutConfig(mode="canary"), 0)
    returns, days = made(normal)(np.random.default_rng(0), closes)
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
        typer.Argument(help="Closes to draw days from.", show_default="made returns alone"),
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
    if tape is not None:
        draws[tape.name.partition(".")[0]] = resampled(tape)
    name, draw = list(draws.items())[-1]
    equal = [World(name, draw) for name, draw in draws.items()] + [
        World(name, draw, mode, TAKEN, by_day) for mode in MODES for by_day in (False, True)
    ]
    edged = [World(name, draw, mode, taken, edge=EDGE_PCT) for mode, taken in EDGED]
    with progress() as bar:
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
