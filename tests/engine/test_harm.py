"""The published probability does no harm: on no stream is it much worse than the base rate."""

import random
from math import log

import pytest

from engine.core_config import CoreConfig, ExpertConfig
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


def test_where_every_expert_is_misled_it_costs_a_few_nats_once_and_for_all():
    outcomes = [o for o in run(new_core(), entries(*misleading(2_000))) if isinstance(o, Outcome)]

    def loss(p: float, won: bool) -> float:
        return -log(p if won else 1 - p)

    excess = sum(loss(o.probability, o.won) - loss(o.experts["base_rate"], o.won) for o in outcomes)
    # What Mixture's docstring says, for four rates and half of the prior.
    assert excess < (DELAY + 1) * log(4 / 0.5)
    assert len(outcomes) == 2_000


def test_the_base_rate_cannot_be_left_out():
    with pytest.raises(ValueError, match="one must be of kind base_rate"):
        CoreConfig(experts={"logistic": ExpertConfig(kind="logistic")})


def test_half_of_the_first_belief_is_in_the_base_rate_however_many_experts_there_are():
    kinds = ("base_rate", "logistic", "bayes", "forest")
    config = CoreConfig(experts={kind: ExpertConfig(kind=kind) for kind in kinds})
    mixture = new_core(config).model.mixture
    assert mixture.prior[mixture.names.index("base_rate")] == 0.5
