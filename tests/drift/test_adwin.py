import numpy as np
import pytest
from numpy.typing import NDArray
from river.drift import ADWIN

from drift.adwin import (
    CHANGE,
    CLOCK,
    HEAD,
    MIN_SIDE,
    MIN_WINDOW,
    ROW,
    SIZE,
    TOTAL,
    USED,
    VARIANCE,
    WIDTH,
    watch,
)
from drift.native import ready

HIGHEST = 7.0
ready(watch)


def shifting(seed: int) -> NDArray[np.float64]:
    """Noisy values around levels that change at random."""
    rng = np.random.default_rng(seed)
    levels = rng.choice([0.1, 0.3, 0.5, 0.8, 1.5], 6)
    values = [rng.gamma(0.5, level / 0.5, rng.integers(50, 3000)) for level in levels]
    return np.minimum(np.concatenate(values), HIGHEST)


@pytest.mark.parametrize("delta", [0.002, 0.2])
@pytest.mark.parametrize("seed", range(10))
def test_it_is_rivers_adwin_to_the_last_bit_and_alarms_with_it(seed: int, delta: float) -> None:
    river = ADWIN(delta, clock=CLOCK, min_window_length=MIN_SIDE, grace_period=MIN_WINDOW)
    window = np.zeros(SIZE)
    changes = 0
    for value in shifting(seed):
        before = river.estimation
        river.update(float(value))
        rise = river.drift_detected and river.estimation > before
        assert watch(window, np.array([value]), HIGHEST, delta) == rise
        assert (window[CHANGE] != 0.0) == river.drift_detected
        if river.drift_detected:
            changes += 1
        else:
            expected = (river.width, river.total, river.variance)
            assert (window[WIDTH], window[TOTAL], window[VARIANCE]) == expected
    assert changes


def test_windows_of_one_buffer_leave_each_other_alone() -> None:
    series = np.column_stack([shifting(1)[:4000], shifting(2)[:4000]])
    together, apart = np.zeros(2 * SIZE), [np.zeros(SIZE), np.zeros(SIZE)]
    for row in series:
        risen = watch(together, row, HIGHEST, 0.002)
        assert risen == sum(watch(w, row[[i]], HIGHEST, 0.002) for i, w in enumerate(apart))
    assert together.tobytes() == np.concatenate(apart).tobytes()


def test_what_is_not_in_use_of_a_window_is_zero() -> None:
    window = np.zeros(SIZE)
    for value in shifting(3):
        watch(window, np.array([value]), HIGHEST, 0.002)
        used = int(window[USED])
        assert not window[HEAD + used * ROW :].any()
        for row in range(used):
            count, *slots = window[HEAD + row * ROW : HEAD + (row + 1) * ROW]
            totals, variances = np.split(np.array(slots), 2)
            assert not totals[int(count) :].any()
            assert not variances[int(count) :].any()
