"""The policy is a pure function of what is believed and what is configured."""

from hypothesis import given
from hypothesis import strategies as st

from engine.core_config import PolicyConfig
from engine.policy import decide

CONFIG = PolicyConfig()
ORDER = ["skip", "reduce_size", "take"]
PROBABILITY = st.floats(0, 1)


def test_the_thresholds_are_60_and_40_percent():
    actions = [decide(p, None, 100, CONFIG).action for p in (0.60, 0.5999, 0.40, 0.3999)]
    assert actions == ["take", "reduce_size", "reduce_size", "skip"]


@given(PROBABILITY, PROBABILITY)
def test_a_higher_probability_never_means_a_smaller_trade(one, other):
    low, high = (decide(p, None, 100, CONFIG) for p in sorted((one, other)))
    assert ORDER.index(low.action) <= ORDER.index(high.action)
    assert low.size_multiplier <= high.size_multiplier


@given(PROBABILITY, st.integers(0, 99), st.sampled_from(["take", "skip"]))
def test_the_probability_has_no_say_while_warming_up(p, closes, baseline):
    verdict = decide(p, baseline, closes, CONFIG)
    assert verdict.action == baseline
    assert verdict.reasons == ("warming_up",)


def test_a_bot_without_a_baseline_gets_the_configured_one_and_is_told_so():
    verdict = decide(0.5, None, 0, PolicyConfig(default_baseline="skip"))
    assert (verdict.action, verdict.reasons) == ("skip", ("warming_up", "default_baseline"))
