"""Hypothesis strategies for the wire contract: events, and JSON that is nearly one."""

import json
from datetime import UTC, datetime

from hypothesis import strategies as st

from streams.events import Close, Control, Input, Signal, encode
from streams.values import MAX_NAME, MAX_TEXT

names = st.text(min_size=1, max_size=MAX_NAME)
texts = st.text(max_size=MAX_TEXT)
numbers = st.floats(allow_nan=False, allow_infinity=False)
times = st.datetimes(
    min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC)
)
feature_values = st.one_of(numbers, st.booleans(), texts, st.none())
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.integers(-(2**63), 2**64 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
notes = st.none() | st.dictionaries(texts, json_values, max_size=4)
versions = st.sampled_from([None, 1])


def _maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


signals = st.builds(
    Signal,
    signal_id=names,
    ts=times,
    symbol=names,
    side=st.sampled_from(["long", "short"]),
    features=st.dictionaries(names, feature_values, max_size=8),
    strategy=_maybe(names),
    price=_maybe(numbers),
    baseline=st.sampled_from([None, "take", "skip"]),
    v=versions,
    meta=notes,
)
closes = st.builds(
    Close,
    signal_id=names,
    ts=times,
    return_pct=numbers,
    profit=_maybe(numbers),
    exit_price=_maybe(numbers),
    exit_reason=st.sampled_from([None, "target", "stop", "timeout", "manual"]),
    mfe_pct=_maybe(numbers),
    mae_pct=_maybe(numbers),
    hold_minutes=_maybe(numbers),
    executed=_maybe(st.booleans()),
    v=versions,
    meta=notes,
)
controls = st.builds(
    Control,
    command=names,
    ts=times,
    by=names,
    reason=texts,
    sig=st.text("0123456789abcdef", min_size=64, max_size=64),
    args=_maybe(st.dictionaries(names, feature_values, max_size=4)),
    v=versions,
)
events: st.SearchStrategy[Input] = st.one_of(signals, closes, controls)


@st.composite
def nearly_events(draw: st.DrawFn) -> dict[str, object]:
    """An event as plain JSON with one field dropped, added or replaced by something else."""
    fields = json.loads(encode(draw(events)))
    name = draw(st.sampled_from([*fields, "v", "meta", "price", "surprise"]))
    strange = json_values | texts.map(lambda text: [text]) | st.text(min_size=MAX_NAME + 1)
    if draw(st.booleans()):
        fields.pop(name, None)
    elif name in ("features", "args"):
        fields[name] = draw(st.dictionaries(texts, strange, max_size=4) | json_values)
    else:
        fields[name] = draw(strange)
    return fields
