"""Expected return and risk of the stop: what there is to find is found, and nothing else."""

import math
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.belief_kernels import HIGHEST, LOWEST
from learners.expectation import ExpectedReturn, StopRisk, UsualSize
from learners.history import MAX_RETURN_PCT
from learners.returns import Returns

NOBODY = [math.nan]
DELAY = 10


class Trades:
    """Signals of two symbols and sides, whose closes come `DELAY` signals late."""

    def __init__(self, voters: int = 1, experts: int = 2) -> None:
        self.payoff = Returns()
        self.expected = ExpectedReturn(self.payoff, voters, experts, 0)
        self.sizes = UsualSize()
        self._waiting: list[tuple[str, str, float, NDArray[np.float64], float, float]] = []

    def trade(
        self, symbol: str, alike: str, seen: float, p: float, voters: list[float], base: float = 0.5
    ) -> tuple[float, float]:
        """What is expected of a trade that will return `seen`, and how sure that is."""
        scale = self.sizes.of(symbol)
        expected, deviation, frozen = self.expected.predict(
            p, symbol, alike, voters, np.array([base, p]), scale
        )
        self._waiting.append((symbol, alike, scale, frozen, seen, expected))
        if len(self._waiting) > DELAY:
            symbol, alike, scale, frozen, seen, said = self._waiting.pop(0)
            self.expected.learn(frozen, symbol, alike, scale, seen, DELAY, said)
            self.payoff.learn(seen, seen < 0)
            self.sizes.learn(symbol, seen)
        return expected, deviation


def mean_square(said: list[float], seen: NDArray[np.float64]) -> float:
    return float(np.mean((np.array(said) - seen) ** 2))


def running_means(seen: NDArray[np.float64]) -> list[float]:
    known = np.concatenate([np.zeros(DELAY), seen])[: len(seen)]
    closes = np.maximum(np.arange(len(seen)) - DELAY, 0)
    return (np.cumsum(known) / (closes + 1)).tolist()


@pytest.mark.parametrize("mean", [0.0, 0.1, -0.4])
@pytest.mark.parametrize("seed", [1, 2])
def test_on_noise_it_is_no_worse_than_the_running_mean_beyond_a_hair(
    mean: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    seen = mean + rng.normal(0, 1, 4000)
    trades = Trades()
    said = [
        trades.trade(
            rng.choice(["A", "B"]), rng.choice(["long", "short"]), float(value),
            float(rng.uniform(0.3, 0.7)), [float(rng.normal(0, 0.3))],
        )[0]
        for value in seen
    ]  # fmt: skip
    assert mean_square(said, seen) < mean_square(running_means(seen), seen) + 0.003


def planted(kind: str, rng: np.random.Generator) -> tuple[float, str, float, list[float], float]:
    """The true mean of a trade, its group, its probability and forecast, and its base rate."""
    side, edge = str(rng.choice(["long", "short"])), float(rng.normal(0, 0.4))
    if kind == "of the group":
        return (0.4 if side == "long" else -0.4), side, 0.5, NOBODY, 0.5
    if kind == "in a forecast":
        return edge, side, 0.5, [edge], 0.5
    # Returns of +-1 by a probability.
    p = 1.0 / (1.0 + math.exp(-2.0 * edge))
    return 2.0 * p - 1.0, side, p, NOBODY, 0.5


@pytest.mark.parametrize("kind", ["of the group", "in a forecast", "in the probability"])
def test_an_edge_is_found(kind: str) -> None:
    rng = np.random.default_rng(3)
    trades = Trades()
    said, truth, seen = [], [], []
    for _ in range(4000):
        mean, side, p, voters, base = planted(kind, rng)
        if kind == "in the probability":
            value = 1.0 if rng.random() < p else -1.0
        else:
            value = mean + float(rng.normal(0, 1))
        said.append(trades.trade("A", side, value, p, voters, base)[0])
        truth.append(mean)
        seen.append(value)
    late = slice(1500, None)
    won = mean_square([0.0] * 2500, np.array(truth[late]))
    # Of what the running mean lacks, nine tenths are found.
    assert mean_square(said[late], np.array(truth[late])) < 0.1 * won
    assert np.corrcoef(said[late], truth[late])[0, 1] > 0.95


def test_the_expected_return_is_in_percent_whatever_is_usual_for_the_symbol() -> None:
    rng = np.random.default_rng(4)
    trades = Trades()
    said: dict[str, list[float]] = {"calm": [], "wild": []}
    for _ in range(6000):
        symbol = str(rng.choice(["calm", "wild"]))
        size = 0.1 if symbol == "calm" else 10.0
        said[symbol].append(
            trades.trade(symbol, "long", size * float(rng.normal(0.3, 1)), 0.5, NOBODY)[0]
        )
    # Within a usual size of each; the mean of all trades is 1.5.
    assert np.mean(said["calm"][1500:]) == pytest.approx(0.03, abs=0.1)
    assert np.mean(said["wild"][1500:]) == pytest.approx(3.0, abs=1.0)


def test_it_grows_surer_with_closes() -> None:
    rng = np.random.default_rng(5)
    trades = Trades()
    deviations = [
        trades.trade("A", "long", float(value), 0.6, [0.1])[1] for value in rng.normal(0, 1, 2000)
    ]
    assert deviations[-1] < 0.5 * deviations[50]
    assert min(deviations) > 0.0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1e6, -1e6, 0.0, 5e-324, 1.0, -1.0]),
            st.sampled_from([LOWEST, 0.5, HIGHEST]),
            st.sampled_from([math.nan, 1e6, -1e6, 1e300, 0.0]),
        ),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_wild_returns_leave_it_finite(trades: list[tuple[float, float, float]]) -> None:
    wild = Trades()
    for seen, p, vote in trades:
        expected, deviation = wild.trade("A", "long", seen, p, [vote], p)
        assert math.isfinite(expected)
        assert math.isfinite(deviation)
        assert deviation >= 0.0
    for symbol in ("A", "unheard"):
        assert 0.0 < wild.sizes.of(symbol) <= MAX_RETURN_PCT
        assert math.isfinite(wild.sizes.relative(symbol))


def test_one_wild_return_is_soon_forgotten_by_all_but_the_mean() -> None:
    rng = np.random.default_rng(6)
    trades = Trades()
    for turn in range(2500):
        seen = 1e3 if turn == 1000 else float(rng.normal(0.5, 1))
        expected, _ = trades.trade("A", "long", seen, 0.5, NOBODY)
    # The mean of all closes is 0.9 by now.
    assert expected == pytest.approx(0.5, abs=0.5)


# Usual sizes


def test_the_usual_size_is_the_root_mean_square_shrunk_towards_all() -> None:
    sizes = UsualSize()
    assert sizes.of("A") == sizes.relative("A") == 1.0
    for _ in range(3000):
        sizes.learn("A", 2.0)
        sizes.learn("B", -0.5)
    assert sizes.of("A") == pytest.approx(2.0, rel=0.05)
    assert sizes.of("B") == pytest.approx(0.5, rel=0.2)
    every = math.sqrt((4.0 + 0.25) / 2)
    assert sizes.of("unheard") == pytest.approx(every, rel=0.01)
    assert sizes.relative("A") == pytest.approx(2.0 / every, rel=0.05)
    assert sizes.relative("unheard") == pytest.approx(1.0)


# Risk of the stop


def risks(
    stop: StopRisk, rows: Iterator[tuple[float, str, float, bool]]
) -> tuple[list[float], list[bool]]:
    said, ended = [], []
    for p, alike, vote, stopped in rows:
        risk, frozen = stop.predict(p, alike, [vote])
        said.append(risk)
        ended.append(stopped)
        stop.learn(frozen, alike, stopped, 0, risk)
    return said, ended


def mean_loss(said: list[float], ended: list[bool]) -> float:
    return -sum(
        math.log(q if stopped else 1 - q) for q, stopped in zip(said, ended, strict=True)
    ) / len(said)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_on_noise_the_risk_is_no_worse_than_the_running_rate_beyond_a_hair(rate: float) -> None:
    rng = np.random.default_rng(7)

    def noise() -> Iterator[tuple[float, str, float, bool]]:
        for _ in range(4000):
            yield (
                rng.uniform(0.2, 0.8), str(rng.choice(["a", "b"])), rng.uniform(0.01, 0.99),
                bool(rng.random() < rate),
            )  # fmt: skip

    said, ended = risks(StopRisk(Returns(), 1), noise())
    counts = np.concatenate([[0], np.cumsum(ended)[:-1]])
    running = ((counts + 1) / (np.arange(4000) + 2)).tolist()
    assert mean_loss(said, ended) < mean_loss(running, ended) + 0.0008


@pytest.mark.parametrize("where", ["of the group", "in the forecast", "in the probability"])
def test_a_risk_that_can_be_told_is_told(where: str) -> None:
    rng = np.random.default_rng(8)
    payoff = Returns()

    def trades() -> Iterator[tuple[float, str, float, bool]]:
        for _ in range(3000):
            chance = float(rng.choice([0.2, 0.8]))
            stopped = bool(rng.random() < chance)
            payoff.learn(-1.0 if stopped else 1.0, stopped)
            yield (
                1.0 - chance if where == "in the probability" else 0.5,
                str(chance) if where == "of the group" else "a",
                chance if where == "in the forecast" else math.nan,
                stopped,
            )

    said, ended = risks(StopRisk(payoff, 1), trades())
    known = -0.2 * math.log(0.2) - 0.8 * math.log(0.8)
    assert mean_loss(said[500:], ended[500:]) < known + 0.03


def test_half_of_the_first_belief_is_in_the_running_rate_however_many_vote() -> None:
    for voters in (0, 1, 5):
        stop = StopRisk(Returns(), voters)
        assert stop.mixture.prior[stop.names.index("rate")] == 0.5


# State


@pytest.mark.parametrize("at", [0, 1, 120])
def test_restored_parts_go_on_to_the_bit(at: int) -> None:
    rng = np.random.default_rng(9)
    rows = [
        (float(rng.normal()), float(rng.uniform(0.2, 0.8)), str(rng.choice(["a", "b"])))
        for _ in range(200)
    ]

    def play(
        parts: tuple[Returns, ExpectedReturn, StopRisk, UsualSize],
        part: list[tuple[float, float, str]],
    ) -> list[tuple[float, ...]]:
        payoff, expected, stop, sizes = parts
        said = []
        for seen, p, group in part:
            scale = sizes.of(group)
            mean, deviation, frozen = expected.predict(
                p, group, group, [seen / 2], np.array([0.5, p]), scale
            )
            risk, risked = stop.predict(p, group, [p])
            said.append((scale, sizes.relative(group), mean, deviation, risk))
            expected.learn(frozen, group, group, scale, seen, 2, mean)
            stop.learn(risked, group, seen < 0, 2, risk)
            payoff.learn(seen, seen < 0)
            sizes.learn(group, seen)
        return said

    def parts() -> tuple[Returns, ExpectedReturn, StopRisk, UsualSize]:
        payoff = Returns()
        return payoff, ExpectedReturn(payoff, 1, 2, 0), StopRisk(payoff, 1), UsualSize()

    straight, restored = parts(), parts()
    play(straight, rows[:at])
    for old, new in zip(straight, restored, strict=True):
        new.restore(pickle.loads(pickle.dumps(old.state())))
    assert play(restored, rows[at:]) == play(straight, rows[at:])
    for old, new in zip(straight, restored, strict=True):
        assert pickle.dumps(new.state()) == pickle.dumps(old.state())
