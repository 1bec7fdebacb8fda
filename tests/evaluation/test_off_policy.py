"""Censored labels: a plain mean over what was traded is biased, ours are not.

The truth is known, as the world is made up: a policy that takes what looks good, explores a few of
the rest, and sees what came of those it took alone.
"""

import math
import random

import numpy as np
import pytest

from engine.core import Core
from engine.evaluation.off_policy import (
    METHODS,
    Offered,
    censored,
    effective_size,
    entropy,
    off_policy,
)
from engine.evaluation.prequential import Decisions, Outcomes, run
from engine.evaluation.scores import losses
from engine.fitting import InlineFitter
from streams import Decision, encode
from streams.tape import Line
from tests.engine.histories import QUICK, close, signal

UNBIASED = METHODS[1:]


class World:
    """Signals whose chance to win and to be taken both follow what is seen of them."""

    def __init__(self, signals: int, seed: int, explored: float = 0.1) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=signals)
        self.truth = 1.0 / (1.0 + np.exp(-x))
        # The forecaster is too sure of bad signals, and the policy doesn't see what it skips.
        self.p = np.clip(np.where(x > 0, self.truth, 0.4 * self.truth), 0.01, 0.99)
        self.won = rng.random(signals) < self.truth
        self.returns = np.where(self.won, 1.0, -1.0) * rng.uniform(0.5, 1.5, signals)
        self.propensity = np.where(self.p > 0.5, 1.0, explored)
        self.seen = rng.random(signals) < self.propensity

    def log_loss(self, expected: np.ndarray | None = None) -> Offered:
        m = entropy(self.p) if expected is None else expected
        return Offered(self.seen, self.propensity, losses(self.p, self.won), m)

    def mean_return(self) -> Offered:
        return Offered(self.seen, self.propensity, self.returns, 2.0 * self.p - 1.0)

    @property
    def true_log_loss(self) -> float:
        """Over all the world, not this sample of it."""
        wins = np.ones(len(self.p), np.bool_)
        of_each = self.truth * losses(self.p, wins) + (1 - self.truth) * losses(self.p, ~wins)
        return float(of_each.mean())

    @property
    def true_mean_return(self) -> float:
        """Likewise."""
        return float((2.0 * self.truth - 1.0).mean())


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [World(3_000, seed) for seed in range(60)]


@pytest.mark.parametrize("quantity", ["log_loss", "mean_return"])
def test_the_plain_mean_is_biased_and_ours_is_not(worlds: list[World], quantity: str):
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    held = dict.fromkeys(METHODS, 0)
    for world in worlds:
        truth = (
            world.true_log_loss if quantity == "log_loss" else float((2 * world.truth - 1).mean())
        )
        for method, found in off_policy(getattr(world, quantity)(), count=100).items():
            assert found.value is not None and found.interval is not None
            errors[method].append(found.value - truth)
            held[method] += found.interval[0] <= truth <= found.interval[1]
    for method in UNBIASED:
        mean, spread = np.mean(errors[method]), np.std(errors[method], ddof=1)
        assert abs(mean) < 3.0 * spread / math.sqrt(len(worlds)), method
        assert held[method] > 0.85 * len(worlds), method
    plain = np.array(errors["plain"])
    assert abs(plain.mean()) > 10.0 * plain.std(ddof=1) / math.sqrt(len(worlds))
    assert held["plain"] < 0.05 * len(worlds)


def test_doubly_robust_varies_least_where_the_expectation_is_right(worlds: list[World]):
    def spread(method: str) -> float:
        errors = []
        for seed, world in enumerate(worlds[:30]):
            noise = np.random.default_rng(seed).normal(scale=0.1, size=len(world.p))
            offered = Offered(world.seen, world.propensity, world.truth + noise, world.truth)
            found = off_policy(offered, count=2)[method].value
            errors.append(found - world.truth.mean())
        return float(np.std(errors))

    others = min(spread("self_normalised_ipw"), spread("ipw"))
    assert 1.5 * spread("doubly_robust") < others


def test_doubly_robust_needs_one_of_propensity_and_expectation_alone(worlds: list[World]):
    wrong_m, wrong_e = [], []
    for world in worlds:
        nonsense = world.log_loss(np.full(len(world.p), 5.0))
        wrong_m.append(off_policy(nonsense, count=2)["doubly_robust"].value - world.true_log_loss)
        wins = np.ones(len(world.p), np.bool_)
        right = world.truth * losses(world.p, wins) + (1 - world.truth) * losses(world.p, ~wins)
        found = off_policy(
            Offered(world.seen, np.full(len(world.p), 0.5), losses(world.p, world.won), right),
            count=2,
        )
        wrong_e.append(found["doubly_robust"].value - world.true_log_loss)
    for errors in (wrong_m, wrong_e):
        assert abs(np.mean(errors)) < 3.0 * np.std(errors, ddof=1) / math.sqrt(len(errors))


def test_all_taken_makes_all_methods_the_plain_mean():
    values = np.random.default_rng(1).normal(size=200)
    offered = Offered(np.ones(200, np.bool_), np.ones(200), values, np.zeros(200))
    for found in off_policy(offered, count=50).values():
        assert found.value == pytest.approx(values.mean())
    assert effective_size(offered) == 200.0


def test_few_heavy_weights_are_worth_few_closes():
    seen = np.array([True] * 10 + [False] * 90)
    propensity = np.where(np.arange(100) < 9, 1.0, 0.01)
    weights = [1.0] * 9 + [100.0]
    expected = sum(weights) ** 2 / sum(w * w for w in weights)
    assert effective_size(Offered(seen, propensity, seen * 1.0, seen * 1.0)) == expected


def test_what_was_not_seen_is_never_read():
    world = World(500, 3)
    spoilt = world.log_loss()
    value = np.where(world.seen, spoilt.value, np.nan)
    unseen = Offered(spoilt.observed, spoilt.propensity, value, spoilt.expected)
    assert off_policy(unseen, count=50) == off_policy(spoilt, count=50)


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.5, math.nan])
def test_a_propensity_that_is_none_is_told(propensity: float):
    seen = np.ones(30, np.bool_)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        off_policy(Offered(seen, np.full(30, propensity), np.ones(30), np.ones(30)))


def test_nothing_offered_and_nothing_seen_are_no_figures():
    none = np.zeros(0)
    empty = off_policy(Offered(none > 0, none, none, none))
    assert [each.value for each in empty.values()] == [None] * 4
    blind = Offered(np.zeros(30, np.bool_), np.full(30, 0.5), np.ones(30), np.ones(30))
    assert [each.value for each in off_policy(blind, count=50).values()] == [None] * 4
    assert effective_size(blind) == 0.0


# The whole way, by the core


def lived(signals: int, on_paper: bool, seed: int = 1) -> tuple[Decisions, Outcomes, list[float]]:
    """A bot's life: what it skips never closes, unless it is tracked on paper.

    Returns what was decided, what came of it, and every signal's return, closed or not.
    """
    rng = random.Random(seed)
    config = QUICK.model_copy(
        update={"policy": QUICK.policy.model_copy(update={"exploration_rate": 0.2})}
    )
    twin = Core(config, InlineFitter())
    lines: list[Line] = []
    waiting: list[tuple[int, str, float, bool | None]] = []
    returns: list[float] = []

    def send(event: object) -> list[object]:
        data = encode(event)
        line = Line(f"0-{len(lines)}", data, len(data), None, len(lines) + 1)
        lines.append(line)
        return twin.apply(line.entry())

    for i in range(signals):
        edge = rng.gauss(0, 1)
        returns.append(rng.uniform(0.5, 1.5) * (1 if edge + rng.gauss(0, 1) > 0 else -1))
        features = {"edge": edge}
        (said,) = (
            output
            for output in send(signal(f"s{i}", i, symbol=f"S{i % 7}", features=features))
            if isinstance(output, Decision)
        )
        taken = said.action != "skip"
        if taken or on_paper:
            # Half of those skipped are closed without a word on whether they were traded.
            executed = taken if taken or i % 2 else None
            waiting.append((i + 3, said.signal_id, returns[-1], executed))
        while waiting and waiting[0][0] <= i:
            _, name, value, executed = waiting.pop(0)
            send(close(name, i + 0.5, value, executed=executed))
    passed = run(Core(config, InlineFitter()), lines)
    assert passed.core.decisions_digest == twin.decisions_digest
    return passed.decisions, passed.outcomes, returns


@pytest.mark.parametrize("on_paper", [False, True])
def test_from_executed_trades_alone_the_engine_knows_what_all_offered_were_worth(on_paper: bool):
    decisions, outcomes, returns = lived(3_000, on_paper)
    judged = slice(300, None)
    found = censored(decisions.select(judged), outcomes, count=200)
    truth = np.array(returns)[judged]
    true_loss = float(losses(decisions.probability[judged], truth > 0).mean())
    for estimates, known in (
        (found.log_loss, true_loss),
        (found.mean_return_pct, float(truth.mean())),
    ):
        for method in ("self_normalised_ipw", "doubly_robust"):
            each = estimates[method]
            assert each.interval is not None and each.interval[0] <= known <= each.interval[1]
        assert ("truth" in estimates) == on_paper
        if on_paper:
            assert estimates["truth"].value == pytest.approx(known, abs=0.01)
    plain = found.mean_return_pct["plain"]
    assert plain.interval is not None and plain.interval[0] > float(truth.mean())


def test_what_cannot_be_spoken_of_is_left_out_and_counted():
    p = np.full(6, 0.6)
    decisions = Decisions(
        probability=p,
        expected_return_pct=np.zeros(6),
        propensity=np.array([1.0, 1.0, 0.0, np.nan, 0.1, 1.0]),
        taken=np.array([True, True, False, True, False, True]),
        outcome=np.array([0, -1, -1, -1, -1, 1]),
    )
    lines = [
        signal("a"), close("a", 1, 2.0), signal("b", 2), close("b", 3, 1.0, executed=False),
    ]  # fmt: skip
    data = [encode(event) for event in lines]
    outcomes = run(
        Core(QUICK, InlineFitter()),
        [Line(f"0-{i}", each, len(each), None, i + 1) for i, each in enumerate(data)],
    ).outcomes
    found = censored(decisions, outcomes)
    assert (found.offered, found.observed, found.effective) == (2, 1, 1.0)
    # Taken without a close, and taken on paper.
    assert (found.impossible, found.unpublished, found.lost) == (1, 1, 2)
    assert found.mean_return_pct["plain"].value == 2.0
    assert found.mean_return_pct["ipw"].value == 1.0
    assert "truth" not in found.mean_return_pct


def test_the_loss_that_a_probability_expects_of_itself_is_its_entropy():
    assert entropy(np.array([0.5, 0.2])) == pytest.approx(
        [math.log(2), -0.2 * math.log(0.2) - 0.8 * math.log(0.8)]
    )
