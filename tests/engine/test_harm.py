"""The published probability does no harm: on no stream is it much worse than the base rate."""

import random
from math import log

import pytest

from engine.core_config import CoreConfig, ExpertConfig, RefitConfig
from learners import RefitParams
from streams import Close, Outcome, Signal
from tests.engine.histories import close, entries, new_core, run, signal

DELAY = 1


def misleading(signals: int) -> list[Signal | Close]:
    """What told who wins tells who loses, as soon as it is believed."""
    rng = random.Random(5)
    events: list[Signal | Close] = []
    won: list[bool] = []
    for i in range(signals + DELAY):
        if i >= DELAY:
            events.append(close(f"s{i - DELAY}", i, 1.0 if won[i - DELAY] else -1.0))
        if i < signals:
            edge = rng.gauss(0, 1)
            won.append((edge > 0) == (i // 25 % 2 == 0))
            events.append(signal(f"s{i}", i, features={"edge": edge}))
    return events


def log_loss(p: float, won: bool) -> float:
    return -log(p if won else 1 - p)


def test_where_every_expert_is_misled_it_costs_a_few_nats_once_and_for_all():
    outcomes = [o for o in run(new_core(), entries(*misleading(2_000))) if isinstance(o, Outcome)]

    excess = sum(
        log_loss(o.probability, o.won) - log_loss(o.experts["base_rate"], o.won) for o in outcomes
    )
    # What Mixture's docstring says, for four rates and half of the prior.
    assert excess < (DELAY + 1) * log(4 / 0.5)
    assert len(outcomes) == 2_000


LONG = 10_000
HAIR = 0.0003


def telling_nothing(signals: int, delay: int, rate: float) -> list[Signal | Close]:
    """Features, symbols and strategies that have nothing to do with who wins."""
    rng = random.Random(7)
    events: list[Signal | Close] = []
    for i in range(signals + delay):
        if i >= delay:
            value = rng.uniform(0.5, 2.0) if rng.random() < rate else -rng.uniform(0.5, 2.0)
            reason = "target" if value > 0 else "stop"
            events.append(close(f"s{i - delay}", i, value, exit_reason=reason))
        if i < signals:
            features = {"edge": rng.gauss(0, 1), "adx": rng.uniform(5, 45), "hour": i % 24}
            fields = {"symbol": rng.choice("ABC"), "strategy": rng.choice(["orb", "trend"])}
            side = rng.choice(["long", "short"])
            events.append(signal(f"s{i}", i, side=side, features=features, **fields))
    return events


def test_on_a_long_stream_that_tells_nothing_all_is_as_good_as_its_baseline():
    config = CoreConfig(
        experts={
            name: expert
            for name, expert in CoreConfig().experts.items()
            if expert.kind != "forest"  # it takes long
        },
        refit=RefitConfig(every=1000, lag=50, window=1000, params=RefitParams(rounds=5)),
    )
    core = new_core(config)
    excess, risks, squares, total, stops = 0.0, 0.0, 0.0, 0.0, 0
    for entry in entries(*telling_nothing(LONG, 4, 0.45)):
        for o in core.apply(entry):
            if not isinstance(o, Outcome):
                continue
            closes = o.update - 1
            excess += log_loss(o.probability, o.won) - log_loss(o.experts["base_rate"], o.won)
            rate = (stops + 1) / (closes + 2)
            risks += log_loss(o.risk, o.stopped) - log_loss(rate, o.stopped)
            squares += (o.expected_return_pct - o.return_pct) ** 2
            squares -= (total / (closes + 1) - o.return_pct) ** 2
            total += o.return_pct
            stops += o.stopped
    assert core.model.closes == LONG
    assert core.model.champions.refits["installed"] > 2
    assert excess / LONG < HAIR
    assert risks / LONG < HAIR
    # Returns have a variance of some 1.8: a thousandth of it.
    assert squares / LONG < 0.0018


def test_the_base_rate_cannot_be_left_out():
    with pytest.raises(ValueError, match="one must be of kind base_rate"):
        CoreConfig(experts={"logistic": ExpertConfig(kind="logistic")})


def test_half_of_the_first_belief_is_in_the_base_rate_however_many_experts_there_are():
    kinds = ("base_rate", "logistic", "bayes", "forest")
    config = CoreConfig(experts={kind: ExpertConfig(kind=kind) for kind in kinds})
    mixture = new_core(config).model.mixture
    assert mixture.prior[mixture.names.index("base_rate")] == 0.5
