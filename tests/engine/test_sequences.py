"""The confidence sequence for the difference of two arms: what it says, and how often it errs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.safety.sequences import FEWEST_PAIRS, Difference

ALPHA = 0.05


def fed(values, model, baseline=None, days=None, alpha=ALPHA):
    """A sequence that has seen all of this; a day has twelve values."""
    seen = Difference(alpha)
    baseline = [not each for each in model] if baseline is None else baseline
    for i, value in enumerate(values):
        seen.add(i // 12 if days is None else days[i], bool(model[i]), bool(baseline[i]), value)
    return seen


def two_arms(closes, share=0.5, seed=1, gap=0.0):
    rng = np.random.default_rng(seed)
    model = rng.random(closes) < share
    return (rng.standard_normal(closes) + gap * model).tolist(), model.tolist()


def test_the_difference_is_that_of_the_arms_means():
    values, model = two_arms(1_000, gap=0.5)
    x, m = np.array(values), np.array(model)
    difference, low, high = fed(values, model).bounds
    assert difference == pytest.approx(x[m].mean() - x[~m].mean())
    assert low < difference < high
    assert difference - low == pytest.approx(high - difference)


def test_the_bounds_are_robbins_normal_mixture_over_the_larger_of_two_variances():
    rng = np.random.default_rng(1)
    n = 1_500
    days = np.arange(n) // 12
    # What is the day's is in the returns and in the choice; some trades stand in both arms.
    values = 5.0 + rng.standard_normal(n) + 0.5 * rng.standard_normal(n)[days]
    model = rng.random(n) < 0.2 + 0.4 * (days % 2)
    baseline = ~model | (rng.random(n) < 0.3)
    weights = model / model.sum() - baseline / baseline.sum()
    common = values.var() * (weights**2).sum()
    centred = (
        model * (values - values[model].mean()) / model.sum()
        - baseline * (values - values[baseline].mean()) / baseline.sum()
    )
    by_day = (np.bincount(days, centred) ** 2).sum()
    assert by_day > common
    seen = fed(values.tolist(), model.tolist(), baseline.tolist())
    difference, low, high = seen.bounds
    assert difference == pytest.approx((weights * values).sum())
    apart = np.abs(weights).sum() / 2
    assert apart < 0.9
    information, r = apart**2 / by_day, seen.state()["prior"]
    away = math.sqrt((information + r) * math.log((information + r) / (r * ALPHA**2)))
    assert (high - low) / 2 == pytest.approx(apart * away / information, rel=1e-9)
    # Never as narrow as an interval that is looked at once.
    assert (high - low) / 2 > 1.3 * 1.96 * math.sqrt(by_day)


def test_where_it_is_tightest_is_settled_at_the_first_look():
    values, model = two_arms(3_000, share=0.1)
    seen, settled = Difference(ALPHA), set()
    for i, value in enumerate(values):
        seen.add(i, model[i], not model[i], value)
        if seen.bounds is not None:
            settled.add(seen.state()["prior"])
    assert len(settled) == 1


def test_trades_in_both_arms_do_not_bring_the_first_look_nearer():
    # A hundred trades in both arms, and ten of each alone: ten pairs and a few.
    values = np.random.default_rng(1).standard_normal(120).tolist()
    model = [True] * 110 + [False] * 10
    baseline = [True] * 100 + [False] * 10 + [True] * 10
    assert fed(values, model, baseline).bounds is None


def test_days_whose_trades_are_alike_widen_the_bounds():
    rng = np.random.default_rng(1)
    days = np.arange(3_000) // 12
    model = rng.random(250)[days] < 0.5
    alike = rng.standard_normal(250)[days] + 0.1 * rng.standard_normal(3_000)
    dealt = rng.permutation(alike)

    def width(values):
        _, low, high = fed(values.tolist(), model.tolist()).bounds
        return high - low

    # Twelve trades that are all the same tell as much as one.
    assert width(alike) == pytest.approx(math.sqrt(12) * width(dealt), rel=0.2)


def test_an_arm_of_wider_returns_widens_the_bounds():
    rng = np.random.default_rng(1)
    model = np.arange(2_000) % 10 == 0
    values = rng.standard_normal(2_000) * np.where(model, 5.0, 1.0)
    _, low, high = fed(values.tolist(), model.tolist(), days=range(2_000)).bounds
    _, even_low, even_high = fed(
        rng.permutation(values).tolist(), model.tolist(), days=range(2_000)
    ).bounds
    assert high - low > 1.5 * (even_high - even_low)


def test_of_trades_in_both_arms_only_those_that_differ_tell_anything():
    rng = np.random.default_rng(1)
    values = rng.standard_normal(2_000).tolist()
    everything = [True] * 2_000
    assert fed(values, everything, everything).bounds is None
    picked = (rng.random(2_000) < 0.9).tolist()
    difference, low, high = fed(values, picked, everything, days=range(2_000)).bounds
    x, m = np.array(values), np.array(picked)
    assert difference == pytest.approx(x[m].mean() - x.mean())
    # That is a tenth of the difference of those picked and those not: and as sure.
    apart, apart_low, apart_high = fed(values, picked, days=range(2_000)).bounds
    left_out = 1.0 - m.mean()
    assert difference == pytest.approx(left_out * apart)
    assert high - low == pytest.approx(left_out * (apart_high - apart_low), rel=0.1)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_nothing_is_said_before_there_are_enough_pairs(share):
    values, model = two_arms(2_000, share)
    seen = Difference(ALPHA)
    for i, value in enumerate(values):
        seen.add(i, model[i], not model[i], value)
        n1 = sum(model[: i + 1])
        pairs = n1 * (i + 1 - n1) / (i + 1)
        assert (seen.bounds is not None) == (pairs >= FEWEST_PAIRS)


def test_values_that_are_all_the_same_prove_nothing():
    assert fed([1.0] * 500, [i % 2 == 0 for i in range(500)]).bounds is None
    assert fed([0.1] * 500, [i % 2 == 0 for i in range(500)]).bounds is None


def test_what_the_market_did_between_two_stages_is_no_difference_of_the_arms():
    rng = np.random.default_rng(1)
    seen, pooled = Difference(ALPHA), Difference(ALPHA)
    # All returns rise by three deviations just when the model gets most of the signals.
    for day in range(4_000):
        if day == 2_000:
            seen.next_stage()
        late = day >= 2_000
        model = bool(rng.random() < (0.9 if late else 0.1))
        value = float(rng.standard_normal()) + 3.0 * late
        for each in (seen, pooled):
            each.add(day, model, not model, value)
    assert pooled.bounds[1] > 0.0
    assert seen.bounds[1] < 0.0 < seen.bounds[2]
    assert abs(seen.bounds[0]) < 0.2


@pytest.mark.parametrize("sharing", [False, True])
def test_evidence_lasts_through_the_stages(sharing):
    values, model = two_arms(2_000, gap=0.3)
    baseline = [sharing or not each for each in model]
    whole = fed(values, model, baseline, range(2_000))
    staged = Difference(ALPHA)
    for i, value in enumerate(values):
        if i in (700, 1_400):
            staged.next_stage()
        staged.add(i, model[i], baseline[i], value)
    assert staged.bounds == pytest.approx(whole.bounds, abs=0.02)


def test_it_seldom_leaves_out_the_truth_at_any_time_and_single_intervals_often_do():
    """Of 120 streams, each looked at after every one of 5,000 values."""
    left_out = left_out_once = 0
    for seed in range(120):
        values, model = two_arms(5_000, share=0.25, seed=seed)
        seen = Difference(ALPHA)
        outside = once_outside = False
        models = 0
        for i, value in enumerate(values):
            models += model[i]
            seen.add(i, model[i], not model[i], value)
            if seen.bounds is not None:
                difference, low, high = seen.bounds
                pairs = models * (i + 1 - models) / (i + 1)
                outside |= not low < 0.0 < high
                once_outside |= abs(difference) > 1.96 / math.sqrt(pairs)
        left_out += outside
        left_out_once += once_outside
    assert left_out <= 0.05 * 120
    assert left_out_once > 0.25 * 120


FINITE = st.floats(-1e6, 1e6)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([(1, 0), (0, 1), (1, 1)]), FINITE),
        min_size=1,
        max_size=300,
    ),
    st.integers(0, 300),
)
@settings(max_examples=60, deadline=None)
def test_it_goes_on_from_its_state_as_if_never_stopped(stream, cut):
    whole, first = Difference(ALPHA), Difference(ALPHA)
    for number, (day, (model, baseline), value) in enumerate(stream):
        for each in (whole, first):
            if number == len(stream) // 2:
                each.next_stage()
            each.add(day, bool(model), bool(baseline), value)
        if number == cut:
            second = Difference(ALPHA)
            second.restore(first.state())
            assert second.bounds == first.bounds
            first = second
    assert first.state() == whole.state()
    assert first.bounds == whole.bounds
    if whole.bounds is not None:
        assert all(math.isfinite(bound) for bound in whole.bounds)
