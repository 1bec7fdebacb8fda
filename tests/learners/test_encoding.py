import math
import pickle
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.encoding import FIXED_NAMES, Feature, FeatureEncoder, pad
from learners.history import History

MONDAY = datetime(2026, 5, 4, 6, 0, tzinfo=UTC)
UNKNOWN = History().features("EURUSD")
VALUES = {
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    "bool": st.booleans(),
    "category": st.sampled_from(["low", "high", "a=b", "@other", "", "é"]),
}


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Feature]]:
    """Signals' features, each name of one type throughout."""
    names = draw(st.lists(st.text(max_size=4), unique=True, max_size=6))
    kinds = {name: draw(st.sampled_from(sorted(VALUES))) for name in names}
    return [
        {name: draw(VALUES[kinds[name]] | st.none()) for name in names if draw(st.booleans())}
        for _ in range(draw(st.integers(1, 8)))
    ]


def encode(
    encoder: FeatureEncoder, features: dict[str, Feature], ts: datetime = MONDAY
) -> NDArray[np.float64]:
    assert encoder.problem(features) is None
    return encoder.encode(ts, "EURUSD", "long", "orb", features, UNKNOWN)


def seen(features: dict[str, Feature]) -> dict[str, float]:
    """What a fresh encoder says of one signal, beside its own columns."""
    encoder = FeatureEncoder()
    row = encoder.as_dict(encode(encoder, features))
    return {name: value for name, value in row.items() if not name.startswith("@")}


def test_numbers_and_bools_get_one_column_and_categories_one_per_value() -> None:
    encoder = FeatureEncoder()
    encode(encoder, {"rsi": 20, "up": True, "session": "Tokyo"})
    row = encode(encoder, {"rsi": 30.5, "up": False, "session": "London"})
    view = encoder.as_dict(row)
    assert encoder.names[: len(FIXED_NAMES)] == list(FIXED_NAMES)
    assert encoder.names[len(FIXED_NAMES) :] == [
        "rsi",
        "up",
        "session=Tokyo",
        "@symbol=EURUSD",
        "@side=long",
        "@strategy=orb",
        "session=London",
    ]
    assert view["rsi"] == 30.5
    assert view["up"] == 0.0
    assert view["session=Tokyo"] == 0.0
    assert view["session=London"] == 1.0


def test_null_and_what_is_not_sent_are_missing() -> None:
    encoder = FeatureEncoder()
    encode(encoder, {"a": 1.0, "b": 2.0, "c": "x", "d": "y"})
    view = encoder.as_dict(encode(encoder, {"a": None, "c": None}))
    assert not {"a", "b", "c=x", "d=y"} & set(view)


def test_a_regime_is_a_category_of_its_own() -> None:
    encoder = FeatureEncoder()
    plain = encoder.encode(MONDAY, "EURUSD", "long", "orb", {"regime": "mine"}, UNKNOWN)
    assert not [name for name in encoder.names if name.startswith("@regime")]
    for regime in ("ranging", "volatile"):
        encoder.encode(MONDAY, "EURUSD", "long", "orb", {}, UNKNOWN, regime)
    view = encoder.as_dict(
        encoder.encode(MONDAY, "EURUSD", "long", "orb", {"regime": "mine"}, UNKNOWN, "volatile")
    )
    assert (view["@regime=ranging"], view["@regime=volatile"]) == (0.0, 1.0)
    # What a bot calls by that name is another thing.
    assert view["regime=mine"] == 1.0
    assert encoder.as_dict(plain)["regime=mine"] == 1.0
    restored = FeatureEncoder()
    restored.restore(pickle.loads(pickle.dumps(encoder.state())))
    again = restored.encode(MONDAY, "EURUSD", "long", "orb", {}, UNKNOWN, "ranging")
    assert restored.as_dict(again)["@regime=ranging"] == 1.0
    assert restored.names == encoder.names


def test_a_signal_without_a_strategy_lacks_it() -> None:
    encoder = FeatureEncoder()
    encode(encoder, {})
    row = encoder.encode(MONDAY, "EURUSD", "short", None, {}, UNKNOWN)
    assert "@strategy=orb" not in encoder.as_dict(row)
    assert encoder.as_dict(row)["@side=long"] == 0.0


def test_the_hour_and_the_weekday_go_in_circles() -> None:
    encoder = FeatureEncoder()
    row = encode(encoder, {})
    assert row[:4].tolist() == [1.0, math.cos(math.pi / 2), 0.0, 1.0]
    before = encode(encoder, {}, MONDAY.replace(hour=0) - timedelta(minutes=1))
    after = encode(encoder, {}, MONDAY.replace(hour=0))
    assert abs(before[:2] - after[:2]).max() < 0.005


def test_a_changed_type_is_named_with_the_value_the_type_it_had_and_the_mend() -> None:
    encoder = FeatureEncoder()
    encode(encoder, {"rsi": 20, "up": True, "session": "Tokyo", "nothing": None})
    before = pickle.dumps(encoder.state())
    assert encoder.problem({"new": 1.0, "rsi": "high"}) == (
        "feature `rsi` has been a number so far, but is 'high', a category; "
        "send a number or null, or choose another name"
    )
    assert "a bool so far, but is 1.0, a number" in str(encoder.problem({"up": 1.0}))
    assert "a category so far, but is True, a bool" in str(encoder.problem({"session": True}))
    assert encoder.problem({"rsi": 3.5, "up": None, "nothing": "free still"}) is None
    assert pickle.dumps(encoder.state()) == before


@settings(max_examples=50, deadline=None)
@given(streams())
def test_a_restored_encoder_goes_on_as_if_it_had_never_stopped(
    stream: list[dict[str, Feature]],
) -> None:
    straight = FeatureEncoder(max_columns=18, max_categories=2)
    middle = len(stream) // 2
    for features in stream[:middle]:
        encode(straight, features)
    restored = FeatureEncoder(max_columns=18, max_categories=2)
    restored.restore(pickle.loads(pickle.dumps(straight.state())))
    for features in stream[middle:]:
        assert encode(restored, features).tobytes() == encode(straight, features).tobytes()
    assert restored.state() == straight.state()


@settings(max_examples=50, deadline=None)
@given(streams())
def test_columns_are_only_added_and_never_renamed_or_named_twice(
    stream: list[dict[str, Feature]],
) -> None:
    encoder = FeatureEncoder()
    names: list[str] = []
    for features in stream:
        row = encode(encoder, features)
        assert encoder.names[: len(names)] == names
        names = encoder.names
        assert len(row) == len(names) == len(set(names))
        assert abs(np.nan_to_num(row)).max() <= 1e18


def test_no_feature_name_can_take_a_column_of_ours_or_of_another_feature() -> None:
    encoder = FeatureEncoder(max_categories=1)
    tricky: list[dict[str, Feature]] = [
        {name.removeprefix("@") if cut else name: 1.0} for name in FIXED_NAMES for cut in (0, 1)
    ]
    tricky += [
        {"c": "x", "c=x": 1.0, "c\\": "x", "c\\=x": 1.0},
        {"c": "y", "c=@other": 1.0, "c=\\@other": 1.0, "@side=long": 1.0, "\\@side=long": 1.0},
        {"@symbol": "EURUSD", "symbol": "EURUSD"},
        {"d": "@other"},
        {"d": "y"},
    ]
    for features in tricky:
        encode(encoder, features)
    assert len(set(encoder.names)) == len(encoder.names) > len(FIXED_NAMES) + 17


def test_values_past_the_bound_of_a_category_share_one_column() -> None:
    encoder = FeatureEncoder(max_categories=3)
    for value in range(1000):
        row = encode(encoder, {"c": f"v{value}"})
    assert [name for name in encoder.names if name.startswith("c=")] == [
        "c=v0",
        "c=v1",
        "c=v2",
        "c=@other",
    ]
    assert encoder.as_dict(row)["c=@other"] == 1.0
    assert encoder.left_out == 0


def test_a_restored_category_still_has_its_shared_column() -> None:
    encoder = FeatureEncoder(max_categories=1)
    for value in "xyz":
        encode(encoder, {"c": value})
    restored = FeatureEncoder(max_categories=1)
    restored.restore(pickle.loads(pickle.dumps(encoder.state())))
    view = restored.as_dict(encode(restored, {"c": "x"}))
    assert (view["c=x"], view["c=@other"]) == (1.0, 0.0)
    assert restored.as_dict(encode(restored, {"c": "new"}))["c=@other"] == 1.0
    assert restored.names == encoder.names


def test_ten_thousand_feature_names_stay_within_the_bound_and_are_counted() -> None:
    encoder = FeatureEncoder(max_columns=64)
    encode(encoder, {"first": 1.0})
    room = 64 - len(encoder.names)
    for i in range(0, 10_000, 100):
        row = encode(encoder, {f"n{j}": (float(j), "text", True)[j % 3] for j in range(i, i + 100)})
    assert len(row) == len(encoder.names) == 64
    assert encoder.left_out == 10_000 - room
    assert len(pickle.dumps(encoder.state())) < 10_000
    assert encoder.as_dict(encode(encoder, {"first": 7.0}))["first"] == 7.0


def test_an_older_row_is_padded_with_what_was_missing_then() -> None:
    encoder = FeatureEncoder()
    old = encode(encoder, {"a": 1.0})
    new = encode(encoder, {"a": 1.0, "b": 2.0})
    padded = pad(old, len(new))
    assert padded[: len(old)].tobytes() == old.tobytes()
    assert np.isnan(padded[len(old) :]).all()
    assert encoder.as_dict(padded) == encoder.as_dict(old)
    assert pad(new, len(old)).tobytes() == old.tobytes()


def test_absurd_numbers_are_cut_so_that_their_squares_stay_finite() -> None:
    assert seen({"a": 1e308, "b": -1e308}) == {"a": 1e18, "b": -1e18}
    encoder = FeatureEncoder()
    encode(encoder, {"a": 1.0})
    row = encode(encoder, {"a": -1e308})
    assert encoder.as_dict(row)["a"] == -1e18
