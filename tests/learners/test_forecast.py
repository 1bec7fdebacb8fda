"""The forecaster: what is believed of a signal, frozen with it, and what its close teaches."""

import math
import pickle
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ledger import Ledger, OpenSignal
from learners.forecast import Forecaster, Frozen, Outlook
from learners.panel import Forecast
from snapshots import digest
from tests.engine.histories import at

NAMES = ["base_rate", "logistic", "forest"]
Asked = tuple[Forecast, float, str, str, float, bool | None]


def forecaster() -> Forecaster:
    return Forecaster(NAMES, 0, 1)


def trades(seed: int, count: int) -> list[Asked]:
    """What is asked of each signal, and how its trade ended: return, stopped."""
    rng = np.random.default_rng(seed)
    made: list[Asked] = []
    for _ in range(count):
        p = rng.uniform(0.05, 0.95, 3)
        p[1:][rng.random(2) < 0.3] = math.nan
        vote = math.nan if math.isnan(p[2]) else float(rng.normal())
        risk = math.nan if math.isnan(p[2]) else float(rng.uniform(0.001, 0.999))
        seen = float(rng.choice([1.5, -1.0]) * rng.uniform(0.5, 2.0))
        made.append(
            (
                Forecast(p, ((math.nan, math.nan),), [vote], [risk]),
                float(rng.normal()) if rng.random() < 0.5 else math.nan,
                str(rng.choice(["EURUSD", "XAUUSD"])),
                str(rng.choice(["long orb", "short orb"])),
                seen,
                [None, seen < 0, seen > 0][rng.integers(3)],
            )
        )
    return made


def play(
    one: Forecaster, asked: list[Asked], delay: int = 4
) -> list[tuple[Outlook, list[float] | None]]:
    said: list[tuple[Outlook, list[float] | None]] = []
    waiting: list[tuple[Outlook, Frozen, Asked]] = []
    for trade in asked:
        forecast, sized, symbol, alike, *_ = trade
        outlook, frozen = one.predict(forecast, sized, symbol, alike)
        waiting.append((outlook, frozen, trade))
        losses = None
        if len(waiting) > delay:
            before, kept, (_, _, symbol, alike, seen, stopped) = waiting.pop(0)
            losses = one.learn(before, kept, symbol, alike, seen, stopped, delay).tolist()
        said.append((outlook, losses))
    return said


@pytest.mark.parametrize("at_", [0, 1, 60, 300])
def test_a_restored_forecaster_goes_on_to_the_bit(at_: int) -> None:
    straight, restored = forecaster(), forecaster()
    play(straight, trades(1, at_))
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    later = trades(2, 150)
    assert repr(play(restored, later)) == repr(play(straight, later))
    assert digest(restored.state()) == digest(straight.state())


def test_a_state_is_a_copy_that_later_learning_leaves_alone() -> None:
    one = forecaster()
    play(one, trades(3, 100))
    state = one.state()
    before = digest(state)
    play(one, trades(4, 100))
    assert digest(state) == before
    assert digest(one.state()) != before


def opened(outlook: Outlook, frozen: Frozen) -> OpenSignal:
    return OpenSignal(
        "a", at(0), "EURUSD", "long", "orb", None, "ranging", "take", 1.0, 0.1, 1.0,
        "model", "live", "take", 1.0, 0, outlook, np.zeros(1), frozen, (),
    )  # fmt: skip


@pytest.mark.parametrize("known", [0, 200])
def test_what_was_frozen_teaches_the_same_after_it_was_kept(known: int) -> None:
    span = timedelta(days=1)
    straight, again = forecaster(), forecaster()
    for one in (straight, again):
        play(one, trades(5, known))
    ((forecast, sized, symbol, alike, seen, stopped),) = trades(6, 1)
    outlook, frozen = straight.predict(forecast, sized, symbol, alike)
    ledger, other = Ledger(9, 9, 9, span, span), Ledger(9, 9, 9, span, span)
    ledger.open["a"] = opened(outlook, frozen)
    other.restore(pickle.loads(pickle.dumps(ledger.state())), [])
    kept = other.open["a"]
    assert kept.outlook == outlook
    assert isinstance(kept.frozen, Frozen)
    for one, (belief, what) in (
        (straight, (outlook, frozen)),
        (again, (kept.outlook, kept.frozen)),
    ):
        one.learn(belief, what, symbol, alike, seen, stopped, 3)
    assert digest(again.state()) == digest(straight.state())


def test_asking_changes_nothing_and_what_is_frozen_stays_as_it_was() -> None:
    one = forecaster()
    play(one, trades(7, 100))
    before = digest(one.state())
    ((forecast, sized, symbol, alike, *_),) = trades(8, 1)
    outlook, frozen = one.predict(forecast, sized, symbol, alike)
    kept = digest(list(frozen))
    for other, size, name, group, *_ in trades(9, 30):
        one.predict(other, size, name, group)
    assert digest(one.state()) == before
    assert digest(list(frozen)) == kept
    assert one.predict(forecast, sized, symbol, alike)[0] == outlook


def test_the_losses_are_the_experts_own_and_none_for_those_that_abstained() -> None:
    one = forecaster()
    p = np.array([0.4, math.nan, 0.9])
    outlook, frozen = one.predict(Forecast(p, (), [math.nan], [math.nan]), math.nan, "S", "long ")
    losses = one.learn(outlook, frozen, "S", "long ", -1.0, None, 0)
    assert repr(losses.tolist()) == repr([-math.log(0.6), math.nan, -math.log(1.0 - 0.9)])


def test_a_close_of_unknown_end_says_nothing_about_stops() -> None:
    one = forecaster()
    before = digest(one.stop_risk.state())
    play(one, [(*trade[:5], None) for trade in trades(10, 50)])
    assert digest(one.stop_risk.state()) == before
    play(one, [(*trade[:5], True) for trade in trades(10, 50)])
    assert digest(one.stop_risk.state()) != before


def test_the_refits_forecast_of_the_return_is_in_usual_sizes() -> None:
    one = forecaster()
    for _ in range(200):
        one.usual_size.learn("S", 4.0)
    forecast = Forecast(np.array([0.5, math.nan, math.nan]), (), [math.nan], [math.nan])
    _, frozen = one.predict(forecast, 0.5, "S", "long ")
    # Held against the mean, which is 0 so far, in usual sizes again: the fifth of the inputs
    # is the payoff's forecast, the sixth the refit's.
    assert frozen.scale == pytest.approx(4.0, rel=0.1)
    assert frozen.returns[2:][5] == pytest.approx(0.5)
    _, without = one.predict(forecast, math.nan, "S", "long ")
    assert without.returns[2:][5] == 0.0


def test_a_mean_loss_is_that_of_the_symbol() -> None:
    one = forecaster()
    assert one.mean_loss_pct("S") == 0.0
    for _ in range(2000):
        one.payoff.learn(-2.0, True)
        one.usual_size.learn("calm", 1.0)
        one.usual_size.learn("wild", 3.0)
    assert one.mean_loss_pct("unheard") == pytest.approx(-2.0, rel=0.01)
    assert one.mean_loss_pct("wild") == pytest.approx(3.0 * one.mean_loss_pct("calm"), rel=0.1)
    assert one.mean_loss_pct("wild") < -2.0 < one.mean_loss_pct("calm") < 0.0


def test_half_of_the_first_belief_is_in_the_base_rate() -> None:
    for names, base in ((["a"], 0), (["a", "b"], 1), (list("abcdef"), 3)):
        prior = Forecaster(names, base, 0).mixture.prior
        assert prior[base] == (0.5 if len(names) > 1 else 1.0)


def test_figures_say_how_its_parts_do() -> None:
    one = forecaster()
    assert math.isnan(one.figures()["interval_coverage"]["return"])
    said = play(one, trades(11, 400), delay=0)
    figures = one.figures()
    assert list(figures["expert_weight"]) == NAMES
    assert sum(figures["expert_weight"].values()) == pytest.approx(1.0)
    losses = np.array([row for _, row in said])
    expected = dict(zip(NAMES, np.nanmean(losses, axis=0), strict=True))
    assert figures["expert_log_loss"] == pytest.approx(expected)
    won = [trade[4] > 0 for trade in trades(11, 400)]
    mine = np.array(
        [
            -math.log(o.probability if w else 1 - o.probability)
            for (o, _), w in zip(said, won, strict=True)
        ]
    )
    behind = np.nansum(mine[:, None] - losses, axis=0)
    assert figures["regret"] == pytest.approx(dict(zip(NAMES, behind, strict=True)))
    assert 0.8 < figures["interval_coverage"]["return"] < 1.0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.001, 0.5, 0.999]),
            st.sampled_from([1e308, -1e308, 1e6, -1e6, 0.0, 5e-324, -1.0]),
            st.sampled_from([None, True, False]),
        ),
        min_size=1, max_size=70,
    )
)  # fmt: skip
def test_extreme_closes_leave_beliefs_that_can_be_published(
    closes: list[tuple[float, float, bool | None]],
) -> None:
    one = forecaster()
    for p, seen, stopped in closes:
        forecast = Forecast(np.array([p, math.nan, 1.0 - p]), (), [math.nan], [math.nan])
        outlook, frozen = one.predict(forecast, math.nan, "S", "long ")
        assert 0.0 < outlook.probability < 1.0
        assert 0.0 < outlook.risk < 1.0
        ends = outlook.return_interval_pct or (0.0, 0.0)
        numbers = (outlook.expected_return_pct, outlook.deviation_pct, *ends)
        assert all(math.isfinite(number) for number in numbers)
        assert math.isfinite(one.mean_loss_pct("S"))
        assert np.isfinite(np.concatenate([frozen.returns, frozen.calibration])).all()
        one.learn(outlook, frozen, "S", "long ", seen, stopped, 0)
