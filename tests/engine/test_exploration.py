"""Exploration: which signals are drawn depends on their IDs and the seed, and on nothing else."""

import math

import pytest

from engine.core import explored
from engine.core_config import CoreConfig, ExpertConfig, PolicyConfig, RefitConfig
from streams import Close, Decision, Signal
from tests.engine.histories import close, entries, new_core, run, signal

SIGNALS = 600


def config(seed: int = 42, rate: float = 0.2, **policy: object) -> CoreConfig:
    """One by which the rule skips everything."""
    return CoreConfig(
        seed=seed,
        experts={"base_rate": ExpertConfig(kind="base_rate")},
        refit=RefitConfig(enabled=False),
        policy=PolicyConfig(
            take_margin_pct=1e9, reduce_margin_pct=1e9, warmup_closes=0, exploration_rate=rate,
            **policy,
        ),
    )  # fmt: skip


def stream(shift: float = 0.0) -> list[Signal | Close]:
    """The same IDs, whatever `shift` makes of features, symbols, sides, times and returns."""
    events: list[Signal | Close] = []
    for i in range(SIGNALS):
        side = "long" if (i + shift) % 3 else "short"
        fields = {"symbol": f"S{(i * (1 + shift)) % 5:g}", "features": {"rsi": i * shift}}
        events.append(signal(f"trade-{i}", i + shift, side=side, **fields))
        events.append(close(f"trade-{i}", i + shift + 0.5, (-1.0) ** i + shift))
    return events


def decisions(given: CoreConfig, events: list[Signal | Close]) -> list[Decision]:
    return [o for o in run(new_core(given), entries(*events)) if isinstance(o, Decision)]


def drawn(made: list[Decision]) -> list[str]:
    return [d.signal_id for d in made if "exploration" in d.reasons]


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.75])
def test_the_share_drawn_is_the_configured_rate(rate):
    count = 40_000
    for seed in (1, 2):
        given = config(seed, rate)
        share = sum(explored(f"trade-{i}", given) for i in range(count)) / count
        assert abs(share - rate) < 4.0 * math.sqrt(rate * (1.0 - rate) / count)


def test_at_rate_0_none_is_drawn_and_at_rate_1_all_are():
    assert not any(explored(f"trade-{i}", config(rate=0.0)) for i in range(5000))
    assert all(explored(f"trade-{i}", config(rate=1.0)) for i in range(5000))


def test_a_draw_says_nothing_about_the_next():
    hits = [explored(f"trade-{i}", config(rate=0.5)) for i in range(20_000)]
    for lag in (1, 2, 10):
        alike = sum(one == other for one, other in zip(hits, hits[lag:], strict=False))
        assert abs(alike / (len(hits) - lag) - 0.5) < 0.02


def test_only_what_is_drawn_is_taken_and_the_propensity_says_how_likely_that_was():
    made = decisions(config(), stream())
    ids = [f"trade-{i}" for i in range(SIGNALS) if explored(f"trade-{i}", config())]
    assert drawn(made) == ids
    assert 0.1 * SIGNALS < len(ids) < 0.3 * SIGNALS
    for decision in made:
        assert (decision.action == "reduce_size") == (decision.signal_id in ids)
        assert (decision.size_multiplier > 0) == (decision.signal_id in ids)
        assert decision.propensity == 0.2


@pytest.mark.parametrize("shift", [1.0, 7.0])
def test_the_draw_is_independent_of_all_else_that_is_known_of_a_signal(shift):
    here, there = decisions(config(), stream()), decisions(config(), stream(shift))
    assert drawn(here) == drawn(there)
    assert [d.symbol for d in here] != [d.symbol for d in there]


def test_the_draw_is_the_same_in_a_replay_and_after_a_restore():
    events = stream()
    whole = decisions(config(), events)
    assert decisions(config(), events) == whole
    before, after = new_core(config()), new_core(config())
    first = run(before, entries(*events[:500]))
    after.restore(before.state())
    second = run(after, entries(*events[500:], first=501))
    assert [o for o in first + second if isinstance(o, Decision)] == whole


def test_another_seed_draws_others():
    one, other = (set(drawn(decisions(config(seed), stream()))) for seed in (1, 2))
    # As many are in both as chance would have it.
    assert len(one & other) < 0.1 * SIGNALS
    assert one - other
    assert other - one


def test_a_higher_rate_draws_all_that_a_lower_one_does():
    few, many = (set(drawn(decisions(config(rate=rate), stream()))) for rate in (0.05, 0.4))
    assert few < many


def test_while_the_model_warms_up_nothing_is_drawn():
    given = config().model_copy(
        update={"policy": config().policy.model_copy(update={"warmup_closes": 300})}
    )
    made = decisions(given, stream())
    assert drawn(made[:300]) == []
    assert drawn(made[300:]) == [
        d for d in drawn(decisions(config(), stream())) if int(d[6:]) >= 300
    ]
