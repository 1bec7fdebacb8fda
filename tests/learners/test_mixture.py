import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.belief_kernels import DELAY_OVER
from learners.mixture import SHARE_RATES, Mixture

RESTART = 1e-5


@st.composite
def histories(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[bool]]:
    """Probabilities (closes, 4) of which the first expert never abstains, and labels."""
    closes = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    p = rng.uniform(0.001, 0.999, (closes, 4))
    p[rng.random(p.shape) < draw(st.sampled_from([0.0, 0.5]))] = math.nan
    p[:, 0] = rng.uniform(0.001, 0.999)
    return p, [bool(x) for x in rng.random(closes) < draw(st.floats(0, 1))]


def log_loss(p: float, won: bool) -> float:
    return -math.log(p if won else 1.0 - p)


def run(
    mixture: Mixture, p: NDArray[np.float64], won: list[bool], ages: list[int] | None = None
) -> list[float]:
    """The mixture's log losses, each label coming at once but counting as if it were late."""
    losses = []
    for row, label, age in zip(p, won, ages or [0] * len(won), strict=True):
        losses.append(log_loss(mixture.predict(row), label))
        mixture.learn(row, label, age)
    return losses


def four(prior: list[float] | None = None) -> Mixture:
    return Mixture(["a", "b", "c", "d"], prior, restart=RESTART)


def delays(ages: list[int]) -> list[float]:
    """The average age of the last labels, up to each of them; see `Mixture.delay`."""
    found: list[float] = []
    for t, age in enumerate(ages, 1):
        last = found[-1] if found else 0.0
        found.append(last + (age - last) / min(t, DELAY_OVER))
    return found


AGES = {
    "no delay": lambda t: 0,
    "equal delay": lambda t: 3,
    "delays that differ": lambda t: (7 * t) % 5,
    "one long delay": lambda t: 1000 * (t == 4),
}


@settings(deadline=None)
@given(histories(), st.sampled_from(sorted(AGES)))
def test_the_mixture_is_never_worse_than_an_expert_by_more_than_its_bound(
    history: tuple[NDArray[np.float64], list[bool]], how: str
) -> None:
    p, won = history
    prior = [0.5, 0.3, 0.1, 0.1]
    ages = [AGES[how](t) for t in range(len(won))]
    losses = run(four(prior), p, won, ages)
    for i, weight in enumerate(prior):
        # Compared over the closes for which the expert was awake, as for specialists.
        regret = sum(
            (loss - log_loss(float(q), label)) / (1.0 + delay)
            for loss, q, label, delay in zip(losses, p[:, i], won, delays(ages), strict=True)
            if not math.isnan(q)
        )
        assert (
            regret <= math.log(len(SHARE_RATES) / weight) - len(won) * math.log1p(-RESTART) + 1e-9
        )


def test_the_delay_is_the_average_age_of_the_last_labels() -> None:
    mixture = four()
    row = np.full(4, 0.6)
    ages = [(11 * t) % 17 for t in range(1200)]
    for age, delay in zip(ages, delays(ages), strict=True):
        mixture.learn(row, True, age)
        assert mixture.delay == pytest.approx(delay, rel=1e-12)
    for _ in range(5 * DELAY_OVER):
        mixture.learn(row, True, 40)
    assert mixture.delay == pytest.approx(40, abs=0.5)


def test_a_young_label_counts_as_much_as_an_old_one() -> None:
    # Stops come sooner than targets: would the young count more, losses would count double.
    rng = np.random.default_rng(17)
    mixture = Mixture(["even", "gloomy"])
    p = np.array([0.5, 0.35])
    for won in rng.random(4000) < 0.5:
        mixture.learn(p, bool(won), 30 if won else 2)
    assert mixture.weights[0] > 0.9


def test_late_labels_that_win_and_lose_together_do_not_mislead_it() -> None:
    rng = np.random.default_rng(11)
    delay, closes = 20, 6000
    # Twenty trades at a time end alike; of each such group the second expert is sure, at random.
    groups = np.repeat(rng.random(closes // delay) < 0.5, delay)
    guess = np.repeat(np.where(rng.random(closes // delay) < 0.5, 0.8, 0.2), delay)
    p = np.column_stack([np.full(closes, 0.5), guess])
    mixture = Mixture(["base_rate", "rash"])
    total = 0.0
    for start in range(0, closes, delay):
        group = range(start, start + delay)
        total += sum(log_loss(mixture.predict(p[t]), bool(groups[t])) for t in group)
        for t in group:
            mixture.learn(p[t], bool(groups[t]), delay - 1)
    assert total / closes < math.log(2) + 0.01


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
def test_experts_that_take_over_from_each_other_are_tracked_within_the_bound(rate: float) -> None:
    rng = np.random.default_rng(3)
    closes, switches = 2000, 4
    best = (np.arange(closes) // (closes // (switches + 1))) % 4
    won = [bool(x) for x in rng.random(closes) < 0.5]
    good = np.where(won, 0.9, 0.1)
    p = np.where(np.arange(4) == best[:, None], good[:, None], 1.0 - good[:, None])
    p[:, 1] = 0.5
    total = sum(run(four(), p, won))
    path = sum(log_loss(float(q[i]), label) for q, i, label in zip(p, best, won, strict=True))
    bound = (
        math.log(len(SHARE_RATES) * 4)
        + switches * math.log(4 / rate)
        - closes * (math.log1p(-rate) + math.log1p(-RESTART))
    )
    assert total <= path + bound


def test_on_a_long_stream_that_holds_nothing_it_costs_next_to_nothing() -> None:
    rng = np.random.default_rng(5)
    closes = 10_000
    won = [bool(x) for x in rng.random(closes) < 0.43]
    p = np.clip(0.43 + rng.normal(0, 0.1, (closes, 4)), 0.01, 0.99)
    p[:, 0] = 0.43
    total = sum(run(four(), p, won))
    base = sum(log_loss(0.43, label) for label in won)
    assert (total - base) / closes < 0.0003


def test_it_moves_when_the_world_does() -> None:
    rng = np.random.default_rng(7)
    mixture = four()
    first = np.array([0.8, 0.6, 0.5, 0.5])
    for label in rng.random(10_000) < 0.8:
        mixture.learn(first, bool(label))
    assert mixture.weights[0] > 0.95
    for label in rng.random(200) < 0.2:
        mixture.learn(np.array([0.8, 0.2, 0.5, 0.5]), bool(label))
    assert mixture.weights[1] > 0.95


@settings(deadline=None)
@given(histories())
def test_sleepers_keep_their_weight_but_for_what_is_dealt_out_afresh(
    history: tuple[NDArray[np.float64], list[bool]],
) -> None:
    p, won = history
    mixture = Mixture(["a", "b", "c", "d"], rates=(0.0,), restart=0.0)
    for row, label in zip(p, won, strict=True):
        before = mixture.weights
        losses = mixture.learn(row, label)
        asleep = np.isnan(row)
        assert np.isnan(losses).tolist() == asleep.tolist()
        for i in np.flatnonzero(asleep):
            assert mixture.weights[i] == pytest.approx(before[i], rel=1e-9)
        assert sum(mixture.weights) == pytest.approx(1.0)


@settings(deadline=None)
@given(histories())
def test_the_mixture_lies_between_the_experts_that_are_awake(
    history: tuple[NDArray[np.float64], list[bool]],
) -> None:
    p, won = history
    mixture = four()
    run(mixture, p, won)
    for row in p:
        assert np.nanmin(row) - 1e-12 <= mixture.predict(row) <= np.nanmax(row) + 1e-12


def test_when_all_abstain_it_knows_nothing_and_learns_nothing() -> None:
    mixture = four()
    nobody = np.full(4, math.nan)
    before = mixture.weights
    assert math.isnan(mixture.predict(nobody))
    assert np.isnan(mixture.learn(nobody, True)).all()
    assert mixture.weights == pytest.approx(before)
    assert mixture.awake == [0, 0, 0, 0]


def test_losses_are_kept_per_expert_for_the_closes_it_was_awake() -> None:
    mixture = Mixture(["a", "b"])
    mixture.learn(np.array([0.8, math.nan]), True)
    mixture.learn(np.array([0.8, 0.4]), False)
    assert mixture.losses == pytest.approx([-math.log(0.8) - math.log(0.2), -math.log(0.6)])
    assert mixture.awake == [2, 1]


def test_the_regret_is_held_against_what_was_said_in_the_end() -> None:
    mixture = Mixture(["a", "b"])
    mixture.learn(np.array([0.8, math.nan]), True, 0, 0.6)
    mixture.learn(np.array([0.8, 0.4]), False, 0, 0.9)
    first, second = log_loss(0.6, True), log_loss(0.9, False)
    own = [log_loss(0.8, True) + log_loss(0.8, False), log_loss(0.4, False)]
    assert mixture.regrets == pytest.approx([first + second - own[0], second - own[1]])
    # Without it, against its own.
    other = Mixture(["a", "b"])
    p = np.array([0.8, 0.4])
    said = other.predict(p)
    other.learn(p, True)
    assert other.regrets == pytest.approx(
        [log_loss(said, True) - log_loss(q, True) for q in (0.8, 0.4)]
    )


def test_forecasts_of_a_number_are_weighed_by_the_normal_distribution_around_them() -> None:
    mixture = Mixture(["a", "b", "c"], rates=(0.0,), restart=0.0)
    values = np.array([1.0, 4.0, math.nan])
    seen, deviation = 2.0, 0.8
    likely = np.exp(-0.5 * (np.array([1.0, min(2.0 / 0.8, 4.0) * 0.8]) / deviation) ** 2)
    mixture.learn_number(values, seen, deviation)
    expected = likely / likely.sum() * 2 / 3
    assert mixture.weights == pytest.approx([*expected, 1 / 3])
    assert mixture.losses == pytest.approx([*-np.log(likely), 0.0])
    assert mixture.awake == [1, 1, 0]
    assert mixture.predict(values) == pytest.approx(expected @ [1.0, 4.0] / expected.sum())


def test_one_wild_number_does_not_decide_between_forecasts() -> None:
    mixture = Mixture(["near", "far"])
    for _ in range(3):
        mixture.learn_number(np.array([0.0, 3.0]), 1e6, 1.0)
    assert mixture.weights == pytest.approx([0.5, 0.5])
    assert all(math.isfinite(loss) for loss in mixture.losses + mixture.regrets)


def test_the_better_forecast_of_a_number_wins() -> None:
    rng = np.random.default_rng(19)
    mixture = Mixture(["mean", "edge"], [0.8, 0.2])
    for edge in rng.normal(0, 0.3, 2000):
        mixture.learn_number(np.array([0.0, edge]), edge + rng.normal(), 1.0)
    assert mixture.weights[1] > 0.9


@settings(max_examples=50, deadline=None)
@given(histories(), histories())
def test_a_restored_mixture_goes_on_as_if_it_had_never_stopped(
    before: tuple[NDArray[np.float64], list[bool]], after: tuple[NDArray[np.float64], list[bool]]
) -> None:
    straight = four()
    run(straight, *before)
    restored = four()
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    assert run(restored, *after) == run(straight, *after)
    assert repr(restored.state()) == repr(straight.state())
    assert restored.weights == straight.weights
