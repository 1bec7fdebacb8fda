"""The ledger: bounded, and what leaves it is known."""

import pickle
from dataclasses import fields
from datetime import timedelta

import numpy as np
import pytest

from engine.ledger import Ledger, OpenSignal, ParkedClose, from_micros, to_micros
from learners import Frozen, Outlook
from snapshots import digest
from streams import encode
from tests.engine.histories import at, close


def opened(name: str, minutes: float = 0.0) -> OpenSignal:
    row = np.array([1.0, np.nan])
    outlook = Outlook(0.5, (0.4, 0.6), 0.1, 0.05, (-1.0, 1.5), 0.5)
    frozen = Frozen(row, row + 1, row + 2, row + 3, 0.7)
    return OpenSignal(
        name, at(minutes), "S", "long", None, None, "ranging", "take", 0.5, 0.02, 1.0, "model",
        "canary", "take", 0.5, 7, outlook, row, frozen, ((0.25, -1.0),),
    )  # fmt: skip


def ledger(max_open: int = 3, max_parked: int = 2, remember: int = 4) -> Ledger:
    return Ledger(max_open, max_parked, remember, timedelta(hours=1), timedelta(minutes=10))


def test_past_its_bound_the_oldest_open_signal_goes():
    book = ledger()
    for name in "abcd":
        book.open[name] = opened(name)
    assert [gone.signal_id for gone in book.overdue(at(0))] == ["a"]
    assert list(book.open) == ["b", "c", "d"]
    assert book.has_ended("a")
    assert not book.has_closed("a")


def test_past_their_bound_the_oldest_parked_closes_go():
    book = ledger()
    for name in "abc":
        early = close(name, 0)
        book.parked[name] = ParkedClose("0-1", encode(early), early)
    assert [gone.close.signal_id for gone in book.overdue(at(0))] == ["a"]


def test_remembered_signals_are_bounded_and_the_oldest_is_forgotten_first():
    book = ledger()
    for name in "abcde":
        book.open[name] = opened(name)
        book.close(name)
    assert [name for name in "abcde" if book.has_closed(name)] == list("bcde")


def test_exactly_at_the_span_a_signal_is_still_open():
    book = ledger()
    book.open["a"] = opened("a")
    assert list(book.overdue(at(60))) == []
    assert [gone.signal_id for gone in book.overdue(at(60.01))] == ["a"]


def test_who_is_ahead_of_event_time_is_passed_over_until_it_comes():
    book = ledger()
    for name, minutes in (("ahead", 500.0), ("b", 1.0), ("c", 2.0)):
        book.open[name] = opened(name, minutes)
    assert list(book.overdue(at(50))) == []
    assert [gone.signal_id for gone in book.overdue(at(61.5))] == ["b"]
    assert [gone.signal_id for gone in book.overdue(at(560.5))] == ["c", "ahead"]


def test_a_parked_closes_notes_are_kept_as_bytes_alone():
    book = ledger()
    early = close("a", meta={"notes": [{}] * 1000})
    book.park_close("0-1", encode(early), early)
    assert book.parked["a"].close.meta is None
    again = ledger()
    again.restore(book.state(), ["0-1"])
    assert again.parked == book.parked
    assert again.parked["a"].data == encode(early)


def test_times_survive_as_microseconds_exactly():
    for moment in (at(0), at(0.0001), from_micros(-1)):
        assert from_micros(to_micros(moment)) == moment


@pytest.mark.parametrize("interval", [None, (-1.0, 1.5)])
def test_an_open_signal_comes_back_as_it_was_frozen(interval):
    book, again = ledger(), ledger()
    one = opened("a", 3.25)
    one.outlook = one.outlook._replace(return_interval_pct=interval)
    book.open["a"] = one
    again.restore(pickle.loads(pickle.dumps(book.state())), [])
    other = again.open["a"]
    for field in fields(OpenSignal):
        if field.name not in ("row", "frozen"):
            assert getattr(other, field.name) == getattr(one, field.name), field.name
    assert other.row.tobytes() == one.row.tobytes()
    assert isinstance(other.frozen, Frozen)
    for mine, its in zip(one.frozen, other.frozen, strict=True):
        assert np.asarray(its).tobytes() == np.asarray(mine).tobytes()
    assert digest(again.state()) == digest(book.state())
