"""The rollout: who decides a signal, which trades count for whom, and which steps fall due."""

import math
import random
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli.rollout import BAR, bar
from engine.safety.rollout import ClosedTrade, Rollout, Step
from engine.safety.settings import RolloutConfig
from engine.view import write_view
from streams.connection import Connection
from streams.keys import Keys
from tests.engine.conftest import Command

START = datetime(2026, 1, 5, tzinfo=UTC)
IDS = [f"signal-{i}" for i in range(4_000)]


def rollout(mode="canary", seed=42, **settings):
    return Rollout(RolloutConfig(mode=mode, **settings), seed)


def trade(value=1.0, arm="model", mode="canary", update=0, days=0.0, action="take", advised=None):
    ts = START + timedelta(days=days)
    return ClosedTrade(arm, mode, update, ts, action, advised or action, value)


class Course:
    """A rollout fed with trades whose model's arm is better by `edge`, an hour apart."""

    def __init__(self, edge, rollout, seed=1):
        self.rollout = rollout
        self.edge = edge
        self.closes = 0
        self._rng = random.Random(seed)

    def close(self):
        mode, number = self.rollout.mode, self.closes
        arm = self.rollout.arm(f"s{number}")
        picked = self._rng.random() < 0.5
        value = self._rng.gauss(0.0, 0.5)
        done = "take"
        if mode in ("shadow", "advisory"):
            value += self.edge * (picked - 0.5)
        elif arm == "model":
            value += self.edge
        self.closes += 1
        return self.rollout.learn(
            ClosedTrade(
                arm,
                mode,
                number,
                START + timedelta(hours=number),
                done,
                "take" if picked or arm == "model" else "skip",
                value,
            )
        )

    def until_step(self, most=20_000):
        for _ in range(most):
            step = self.close()
            if step is not None:
                return step
        return None

    def take(self, step):
        now = START + timedelta(hours=self.closes)
        self.rollout.move(step.mode, step.percent, self.closes, now)


# Who decides


@pytest.mark.parametrize(
    ("mode", "share", "arm"), [("shadow", 0.0, "baseline"), ("advisory", 0.0, "baseline"),
                               ("live", 1.0, "model")],
)  # fmt: skip
def test_outside_of_canary_one_arm_decides_everything(mode, share, arm):
    found = rollout(mode)
    assert found.share == share
    assert {found.arm(name) for name in IDS} == {arm}


@pytest.mark.parametrize("percent", [10.0, 25.0, 50.0])
def test_canary_deals_its_share_to_the_model(percent):
    found = rollout(stages=(percent, 100.0))
    assert found.share == percent / 100.0
    models = sum(found.arm(name) == "model" for name in IDS)
    deviation = math.sqrt(len(IDS) * found.share * (1.0 - found.share))
    assert abs(models - len(IDS) * found.share) < 4.0 * deviation


def test_a_larger_share_moves_signals_to_the_model_and_none_back():
    found = rollout(stages=(10.0, 25.0, 50.0, 100.0))
    before = set()
    for percent in (10.0, 25.0, 50.0, 99.9):
        found.move("canary", percent, 0, START)
        models = {name for name in IDS if found.arm(name) == "model"}
        assert before < models
        before = models
    found.move("live", 100.0, 0, START)
    assert all(found.arm(name) == "model" for name in IDS)


def test_the_deal_is_the_same_for_ever():
    # Of what has been recorded: another deal would make every replay of a canary another one.
    dealt = "".join(rollout(stages=(50.0, 100.0)).arm(name)[0] for name in IDS[:24])
    assert dealt == "mmbmbbmmbmmmbbbmbmmmmmbb"


def test_another_seed_deals_otherwise():
    first, second = (rollout(seed=seed, stages=(50.0,)) for seed in (1, 2))
    same = sum(first.arm(name) == second.arm(name) for name in IDS)
    assert 0.45 < same / len(IDS) < 0.55


def test_a_canary_begins_at_the_smallest_stage():
    assert rollout(stages=(50.0, 5.0, 100.0)).percent == 5.0


# What counts


@pytest.mark.parametrize(
    ("mode", "arm", "action", "advised", "counted"),
    [
        ("shadow", "baseline", "take", "take", (1, 1)),
        ("shadow", "baseline", "take", "skip", (0, 1)),
        ("shadow", "baseline", "skip", "take", (1, 0)),
        ("shadow", "baseline", "skip", "reduce_size", (1, 0)),
        ("shadow", "baseline", "skip", "skip", (0, 0)),
        ("advisory", "baseline", "take", "reduce_size", (1, 1)),
        ("advisory", "baseline", "take", "skip", (0, 1)),
        ("canary", "model", "take", "take", (1, 0)),
        ("canary", "model", "reduce_size", "reduce_size", (1, 0)),
        ("canary", "model", "skip", "skip", (0, 0)),
        ("canary", "baseline", "take", "take", (0, 1)),
        ("canary", "baseline", "take", "skip", (0, 1)),
        ("canary", "baseline", "skip", "take", (0, 0)),
        ("live", "model", "take", "take", (1, 0)),
        ("live", "model", "skip", "skip", (0, 0)),
    ],
)
def test_each_mode_counts_the_trades_of_its_arms(mode, arm, action, advised, counted):
    found = rollout(mode)
    found.learn(trade(arm=arm, mode=mode, action=action, advised=advised))
    figures = found.figures()
    arms = figures["arms"]
    assert (arms["model"]["trades"], arms["baseline"]["trades"]) == counted
    assert figures["closes"] == (counted != (0, 0))


def test_what_was_decided_before_the_stage_or_in_another_mode_does_not_count():
    found = rollout("shadow")
    found.move("canary", 10.0, 7, START)
    found.learn(trade(update=6))
    found.learn(trade(update=7, mode="shadow"))
    assert found.figures()["closes"] == 0
    found.learn(trade(update=7))
    assert found.figures()["closes"] == 1


def test_the_figures_of_an_arm_are_those_of_its_trades():
    found = rollout()
    for value in (2.0, -1.0, -2.0, 1.0, 2.0):
        found.learn(trade(value))
    assert found.figures()["arms"]["model"] == {
        "trades": 5,
        "win_rate": 0.6,
        "mean_return_pct": pytest.approx(0.4),
        "profit_factor": pytest.approx(5.0 / 3.0),
        "sharpe": pytest.approx(0.4 / math.sqrt(3.3)),
        "max_drawdown_pct": pytest.approx(3.0),
    }
    assert set(found.figures()["arms"]["baseline"].values()) == {0, None}


def test_what_trades_do_not_define_is_absent():
    found = rollout()
    found.learn(trade(0.1))
    found.learn(trade(0.1))
    figures = found.figures()["arms"]["model"]
    assert (figures["profit_factor"], figures["sharpe"]) == (None, None)


# What falls due


@pytest.mark.parametrize("first", ["shadow", "advisory"])
def test_a_better_model_is_promoted_stage_by_stage_until_it_is_live(first):
    course = Course(0.3, rollout(first))
    steps = []
    for _ in range(4):
        step = course.until_step()
        assert "more than one of the baseline" in step.reason
        steps.append((step.kind, step.mode, step.percent))
        course.take(step)
    assert steps == [
        ("promotion", "canary", 10.0),
        ("promotion", "canary", 25.0),
        ("promotion", "canary", 50.0),
        ("promotion", "live", 100.0),
    ]
    assert course.until_step(500) is None
    assert course.rollout.figures()["missing"] == []


def test_each_stage_follows_on_the_one_before_whatever_its_percentage():
    course = Course(3.0, rollout(stages=(7.0, 29.0, 57.0, 100.0)))
    percents = []
    for _ in range(3):
        course.take(course.until_step())
        percents.append(course.rollout.percent)
    assert percents == [29.0, 57.0, 100.0]


@pytest.mark.parametrize("edge", [-0.3, -3.0])
def test_a_worse_model_is_sent_back_to_shadow(edge):
    course = Course(edge, rollout())
    step = course.until_step()
    assert (step.kind, step.mode, step.percent) == ("demotion", "shadow", 0.0)
    assert "less than one of the baseline" in step.reason
    # Once is enough.
    assert course.until_step(500) is None
    assert course.rollout.figures()["due"] == "demotion"


def test_a_model_that_wins_as_often_but_loses_more_is_sent_back():
    found = rollout(stages=(50.0,))
    rng = random.Random(1)
    for number in range(4_000):
        model = number % 2 == 0
        value = 0.5 if rng.random() < 0.6 else (-0.9 if model else -0.5)
        value += rng.gauss(0.0, 0.01)
        arm = "model" if model else "baseline"
        step = found.learn(trade(value, arm, days=number / 24.0))
        if step is not None:
            break
    assert step.kind == "demotion"
    assert found.figures()["win_rate_difference"]["high"] > 0.0


@pytest.mark.parametrize("mode", ["shadow", "advisory", "live"])
def test_only_a_canary_can_be_sent_back(mode):
    course = Course(-3.0, rollout(mode))
    assert course.until_step(3_000) is None


def test_a_model_that_wins_more_rarely_is_sent_back_when_its_returns_are_no_better():
    found = rollout(stages=(50.0,))
    rng = random.Random(1)

    def step(better_by):
        for number in range(4_000):
            model = number % 2 == 0
            won = rng.random() < (0.3 if model else 0.7)
            # Both arms expect nothing; the model's wins are larger and its losses smaller.
            value = (0.7 if won else -0.3) if model else (0.3 if won else -0.7)
            value += rng.gauss(0.0, 0.01) + better_by * model
            days = number / 24.0
            said = found.learn(trade(value, "model" if model else "baseline", days=days))
            if said is not None:
                return said
        return None

    said = step(0.0)
    assert said.kind == "demotion"
    assert "more rarely" in said.reason
    found = rollout(stages=(50.0,))
    assert step(0.2) is None
    assert found.figures()["win_rate_difference"]["high"] < 0.0
    assert found.figures()["mean_return_difference_pct"]["value"] > 0.0


@pytest.mark.parametrize(
    ("mode", "closes"), [("shadow", 700), ("advisory", 700), ("canary", 900)]
)  # fmt: skip
def test_a_stage_does_not_end_before_its_closes(mode, closes):
    least = {"min_closes": closes} if mode == "canary" else {"shadow_min_closes": closes}
    course = Course(3.0, rollout(mode, **least))
    assert course.until_step().kind == "promotion"
    assert course.closes == closes


def test_a_stage_does_not_end_before_its_days():
    course = Course(3.0, rollout(min_days=40.0))
    assert course.until_step().kind == "promotion"
    # An hour apart; the first day begins with the first close.
    assert course.closes == 40 * 24 + 1


def test_each_stage_has_its_own_closes_and_days():
    course = Course(3.0, rollout(min_days=0.0, min_closes=400))
    course.take(course.until_step())
    begun = course.closes
    course.take(course.until_step())
    assert course.closes - begun == 400
    course.rollout.config = RolloutConfig(mode="canary", min_days=30.0)
    begun = course.closes
    course.until_step()
    assert course.closes - begun == 30 * 24 + 1


def test_a_step_is_told_again_when_the_evidence_was_lost_meanwhile():
    course = Course(0.3, rollout())
    assert course.until_step().kind == "promotion"
    course.edge = -0.3
    for _ in range(20_000):
        assert course.close() is None
        if course.rollout.figures()["due"] is None:
            break
        assert course.rollout.figures()["missing"] == []
    assert course.rollout.figures()["mean_return_difference_pct"]["value"] <= 0.0
    course.edge = 0.3
    assert course.until_step().kind == "promotion"


def test_the_last_stage_has_no_next_one():
    course = Course(3.0, rollout(stages=(10.0, 50.0)))
    course.take(course.until_step())
    assert course.rollout.percent == 50.0
    assert course.until_step(3_000) is None
    assert course.rollout.figures()["next"] is None


def test_what_the_next_stage_lacks_is_said_in_words():
    course = Course(0.1, rollout())
    found = course.rollout
    assert found.figures()["missing"] == [
        "100 closes",
        "1.00 days",
        "trades in which the arms differ, enough to compare them",
    ]
    for _ in range(19):
        course.close()
    assert found.figures()["missing"][:2] == ["81 closes", "0.25 days"]
    for _ in range(500):
        course.close()
    assert found.figures()["missing"] == [
        "proof that the model's mean return is above the baseline's"
    ]
    course.until_step()
    assert found.figures()["missing"] == []
    assert found.figures()["next"] == 25.0


def test_a_clock_that_is_ahead_of_event_time_does_not_hold_a_stage_back():
    course = Course(3.0, rollout())
    course.rollout.move("canary", 10.0, 0, START + timedelta(days=9_000))
    assert course.until_step().kind == "promotion"


# Moving


@pytest.mark.parametrize(
    ("mode", "percent", "kept"),
    [
        ("canary", 50.0, True),
        ("live", 100.0, True),
        ("canary", 25.0, False),
        ("canary", 10.0, False),
        ("shadow", 0.0, False),
        ("advisory", 0.0, False),
    ],
)
def test_going_up_keeps_the_evidence_and_anything_else_begins_anew(mode, percent, kept):
    course = Course(0.3, rollout())
    course.rollout.move("canary", 25.0, 0, START)
    for _ in range(2_000):
        course.close()
    before = course.rollout.figures()
    course.take(Step("promotion", mode, percent, ""))
    after = course.rollout.figures()
    assert (after["mode"], after["percent"]) == (mode, percent)
    assert after["closes"] == 0
    names = ("arms", "mean_return_difference_pct", "win_rate_difference")
    if kept:
        assert [after[name] for name in names] == [before[name] for name in names]
    else:
        assert after["arms"]["model"]["trades"] == after["arms"]["baseline"]["trades"] == 0
        assert after["mean_return_difference_pct"]["value"] is None


@pytest.mark.parametrize("better", [True, False])
def test_a_market_that_changes_with_the_stage_is_no_difference_of_the_arms(better):
    found = rollout(stages=(10.0, 90.0))
    rng = random.Random(1)
    for number in range(6_000):
        late = number >= 3_000
        if number == 3_000:
            found.move("canary", 90.0, number, START + timedelta(hours=number))
        value = rng.gauss(0.0, 0.5) + (1.0 if better else -1.0) * late
        arm = found.arm(f"s{number}")
        assert found.learn(trade(value, arm, update=number, days=number / 24.0)) is None
    arms = found.figures()["arms"]
    # The model's trades were mostly late ones, the baseline's early.
    assert abs(arms["model"]["mean_return_pct"] - arms["baseline"]["mean_return_pct"]) > 0.5
    for difference in ("mean_return_difference_pct", "win_rate_difference"):
        bounds = found.figures()[difference]
        assert bounds["low"] < 0.0 < bounds["high"]


def test_after_going_back_the_model_must_prove_itself_anew():
    course = Course(0.3, rollout())
    course.take(course.until_step())
    course.take(Step("demotion", "shadow", 0.0, ""))
    course.edge = 0.0
    assert course.until_step(3_000) is None


# Errors


def test_equal_arms_are_seldom_moved_and_a_true_edge_mostly_is():
    """Forty of each; `bench/rollout.py` does many more."""
    moved = [Course(0.0, rollout(), seed).until_step(2_000) is not None for seed in range(40)]
    assert sum(moved) <= 2
    steps = [Course(0.25, rollout(), seed).until_step(2_000) for seed in range(40)]
    assert sum(step is not None and step.kind == "promotion" for step in steps) >= 36


def test_a_smaller_error_rate_asks_for_more():
    closes = []
    for error_rate in (0.2, 0.05, 0.001):
        course = Course(0.3, rollout(error_rate=error_rate))
        course.until_step()
        closes.append(course.closes)
    assert closes == sorted(set(closes))


def test_one_return_that_cannot_be_true_does_not_stop_the_test_for_ever():
    found = rollout()
    found.learn(trade(1e300))
    found.learn(trade(-1e300))
    assert found.figures()["arms"]["model"]["max_drawdown_pct"] == 1e6
    assert all(math.isfinite(value) for value in found.state()["arms"]["model"])


# State

MODES = st.sampled_from(["shadow", "advisory", "canary", "live"])
ACTIONS = st.sampled_from(["take", "reduce_size", "skip"])
CLOSES = st.builds(
    ClosedTrade,
    st.sampled_from(["model", "baseline"]),
    MODES,
    st.integers(0, 3),
    st.datetimes(timezones=st.just(UTC)),
    ACTIONS,
    ACTIONS,
    st.floats(allow_nan=False, allow_infinity=False),
)
MOVES = st.tuples(
    MODES, st.floats(0.01, 100.0), st.integers(0, 2), st.datetimes(timezones=st.just(UTC))
)


@given(MODES, st.lists(CLOSES | MOVES, max_size=120), st.integers(0, 120))
@settings(max_examples=100, deadline=None)
def test_it_never_raises_and_goes_on_from_its_state_as_if_never_stopped(mode, happened, cut):
    whole, other = rollout(mode), rollout(mode)
    for number, each in enumerate(happened):
        if number == cut:
            restored = rollout("live")
            restored.restore(other.state())
            assert restored.figures() == other.figures()
            other = restored
        if isinstance(each, ClosedTrade):
            assert other.learn(each) == whole.learn(each)
        else:
            whole.move(*each)
            other.move(*each)
    assert other.state() == whole.state()
    assert other.figures() == whole.figures()


def test_restored_with_a_step_told_it_does_not_tell_it_again():
    course = Course(0.3, rollout())
    course.take(course.until_step())
    assert course.until_step().kind == "promotion"
    restored = rollout("live")
    restored.restore(course.rollout.state())
    assert restored.figures() == course.rollout.figures()
    assert restored.figures()["days"] >= 1.0
    course.rollout = restored
    assert course.until_step(100) is None
    closes = restored.figures()["closes"]
    restored.learn(trade(update=0))
    assert restored.figures()["closes"] == closes


@pytest.mark.parametrize("edge", [0.3, -0.3])
def test_restored_midway_it_gives_the_same_steps(edge):
    whole, cut = Course(edge, rollout("canary")), Course(edge, rollout("canary"))
    for _ in range(4_000):
        if cut.closes % 97 == 0:
            fresh = rollout("shadow")
            fresh.restore(cut.rollout.state())
            cut.rollout = fresh
        step = whole.close()
        assert cut.close() == step
        if step is not None:
            whole.take(step)
            cut.take(step)
    assert cut.rollout.state() == whole.rollout.state()


# What people see


def after(closes, edge, mode="canary"):
    course = Course(edge, rollout(mode))
    for _ in range(closes):
        course.close()
    return course.rollout.figures()


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (after(0, 0.1), ["canary: 10 % of the signals are the model's", "100 closes", "25 %"]),
        (after(3_000, 0.0), ["lacks:", "proof that the model's mean return is above"]),
        (after(3_000, 0.3), ["the next stage is due: 25 %"]),
        (after(3_000, -0.3), ["going back to shadow is due"]),
        (after(300, 0.0, "shadow"), ["the baseline is done", "the next stage, 10 %, lacks:"]),
        (after(300, 0.0, "advisory"), ["answers stand beside it"]),
        (after(300, 0.0, "live"), ["the model decides every signal", "300 closes"]),
    ],
)
def test_the_command_shows_arms_bounds_and_what_is_missing_within_80_columns(
    closeloop: Command, address: str, connection: Connection, figures: dict, said: list[str]
) -> None:
    write_view(connection, Keys(), {"rollout": figures})
    ran = closeloop("rollout", "--address", address)
    assert ran.status == 0
    for words in said:
        assert words in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    as_json = closeloop("rollout", "--address", address, "--json")
    assert as_json.json == orjson.loads(orjson.dumps(figures))


def test_without_a_worker_the_command_says_so(closeloop: Command, address: str) -> None:
    ran = closeloop("rollout", "--address", address)
    assert ran.status == 3
    assert "closeloop run" in ran.err


@pytest.mark.parametrize(
    ("bounds", "picture"),
    [
        ((0.5, -0.5, 1.0), "      ├─────┼─────●─────┤"),
        ((-1.0, -2.0, 0.0), "├─────●─────┤            "),
        ((1.5, 1.0, 2.0), "            │     ├──●──┤"),
        ((0.0, 0.0, 0.0), "            ●            "),
    ],
)
def test_a_sequence_is_drawn_about_zero(bounds, picture):
    assert bar(*bounds) == picture
    assert len(picture) == BAR
