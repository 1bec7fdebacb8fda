"""Regimes: two switches with hysteresis, from features when there are any, else from closes."""

import math
import pickle
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
import pytest

from drift.regimes import ADX_NAMES, REGIMES, VOLATILITY_NAMES, Regimes


def observed(regimes: Regimes, name: str, values: Iterable[float], symbol: str = "A") -> list[str]:
    return [regimes.observe(symbol, {name: value}) for value in values]


def lognormal(seed: int, n: int, level: float = 1.0, spread: float = 0.3) -> list[float]:
    return (level * np.exp(np.random.default_rng(seed).normal(0.0, spread, n))).tolist()


def changes(series: list[str]) -> int:
    return sum(a != b for a, b in pairwise(series))


@pytest.mark.parametrize("name", ADX_NAMES)
def test_a_trend_is_on_from_an_adx_of_25_and_off_below_20(name: str) -> None:
    regimes = Regimes(patience=1)
    assert observed(regimes, name, [24.9, 25.0, 20.0, 19.9, 24.9]) == [
        "ranging", "trending", "trending", "ranging", "ranging",
    ]  # fmt: skip


def test_a_regime_changes_only_when_several_signals_in_a_row_say_so() -> None:
    regimes = Regimes(patience=3)
    assert set(observed(regimes, "adx", [30, 30, 10, 30, 30, 10, 30, 30])) == {"ranging"}
    assert regimes.observe("A", {"adx": 30.0}) == "trending"


def test_signals_that_say_different_new_regimes_do_not_add_up() -> None:
    regimes = Regimes(patience=3)
    for atr in lognormal(11, 100):
        regimes.observe("A", {"adx": 10.0, "atr_pct": atr})
    seen = [regimes.observe("A", {"adx": 40.0, "atr_pct": atr}) for atr in (1.0, 5.0, 1.0, 5.0)]
    assert seen == ["ranging"] * 4


def test_high_volatility_ends_at_half_a_deviation_not_at_one() -> None:
    regimes = Regimes(patience=1)
    steady = [math.exp(0.3 * (-1) ** i) for i in range(1000)]
    observed(regimes, "atr_pct", steady)
    deviations = [0.8, 1.2, 0.8, 0.6, 0.3, 0.8]
    assert observed(regimes, "atr_pct", [math.exp(0.3 * z) for z in deviations]) == [
        "ranging", "volatile", "volatile", "volatile", "ranging", "ranging",
    ]  # fmt: skip


def test_an_adx_around_the_threshold_does_not_flip_the_regime() -> None:
    noise = np.random.default_rng(0).normal(25.0, 1.5, 2000).tolist()
    plain = ["trending" if x >= 25.0 else "ranging" for x in noise]
    assert changes(plain) > 500
    assert changes(observed(Regimes(), "adx", noise)) == 1


@pytest.mark.parametrize("name", VOLATILITY_NAMES)
@pytest.mark.parametrize("level", [0.001, 1.0, 5000.0])
def test_volatility_is_high_against_its_own_usual_in_any_unit(name: str, level: float) -> None:
    regimes = Regimes()
    usual = observed(regimes, name, lognormal(1, 500, level))
    assert usual.count("volatile") < 60
    high = observed(regimes, name, lognormal(2, 20, 2.5 * level))
    assert high[3:] == ["volatile"] * 17
    relative = regimes.relative_volatility("A")
    assert relative is not None
    assert 1.3 < relative < 5.0
    assert observed(regimes, name, lognormal(3, 20, level))[-1] == "ranging"


def test_volatile_goes_before_trending() -> None:
    regimes = Regimes()
    for atr in lognormal(4, 200):
        regimes.observe("A", {"adx": 40.0, "atr_pct": atr})
    assert [regimes.observe("A", {"adx": 40.0, "atr_pct": 5.0}) for _ in range(3)][-1] == "volatile"


def test_volatility_that_hardly_moves_is_never_high() -> None:
    values = [1.0 + 0.001 * math.sin(i) for i in range(500)] + [1.01] * 20
    assert set(observed(Regimes(), "atr_pct", values)) == {"ranging"}


def test_lasting_volatility_becomes_the_usual() -> None:
    regimes = Regimes()
    observed(regimes, "atr_pct", lognormal(5, 3000))
    after = observed(regimes, "atr_pct", lognormal(6, 1000, 3.0))
    assert after[10] == "volatile"
    assert after[-200:].count("volatile") < 60


def test_without_such_features_it_is_learned_from_the_closes() -> None:
    rng = np.random.default_rng(7)
    regimes = Regimes()

    def series(n: int, spread: float) -> list[str]:
        seen = []
        for return_pct in rng.normal(0.0, spread, n).tolist():
            seen.append(regimes.observe("A", {"session": "Tokyo", "rsi": 50.0, "adx": None}))
            regimes.learn("A", return_pct)
        return seen

    assert series(400, 1.0).count("volatile") < 120
    assert series(40, 4.0)[-20:] == ["volatile"] * 20
    assert regimes.observe("B", {}) == "ranging"
    assert regimes.relative_volatility("B") is None


@pytest.mark.parametrize(
    "value", [None, True, False, "high", 0.0, -1.0, math.nan, math.inf, -math.inf, 10**400]
)
def test_what_is_no_volatility_is_passed_over(value: float | bool | str | None) -> None:
    regimes = Regimes()
    for atr in lognormal(8, 100):
        regimes.observe("A", {"atr_pct": atr})
    before = pickle.dumps(regimes.state())
    for _ in range(5):
        assert regimes.observe("A", {"atr_pct": value, "adx": "30", "adx_14": True}) == "ranging"
    assert pickle.dumps(regimes.state()) == before


def test_a_measure_missing_once_is_not_held_against_anothers_usual() -> None:
    regimes = Regimes(patience=1)
    for atr in lognormal(9, 200, 0.1):
        regimes.observe("A", {"atr_pct": atr, "vol_24": 100.0 * atr})
    regimes.observe("A", {"atr_pct": 0.1})
    expected = regimes.relative_volatility("A")
    assert regimes.observe("A", {"vol_24": 10.0}) == "ranging"
    assert regimes.relative_volatility("A") == expected


def test_each_symbol_has_a_regime_of_its_own() -> None:
    regimes = Regimes()
    observed(regimes, "adx", [40.0] * 5, "A")
    assert observed(regimes, "adx", [10.0] * 5, "B")[-1] == "ranging"
    assert observed(regimes, "adx", [40.0], "A") == ["trending"]


def test_the_symbol_unused_for_the_longest_is_forgotten_first() -> None:
    regimes = Regimes(max_symbols=2)
    for symbol in ("A", "B"):
        observed(regimes, "adx", [40.0] * 3, symbol)
    regimes.learn("A", 1.0)
    regimes.observe("C", {})
    assert regimes.observe("A", {}) == "trending"
    assert regimes.observe("B", {}) == "ranging"
    assert len(regimes.state()["symbols"]) == 2  # type: ignore[arg-type]


def events(seed: int, n: int) -> list[tuple[str, Mapping[str, float], float]]:
    """Symbol D says nothing of itself but its returns."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        high = 2.0 * (i // 40 % 3 == 2)
        features = {"adx": rng.uniform(0, 50), "atr_pct": rng.lognormal(high, 0.4)}
        symbol = str(rng.choice(["A", "B", "D", "C"], p=[0.33, 0.33, 0.33, 0.01]))
        kept = {k: v for k, v in features.items() if symbol != "D" and rng.random() < 0.8}
        out.append((symbol, kept, float(rng.normal(0.0, 1.0 + high))))
    return out


def play(regimes: Regimes, stretch: list[tuple[str, Mapping[str, float], float]]) -> list[object]:
    seen: list[object] = []
    for symbol, features, return_pct in stretch:
        seen.append((regimes.observe(symbol, features), regimes.relative_volatility(symbol)))
        regimes.learn(symbol, return_pct)
    return seen


def test_a_restored_one_goes_on_as_if_it_had_never_stopped() -> None:
    whole = events(10, 600)
    straight = Regimes(max_symbols=3)
    expected = play(straight, whole)
    assert {regime for regime, _ in expected} == set(REGIMES)  # type: ignore[misc]
    first, restored = Regimes(max_symbols=3), Regimes(max_symbols=3)
    for at in range(len(whole)):
        restored.restore(pickle.loads(pickle.dumps(first.state())))
        assert play(restored, whole[at : at + 60]) == expected[at : at + 60]
        play(first, whole[at : at + 1])
    assert pickle.dumps(first.state()) == pickle.dumps(straight.state())
