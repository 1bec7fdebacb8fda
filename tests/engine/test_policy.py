"""The policy is a pure function of what is believed, what is open and what is configured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.core_config import PolicyConfig
from engine.policy import REASONS, Belief, Exposure, Verdict, decide

ROOT = Path(__file__).parents[2]
ORDER = ["skip", "reduce_size", "take"]
HINT = 1.0 + 1e-12
"""Rounding of the check itself."""

GOOD = Belief(
    probability=0.55,
    probability_interval=(0.53, 0.57),
    expected_return_pct=0.3,
    expected_return_low_pct=0.1,
    usual_return_pct=2.0,
    mean_win_pct=2.0,
    mean_loss_pct=-2.0,
    volatility=None,
    explore=False,
)
BAD = replace(GOOD, probability=0.4, expected_return_pct=-0.4, expected_return_low_pct=-0.6)
ALONE = Exposure(0, 0, 0)
CONFIG = PolicyConfig()
THRESHOLDS = PolicyConfig(rule="thresholds")

PROBABILITY = st.floats(0, 1)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
INTERVAL = st.none() | st.tuples(PROBABILITY, PROBABILITY).map(lambda ends: tuple(sorted(ends)))
VOLATILITY = st.none() | st.floats(0, allow_infinity=False)
BELIEF = st.builds(
    Belief,
    probability=PROBABILITY,
    probability_interval=INTERVAL,
    expected_return_pct=NUMBER | st.floats(-1, 1),
    expected_return_low_pct=NUMBER | st.floats(-1, 1),
    usual_return_pct=st.floats(1e-9, 1e6),
    mean_win_pct=NUMBER | st.floats(0, 5),
    mean_loss_pct=NUMBER | st.floats(-5, 0),
    volatility=VOLATILITY | st.floats(0, 3),
    explore=st.booleans(),
)
EXPOSURE = st.builds(
    Exposure, st.integers(0, 30), st.integers(0, 5) | st.integers(0, 5000), st.integers(0, 5)
)
SHARE = st.floats(1e-9, 1)
PERCENT = st.floats(1e-9, 100) | st.sampled_from([0.5, 1.0, 10.0])
POLICY = st.builds(
    PolicyConfig,
    rule=st.sampled_from(["expected_value", "thresholds"]),
    take_margin_pct=st.floats(-1, 1),
    reduce_margin_pct=st.floats(-1, 1),
    least_edge=st.floats(0, 1),
    reduced_size=SHARE,
    kelly_fraction=SHARE,
    max_position_pct=PERCENT,
    max_risk_pct=PERCENT,
    max_positions=st.integers(1, 30),
    correlation=PROBABILITY,
    exploration_rate=PROBABILITY,
    exploration_size=SHARE,
    warmup_closes=st.sampled_from([0, 50]),
    default_baseline=st.sampled_from(["take", "skip"]),
)
BASELINE = st.sampled_from(["take", "skip", None])
CLOSES = st.sampled_from([0, 100])


def settled(belief: Belief, exposure: Exposure = ALONE, config: PolicyConfig = CONFIG) -> Verdict:
    """The verdict after the warm-up."""
    return decide(belief, exposure, None, config.warmup_closes, config)


def test_a_signal_is_taken_when_even_the_lower_side_of_its_expected_return_is_a_gain():
    assert settled(GOOD).action == "take"
    between = settled(replace(GOOD, expected_return_low_pct=0.0))
    assert between.action == "reduce_size"
    assert between.size_multiplier == 0.5 * settled(GOOD).size_multiplier
    assert settled(replace(GOOD, expected_return_low_pct=-1.0, expected_return_pct=0.0)) == Verdict(
        "skip", 0.0, 0.0, ("expected_return_not_above_margin",), 0.01
    )


def test_an_expected_return_that_does_not_stand_out_from_its_usual_size_is_none():
    faint = replace(GOOD, expected_return_low_pct=-0.1, usual_return_pct=10.0)
    assert settled(replace(faint, expected_return_pct=0.1)).action == "skip"
    assert settled(replace(faint, expected_return_pct=0.11)).action == "reduce_size"
    # The lower side has doubt in it already.
    assert settled(replace(faint, expected_return_low_pct=0.01)).action == "take"


def test_margins_are_what_has_to_be_exceeded():
    margins = PolicyConfig(take_margin_pct=0.1, reduce_margin_pct=0.3, least_edge=0.0)
    assert settled(GOOD, config=margins).action == "skip"
    assert settled(replace(GOOD, expected_return_pct=0.31), config=margins).action == "reduce_size"
    assert settled(replace(GOOD, expected_return_low_pct=0.11), config=margins).action == "take"


def test_the_size_is_a_quarter_of_kellys_stake_as_a_share_of_the_risk_budget():
    # Even payoff: f* = 2p - 1 = 0.02, a quarter is 0.5 % of equity, half of the 1 % allowed.
    verdict = settled(replace(GOOD, probability=0.51, probability_interval=None))
    assert verdict.size_multiplier == pytest.approx(0.5)
    # A position of 10 % loses 0.2 %, so the position cap sets the full size.
    assert verdict.kelly_fraction == pytest.approx(0.05)
    assert verdict.reasons == (
        "expected_return_low_above_margin",
        "kelly_size",
        "capped_position",
    )


def test_where_a_loss_is_large_the_risk_cap_sets_the_full_size():
    # f* = 1 - 0.4 * 50 / 50 - 0.4 = 0.2: 5 % at risk, cut to 1 %, which 2 % of equity lose.
    large = replace(
        GOOD, probability=0.6, mean_win_pct=50.0, mean_loss_pct=-50.0, probability_interval=None
    )
    verdict = settled(large)
    assert (verdict.size_multiplier, verdict.kelly_fraction) == (1.0, pytest.approx(0.02))
    assert verdict.reasons[1:] == ("kelly_size", "capped_risk")


def test_doubt_as_large_as_the_edge_halves_the_stake():
    sure = replace(GOOD, probability=0.51, probability_interval=(0.5, 0.5))
    doubtful = replace(sure, probability_interval=(0.5, 0.5 + 0.02 * 1.645))
    assert settled(doubtful).size_multiplier == pytest.approx(0.5 * settled(sure).size_multiplier)
    wider = settled(replace(doubtful, probability_interval=(0.4, 0.6)))
    assert "wide_interval" in wider.reasons
    assert "wide_interval" not in settled(sure).reasons


def test_twice_the_usual_volatility_halves_the_size_and_half_of_it_changes_nothing():
    usual, high, low = (settled(replace(GOOD, volatility=v)) for v in (1.0, 2.0, 0.5))
    assert high.size_multiplier == pytest.approx(0.5 * usual.size_multiplier)
    assert high.reasons[-1] == "high_volatility"
    assert low == usual == settled(GOOD)


def test_correlated_open_trades_share_the_stake_even_when_kelly_is_capped():
    strong = replace(GOOD, probability=0.7)
    assert settled(strong).size_multiplier == 1.0
    verdict = settled(strong, Exposure(5, 1, 2))
    assert verdict.size_multiplier == 1 / (1 + 0.5 * 3)
    assert settled(strong, Exposure(5, 1, 2), PolicyConfig(correlation=0.0)) == settled(strong)
    assert verdict.reasons[-1] == "correlated_open_trade"
    assert settled(strong, Exposure(5, 0, 0)) == settled(strong)


def test_without_an_edge_by_probability_and_payoff_nothing_is_staked():
    verdict = settled(replace(GOOD, probability=0.5))
    assert verdict.action == "skip"
    assert verdict.reasons == ("expected_return_low_above_margin", "kelly_not_positive")
    assert settled(replace(GOOD, mean_win_pct=0.0)).action == "skip"


def test_with_twenty_positions_open_nothing_is_taken_not_even_to_explore_or_to_echo():
    full = Exposure(20, 0, 0)
    for config in (CONFIG, THRESHOLDS):
        for belief in (GOOD, replace(BAD, explore=True)):
            verdict = settled(belief, full, config)
            assert verdict == Verdict("skip", 0.0, 0.0, ("too_many_positions",), 0.0)
    assert decide(GOOD, full, "take", 0, CONFIG).reasons == ("warming_up", "too_many_positions")
    assert settled(GOOD, Exposure(19, 0, 0)).action == "take"


def test_a_skipped_signal_drawn_for_exploration_is_taken_small():
    verdict = settled(replace(BAD, explore=True, volatility=2.0), Exposure(1, 1, 0))
    assert verdict == Verdict(
        "reduce_size",
        0.25 / 3,
        pytest.approx(0.25 / 3 * 0.1),
        (
            "expected_return_not_above_margin",
            "exploration",
            "high_volatility",
            "correlated_open_trade",
        ),
        0.01,
    )
    assert settled(replace(GOOD, explore=True)) == settled(GOOD)
    assert (
        settled(replace(BAD, explore=True), config=PolicyConfig(exploration_rate=0.0)).action
        == "skip"
    )


@given(PROBABILITY, NUMBER, EXPOSURE)
def test_thresholds_go_by_the_probability_alone(p, number, exposure):
    belief = replace(GOOD, probability=p, expected_return_pct=number, mean_loss_pct=number)
    verdict = settled(belief, replace(exposure, open_positions=0), THRESHOLDS)
    if p >= 0.60:
        expected = ("take", 1.0, ("probability_at_least_take",))
    elif p < 0.40:
        expected = ("skip", 0.0, ("probability_below_skip",))
    else:
        expected = ("reduce_size", 0.5, ("probability_between",))
    assert (verdict.action, verdict.size_multiplier, verdict.reasons) == expected


@given(BELIEF, st.integers(0, 99), st.sampled_from(["take", "skip"]))
def test_what_is_believed_has_no_say_while_warming_up(belief, closes, baseline):
    verdict = decide(belief, ALONE, baseline, closes, CONFIG)
    assert verdict.action == baseline
    assert verdict.size_multiplier == (baseline == "take")
    assert verdict.reasons == ("warming_up",)


def test_a_bot_without_a_baseline_gets_the_configured_one_and_is_told_so():
    verdict = decide(GOOD, ALONE, None, 0, PolicyConfig(default_baseline="skip"))
    assert (verdict.action, verdict.reasons) == ("skip", ("warming_up", "default_baseline"))


@given(BELIEF, EXPOSURE, POLICY, PROBABILITY)
def test_a_higher_probability_never_means_a_smaller_trade(belief, exposure, config, other):
    ps = sorted((belief.probability, other))
    low, high = (
        settled(replace(belief, probability=p, explore=False), exposure, config) for p in ps
    )
    assert ORDER.index(low.action) <= ORDER.index(high.action)
    assert low.size_multiplier <= high.size_multiplier


@given(BELIEF, EXPOSURE, POLICY, PROBABILITY, st.floats(0, 50), st.floats(0, 50), st.floats(0, 50))
def test_the_same_holds_when_the_expected_return_follows_from_the_probability(
    belief, exposure, config, other, win, loss, doubt
):
    def follows(p: float) -> Belief:
        mean = p * win - (1.0 - p) * loss
        return replace(
            belief,
            probability=p,
            expected_return_pct=mean,
            expected_return_low_pct=mean - doubt,
            mean_win_pct=win,
            mean_loss_pct=-loss,
            explore=False,
        )

    ps = sorted((belief.probability, other))
    low, high = (settled(follows(p), exposure, config) for p in ps)
    assert ORDER.index(low.action) <= ORDER.index(high.action)
    assert low.size_multiplier <= high.size_multiplier


@given(BELIEF, EXPOSURE, BASELINE, CLOSES, POLICY)
@example(
    replace(GOOD, mean_win_pct=1e308, mean_loss_pct=-1e308, volatility=1e308), ALONE, None, 100,
    CONFIG,
)  # fmt: skip
@example(replace(GOOD, mean_loss_pct=-5e-324), Exposure(3, 5000, 0), None, 100, CONFIG)
def test_whatever_is_believed_no_cap_is_exceeded(belief, exposure, baseline, closes, config):
    verdict = decide(belief, exposure, baseline, closes, config)
    assert 0.0 <= verdict.size_multiplier <= 1.0
    assert 0.0 <= verdict.propensity <= 1.0
    assert (verdict.action == "skip") == (verdict.size_multiplier == 0.0)
    if exposure.open_positions >= config.max_positions:
        assert verdict.action == "skip"
    if verdict.kelly_fraction is not None:
        position = verdict.kelly_fraction
        assert 0.0 <= 100.0 * position <= config.max_position_pct * HINT
        volatile = max(belief.volatility or 1.0, 1.0)
        assert -belief.mean_loss_pct * position * volatile <= config.max_risk_pct * HINT


@given(BELIEF, EXPOSURE, POLICY)
def test_no_position_is_larger_than_fractional_kellys(belief, exposure, config):
    verdict = settled(replace(belief, explore=False), exposure, config)
    if verdict.kelly_fraction and belief.mean_loss_pct < 0.0:
        even = 1.0 / (1.0 + belief.mean_win_pct / -belief.mean_loss_pct)
        stake = config.kelly_fraction * (belief.probability - even) / (1.0 - even)
        at_risk = verdict.kelly_fraction * -belief.mean_loss_pct / 100.0
        assert at_risk <= stake * HINT + 5e-324


@given(BELIEF, EXPOSURE, BASELINE, CLOSES, POLICY)
def test_reasons_are_known_codes_in_their_order_and_never_none(
    belief, exposure, baseline, closes, config
):
    reasons = decide(belief, exposure, baseline, closes, config).reasons
    assert reasons
    places = [REASONS.index(code) for code in reasons]
    assert places == sorted(set(places))


@given(BELIEF, EXPOSURE, BASELINE, CLOSES, POLICY)
def test_the_propensity_is_the_chance_of_a_trade_over_the_draw(
    belief, exposure, baseline, closes, config
):
    without, drawn = (
        decide(replace(belief, explore=explore), exposure, baseline, closes, config)
        for explore in (False, True)
    )
    rate = config.exploration_rate
    chance = (1.0 - rate) * (without.action != "skip") + rate * (drawn.action != "skip")
    assert without.propensity == drawn.propensity == pytest.approx(chance, rel=1e-12, abs=0.0)


def test_the_docs_explain_every_reason_in_order_and_no_other():
    text = (ROOT / "docs" / "policy.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \|", text.split("## Reasons")[1], re.M)) == REASONS


def test_every_reason_occurs():
    verdicts = [
        decide(GOOD, Exposure(20, 0, 0), None, 0, CONFIG),
        *(settled(replace(GOOD, probability=p), config=THRESHOLDS) for p in (0.3, 0.5, 0.7)),
        settled(replace(GOOD, probability_interval=(0.3, 0.8), volatility=2.0), Exposure(1, 1, 0)),
        settled(replace(GOOD, expected_return_low_pct=-1.0, probability=0.4)),
        settled(replace(GOOD, probability=0.9)),
        settled(replace(BAD, explore=True)),
    ]
    assert {code for verdict in verdicts for code in verdict.reasons} == set(REASONS) - {
        "halted", "shadow", "advisory", "baseline_arm", "bot_limit", "reducing",
    }  # fmt: skip # those are the guard's


def test_skip_above_take_is_refused():
    with pytest.raises(ValidationError, match=r"skip \(0.7\) must not be above take \(0.6\)"):
        PolicyConfig(skip=0.7)
