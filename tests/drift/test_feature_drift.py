"""Feature drift is found soon when there is some, and signals that resemble the last are none."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import false_discovery_control, ks_2samp

from drift.feature_drift import FeatureDrift, Health, Moved, _false_discovery_adjusted
from drift.two_samples import FIELDS, TIME, compare

Rows = NDArray[np.float64]


def autoregressive(seed: int, n: int, rhos: Sequence[float]) -> Rows:
    """Columns of stationary AR(1) series with variance 1; a random walk where rho is 1."""
    rng = np.random.default_rng(seed)
    columns = []
    for rho in rhos:
        noise = rng.standard_normal(n) * (np.sqrt(1.0 - rho * rho) if rho < 1.0 else 1.0)
        noise[0] = rng.standard_normal()
        columns.append(lfilter([1.0], [1.0, -rho], noise))
    return np.stack(columns, axis=1)


def numbered(rows: Rows) -> list[str]:
    return [f"x{i}" for i in range(rows.shape[1])]


def checks(drift: FeatureDrift, rows: Rows, names: list[str] | None = None) -> list[list[Moved]]:
    """What each check after a full window told."""
    names = names or numbered(rows)
    told = [drift.update(row, names) for row in rows]
    assert not any(told[i] for i in range(len(told)) if (i + 1) % drift.every)
    return [told[i] for i in range(len(told)) if (i + 1) % drift.every == 0]


def one_hot(values: NDArray[np.int64], kinds: int) -> Rows:
    return (values[:, None] == np.arange(kinds)).astype(float)


def plain_alarms(rows: Rows, level: float = 0.01) -> int:
    """Checks at which Kolmogorov-Smirnov for independent samples would have alarmed."""
    alarms = 0
    for end in range(2000, len(rows) + 1, 500):
        before, after = rows[end - 2000 : end - 1000], rows[end - 500 : end]
        ps = [ks_2samp(a, b, method="asymp").pvalue for a, b in zip(before.T, after.T, strict=True)]
        alarms += bool((false_discovery_control(ps) <= level).any())
    return alarms


def test_signals_that_resemble_the_last_ones_are_no_drift() -> None:
    rhos = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98] * 5
    rows = autoregressive(0, 50_000, rhos)
    assert plain_alarms(rows[:10_000]) == 17  # each time
    told = checks(FeatureDrift(), rows)
    assert len(told) == 100
    assert sum(map(bool, told)) <= 3


def test_features_that_wander_are_not_judged() -> None:
    rows = autoregressive(1, 30_000, [1.0, 1.0, 0.999, 0.995] * 5)
    assert sum(map(bool, checks(FeatureDrift(), rows))) <= 2


def test_symbols_that_take_turns_and_resemble_their_own_last_are_no_drift() -> None:
    own = [autoregressive(seed, 10_000, [0.9] * 10) for seed in range(3)]
    rows = np.stack(own, axis=1).reshape(-1, 10)
    assert plain_alarms(rows[:6_000]) == 9
    assert sum(map(bool, checks(FeatureDrift(), rows))) <= 2


@pytest.mark.parametrize(("rho", "truth"), [(0.0, 1.0), (0.5, 3.0), (0.8, 9.0), (0.9, 19.0)])
def test_the_autocorrelation_time_is_about_that_of_the_process(rho: float, truth: float) -> None:
    columns = autoregressive(2, 1500, [rho] * 50).T.copy()
    found = np.empty((50, FIELDS))
    compare(
        columns.ravel(),
        np.sort(columns[:, :1000]).ravel(),
        np.sort(columns[:, 1000:]).ravel(),
        50,
        1000,
        500,
        np.empty(1001),
        np.empty(1001, np.int64),
        found.ravel(),
    )
    assert 0.8 * truth < np.median(found[:, TIME]) < 1.9 * truth


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("late", [0, 100, 250, 499])
def test_a_shift_is_told_of_by_name_whenever_it_comes(rho: float, late: int) -> None:
    rows = autoregressive(3, 8_000, [rho] * 40)
    rows[4_000 + late :, 7] += 1.5
    told = checks(FeatureDrift(), rows)
    named = [[moved.name for moved in found] for found in told]
    assert named[9] == ["x7"]  # the check at 5,000: the shift is between the windows
    assert {i for i, names in enumerate(named) if "x7" in names} <= {8, 9, 10, 11}


def test_a_wider_spread_around_the_same_middle_is_found() -> None:
    rows = autoregressive(4, 2_000, [0.3] * 20)
    rows[1_300:, 3] *= 3.0
    assert [moved.name for moved in checks(FeatureDrift(), rows)[3]] == ["x3"]


def test_the_statistic_is_kolmogorovs_and_smirnovs_also_where_values_are_equal_or_missing() -> None:
    rng = np.random.default_rng(5)
    rows = np.round(autoregressive(5, 2_000, [0.2] * 3))
    rows[1_000:] += 1.0
    rows[rng.random(rows.shape) < 0.3] = np.nan
    found = {moved.name: moved.statistic for moved in checks(FeatureDrift(), rows)[3]}
    assert set(found) == {"x0", "x1", "x2"}
    for i, column in enumerate(rows.T):
        before, after = column[:1_000], column[1_500:]
        exact = ks_2samp(before[~np.isnan(before)], after[~np.isnan(after)]).statistic
        assert found[f"x{i}"] == pytest.approx(exact, abs=1e-12)


def test_the_surest_are_told_first_and_no_more_than_asked_for() -> None:
    rows = autoregressive(6, 2_000, [0.0] * 20)
    rows[1_200:] += np.arange(20) * 0.1
    every = checks(FeatureDrift(top=20), rows)[3]
    assert 5 < len(every) < 20
    assert [moved.p_value for moved in every] == sorted(moved.p_value for moved in every)
    assert every[0].p_value < every[-1].p_value <= 0.01
    assert checks(FeatureDrift(top=3), rows)[3] == every[:3]


def test_p_values_are_adjusted_for_the_number_of_features() -> None:
    moved = autoregressive(7, 2_000, [0.0])
    moved[1_200:] += 0.45
    many = np.column_stack((moved, autoregressive(8, 2_000, [0.0] * 199)))
    [alone] = checks(FeatureDrift(), moved)[3]
    [among] = checks(FeatureDrift(), many)[3]
    assert (among.name, among.statistic) == ("x0", alone.statistic)
    assert among.p_value == pytest.approx(200 * alone.p_value)
    constant = np.column_stack((moved, np.ones((2_000, 199))))
    assert checks(FeatureDrift(), constant)[3] == [alone]


def persistent_kinds(seed: int, n: int, kinds: int, stay: float) -> NDArray[np.int64]:
    """A category that keeps its value with probability `stay`."""
    rng = np.random.default_rng(seed)
    fresh = rng.integers(0, kinds, n)
    kept = rng.random(n) < stay
    kept[0] = False
    return fresh[np.maximum.accumulate(np.where(kept, 0, np.arange(n)))]


@pytest.mark.parametrize("stay", [0.0, 0.8, 0.95, 0.985])
def test_categories_that_come_in_runs_are_no_drift(stay: float) -> None:
    groups = [one_hot(persistent_kinds(seed, 15_000, 5, stay), 5) for seed in range(8)]
    names = [f"c{group}={kind}" for group in range(8) for kind in range(5)]
    assert sum(map(bool, checks(FeatureDrift(), np.column_stack(groups), names))) <= 1


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_bools_that_come_in_runs_are_no_drift(share: float) -> None:
    kinds = [persistent_kinds(seed, 15_000, 10, 0.9) < 10 * share for seed in range(20)]
    assert sum(map(bool, checks(FeatureDrift(), np.stack(kinds, axis=1).astype(float)))) <= 1


def test_a_category_of_many_rare_values_is_no_drift() -> None:
    rng = np.random.default_rng(17)
    groups = [one_hot(rng.integers(0, 30, 10_000) ** 2 // 10, 90) for _ in range(4)]
    names = [f"c{group}={kind}" for group in range(4) for kind in range(90)]
    assert sum(map(bool, checks(FeatureDrift(), np.column_stack(groups), names))) == 0


def test_values_that_found_no_column_count_as_one_of_their_own() -> None:
    rng = np.random.default_rng(18)
    rows = np.where(np.arange(2_000) < 1_200, rng.random(2_000) < 0.5, 1.0)[:, None]
    assert [moved.name for moved in checks(FeatureDrift(), rows, ["c=0"])[3]] == ["c"]


def test_shares_of_a_category_that_move_are_told_under_its_name() -> None:
    rng = np.random.default_rng(9)
    shares = np.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])
    values = np.concatenate([rng.choice(3, 1_000, p=p) for p in shares])
    [moved] = checks(FeatureDrift(), one_hot(values, 3), ["a\\=b=1", "a\\=b=2", "a\\=b=3"])[3]
    assert (moved.name, moved.test) == ("a\\=b", "psi")
    before, after = (one_hot(part, 3).mean(axis=0) for part in (values[:1_000], values[1_500:]))
    assert moved.statistic == pytest.approx(
        ((after - before) * np.log(after / before)).sum(), rel=0.01
    )


def test_a_value_that_nobody_had_seen_gets_a_column_and_is_found() -> None:
    rng = np.random.default_rng(10)
    drift = FeatureDrift()
    for value in rng.integers(0, 2, 1_100):
        assert drift.update(np.array([value == 0, value == 1], float), ["c=0", "c=1"]) == []
    names = ["c=0", "c=1", "c=2"]
    told = [drift.update(np.array([0.0, 0.0, 1.0]), names) for _ in range(900)]
    assert [moved.name for moved in told[-1]] == ["c"]


def test_a_share_that_hardly_moves_is_not_told_however_sure() -> None:
    """The index is 0.04: significant over 25,000 signals, and no change in practice."""
    rng = np.random.default_rng(11)
    values = np.concatenate((rng.random(20_000) < 0.5, rng.random(10_000) < 0.6)).astype(np.int64)
    drift = FeatureDrift(reference=20_000, window=5_000, every=5_000)
    assert checks(drift, one_hot(values, 2), ["c=0", "c=1"])[5] == []


def test_the_engines_own_clock_and_history_are_left_out_but_not_the_symbol() -> None:
    rng = np.random.default_rng(12)
    late = np.arange(2_000) >= 1_200
    symbols = one_hot(np.where(late, rng.integers(0, 2, 2_000), 0), 2)
    rows = np.column_stack((late * 5.0 + rng.random(2_000), symbols))

    def told(name: str) -> set[str]:
        names = [name, "@symbol=A", "@symbol=B"]
        return {moved.name for moved in checks(FeatureDrift(), rows, names)[3]}

    assert told("@hour_sin") == {"@symbol"}
    assert told("\\@hour_sin") == {"\\@hour_sin", "@symbol"}


def test_a_feature_with_too_few_values_is_not_judged() -> None:
    rows = autoregressive(13, 2_000, [0.0, 0.0])
    rows[1_200:] += 5.0
    rows[:-15, 1] = np.nan
    rows[:15, 1] = 0.0
    assert [moved.name for moved in checks(FeatureDrift(), rows)[3]] == ["x0"]


def test_a_row_shorter_than_the_last_lacks_the_columns_after_it() -> None:
    drift = FeatureDrift(reference=2, window=2, every=2)
    for length in (3, 3, 3, 3, 3, 3, 2):
        drift.update(np.ones(length), ["x", "y", "z"])
    rows = drift.state()["rows"]
    assert isinstance(rows, np.ndarray)
    assert np.isnan(rows[-1]).tolist() == [False, False, True]


def test_features_that_say_nothing_are_named() -> None:
    rng = np.random.default_rng(14)
    rows = rng.standard_normal((1_500, 9))
    rows[:, 1] = 7.0
    rows[1_000:, 2] = 7.0
    rows[1_000:, 3] = np.nan
    rows[::2, 0] = np.nan
    rows[:, 4:6] = (1.0, 0.0)
    rows[:, 6:8] = one_hot(np.arange(1_500) // 1_000, 2)
    rows[:, 8] = 7.0
    names = ["fine", "fixed", "frozen", "gone", "kind=a", "kind=b", "mode=a", "mode=b", "@hour_sin"]
    drift = FeatureDrift()
    for row in rows[:499]:
        drift.update(row, names)
    assert drift.health(names) == Health((), (), ())
    for row in rows[499:]:
        drift.update(row, names)
    assert drift.health(names) == Health(("gone",), ("fixed", "kind"), ("frozen", "mode"))


def test_columns_may_be_added_at_any_time_and_older_rows_lack_them() -> None:
    rng = np.random.default_rng(15)
    drift = FeatureDrift(reference=100, window=50, every=50)
    names = [f"x{i}" for i in range(200)]
    for i in range(400):
        drift.update(rng.standard_normal(1 + i // 2), names)
    rows = drift.state()["rows"]
    assert isinstance(rows, np.ndarray)
    assert rows.shape == (200, 200)
    expected = [[column < 1 + i // 2 for column in range(200)] for i in range(200, 400)]
    assert (~np.isnan(rows) == expected).all()


@pytest.mark.parametrize("at", [0, 1, 199, 200, 201, 333, 390])
def test_a_restored_one_goes_on_as_if_it_had_never_stopped(at: int) -> None:
    rows = autoregressive(16, 700, [0.2] * 5)
    rows[rows > 2.0] = np.nan
    rows[320:, 2] += 2.0
    rows[320:, 3] = 0.0
    names = numbered(rows)
    straight = FeatureDrift(reference=100, window=50, every=50)
    restored = FeatureDrift(reference=100, window=50, every=50)
    for row in rows[:at]:
        straight.update(row, names)
    state = pickle.loads(pickle.dumps(straight.state()))
    expected = [straight.update(row, names) for row in rows[at:]]
    assert any(expected)
    for _ in range(2):
        restored.restore(state)
        assert [restored.update(row, names) for row in rows[at:]] == expected
    assert pickle.dumps(restored.state()) == pickle.dumps(straight.state())
    assert restored.health(names) == straight.health(names)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_p_values_are_adjusted_as_scipy_does(p_values):
    expected = false_discovery_control(p_values)
    assert _false_discovery_adjusted(p_values) == pytest.approx(expected.tolist(), abs=1e-12)
