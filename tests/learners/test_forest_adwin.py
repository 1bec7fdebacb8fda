"""ADWIN over a flat array: held to River's, bit for bit, and to alarming on rising means alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import ADWIN

from learners import adwin

# Where a window keeps its width, total and variance.
WIDTH, TOTAL, VARIANCE = 1, 2, 3


def levels(rng: np.random.Generator, *pieces: tuple[int, float]) -> list[float]:
    return [float(x) for n, p in pieces for x in rng.random(n) < p]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    pieces=st.lists(st.tuples(st.integers(1, 600), st.floats(0, 1)), min_size=1, max_size=5),
    delta=st.sampled_from([0.001, 0.01, 0.2]),
)
def test_the_window_equals_rivers_to_the_last_bit(
    seed: int, pieces: list[tuple[int, float]], delta: float
) -> None:
    window = np.zeros(adwin.SIZE)
    river = ADWIN(delta=delta)
    for x in levels(np.random.default_rng(seed), *pieces):
        adwin.adwin_update(window, x, delta)
        helper = river._helper
        helper.update(x)
        assert window[WIDTH] == helper.get_width()
        assert window[TOTAL] == helper.get_total()
        assert window[VARIANCE] == helper.get_variance()


def test_what_lies_free_in_a_window_is_zero_whatever_it_once_held() -> None:
    window = np.zeros(adwin.SIZE)
    for x in levels(np.random.default_rng(3), (3000, 0.1), (300, 0.9), (3000, 0.2)):
        adwin.adwin_update(window, x, 0.002)
        rows = window[adwin._HEAD :].reshape(adwin.ROWS, adwin._ROW)
        free = np.arange(adwin._SLOTS) >= rows[:, :1]
        assert not rows[:, 1 : 1 + adwin._SLOTS][free].any()
        assert not rows[:, 1 + adwin._SLOTS :][free].any()


def test_a_rise_alarms_within_a_few_hundred_inputs() -> None:
    window = np.zeros(adwin.SIZE)
    stream = levels(np.random.default_rng(1), (2000, 0.1), (400, 0.5))
    alarms = [i for i, x in enumerate(stream) if adwin.adwin_update(window, x, 0.001)]
    assert alarms
    assert 2000 < alarms[0] < 2150


def test_a_fall_shortens_the_window_without_an_alarm() -> None:
    window = np.zeros(adwin.SIZE)
    stream = levels(np.random.default_rng(2), (2000, 0.5), (600, 0.05))
    assert not any(adwin.adwin_update(window, x, 0.001) for x in stream)
    assert window[WIDTH] < 1200


def test_a_steady_stream_never_alarms_and_its_window_grows() -> None:
    window = np.zeros(adwin.SIZE)
    stream = levels(np.random.default_rng(3), (20_000, 0.3))
    assert not any(adwin.adwin_update(window, x, 0.001) for x in stream)
    assert window[WIDTH] == 20_000
