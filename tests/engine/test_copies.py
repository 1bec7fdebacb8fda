"""What is sent again, at any time in a signal's life: nothing follows from it."""

import pytest

from snapshots import digest
from tests.engine.histories import close, entries, new_core, run, signal

LIVES = {
    "open": [signal("a")],
    "closed": [signal("a"), close("a")],
    "closed before it came": [close("a"), signal("a")],
    "expired": [signal("a"), signal("b", 61 * 24 * 60), signal("c", 61 * 24 * 60)],
}


@pytest.mark.parametrize("life", LIVES)
def test_a_signal_sent_again_is_neither_decided_nor_opened_again(life):
    core = new_core()
    run(core, entries(*LIVES[life]))
    model, ledger = digest(core.model.state()), digest(core.ledger.state())
    again = signal("a", 1, symbol="XAUUSD", features={"rsi": 9.0, "new": 1.0})
    assert run(core, entries(again, first=9)) == []
    assert core.counts["duplicate_signals"] == 1
    assert digest(core.model.state()) == model
    assert digest(core.ledger.state()) == ledger


@pytest.mark.parametrize("life", ["closed", "closed before it came"])
def test_a_close_sent_again_is_not_learned_again(life):
    core = new_core()
    run(core, entries(*LIVES[life]))
    model = digest(core.model.state())
    assert run(core, entries(close("a", 2, return_pct=-5.0), first=9)) == []
    assert digest(core.model.state()) == model


def test_a_copy_is_known_after_a_restore_whatever_the_copied_had_come_to():
    before, after = new_core(), new_core()
    run(before, entries(signal("a"), close("a"), signal("b"), close("c")))
    after.restore(before.state())
    copies = entries(signal("a"), close("a"), signal("b"), close("c"), first=9)
    assert run(after, copies) == []
    assert after.counts["duplicate_signals"] == after.counts["duplicate_closes"] == 2
