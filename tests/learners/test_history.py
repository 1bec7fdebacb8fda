import math
import pickle
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from learners.history import HISTORY_NAMES, History

CLOSES = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.floats(-50, 50, allow_nan=False)), max_size=60
)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def same(a: Sequence[float], b: Sequence[float]) -> bool:
    return repr(a) == repr(b)


def test_nothing_is_known_before_the_first_close() -> None:
    features = History().features("EURUSD")
    assert len(features) == len(HISTORY_NAMES)
    assert all(map(math.isnan, features))


@given(CLOSES)
def test_features_are_what_the_last_ten_closes_say(closes: list[tuple[str, float]]) -> None:
    history = History()
    for symbol, value in closes:
        history.learn(symbol, value)
    last = [value for _, value in closes][-10:]
    own = [value for symbol, value in closes if symbol == "A"][-10:]
    total = peak = 0.0
    for _, value in closes:
        total += value
        peak = max(peak, total)
    assert same(
        history.features("A"),
        (
            mean([float(v > 0) for v in last]),
            mean(last),
            mean([float(v > 0) for v in own]),
            mean(own),
            peak - total if closes else math.nan,
        ),
    )


@given(CLOSES, CLOSES)
def test_a_restored_history_goes_on_as_if_it_had_never_stopped(
    before: list[tuple[str, float]], after: list[tuple[str, float]]
) -> None:
    straight = History(max_symbols=3)
    for close in before:
        straight.learn(*close)
    restored = History(max_symbols=3)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    for close in after:
        straight.learn(*close)
        restored.learn(*close)
    assert repr(restored.state()) == repr(straight.state())
    for symbol in "ABCDE":
        assert same(restored.features(symbol), straight.features(symbol))


def test_the_symbol_whose_last_close_is_the_oldest_is_forgotten_first() -> None:
    history = History(max_symbols=2)
    for symbol in ("A", "B", "A", "C"):
        history.learn(symbol, 1.0)
    assert [not math.isnan(history.features(s)[2]) for s in "ABC"] == [True, False, True]


def test_absurd_returns_leave_the_features_finite() -> None:
    history = History()
    for value in (1e308, 1e308, -1e308, -1e308):
        history.learn("A", value)
    assert all(map(math.isfinite, history.features("A")))
