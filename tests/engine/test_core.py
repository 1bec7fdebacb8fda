"""The core: what follows from each event, and from nothing else."""

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.controls import sign
from engine.core import Core, chain
from snapshots import digest, state_digest
from streams import Alert, Control, Dead, Decision, ModelRef, Outcome, encode
from streams.events import decode_output
from tests.engine.histories import KEY, QUICK, at, close, entries, history, new_core, run, signal

STREAM = entries(*history(260))


DECISION = Decision(
    decision_id="1-1",
    signal_id="a",
    ts=at(0),
    symbol="S",
    action="take",
    probability=0.5,
    expected_return_pct=0.0,
    risk=0.5,
    size_multiplier=1.0,
    reasons=("warming_up",),
    model=ModelRef(update=0, last_close=None, champion=None, config="0"),
)


def of_type(kind: type, outputs: list) -> list:
    return [output for output in outputs if isinstance(output, kind)]


def states(core: Core) -> tuple[str, str]:
    return core.decisions_digest, state_digest(core.state())


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[str, str]:
    core = new_core()
    run(core, STREAM)
    return states(core)


def test_every_signal_gets_exactly_one_decision_in_input_order():
    decisions = of_type(Decision, run(new_core(), STREAM))
    asked = [e for e in STREAM if e.event.type == "signal"]
    assert [d.signal_id for d in decisions] == [e.event.signal_id for e in asked]
    assert [d.decision_id for d in decisions] == [e.id for e in asked]


def test_every_close_is_learned_once_and_joined_to_its_decision():
    outputs = run(new_core(), STREAM)
    decided = {d.signal_id: d for d in of_type(Decision, outputs)}
    outcomes = of_type(Outcome, outputs)
    assert sorted(o.signal_id for o in outcomes) == sorted(decided)
    assert [o.update for o in outcomes] == list(range(1, len(outcomes) + 1))
    assert all(o.probability == decided[o.signal_id].probability for o in outcomes)


def test_everything_put_out_keeps_the_contract():
    outputs = run(new_core(), STREAM)
    assert {type(output) for output in outputs} >= {Decision, Outcome, Alert}
    for output in outputs:
        assert decode_output(type(output), encode(output)) == output


def test_the_decisions_digest_leaves_out_the_decision_id_alone():
    elsewhere = replace(DECISION, decision_id="7-7")
    assert chain("00" * 32, DECISION) == chain("00" * 32, elsewhere)
    for change in ({"signal_id": "b"}, {"probability": 0.6}, {"reasons": ("x",)}):
        assert chain("00" * 32, replace(DECISION, **change)) != chain("00" * 32, DECISION)


def test_a_signal_sent_again_is_counted_and_not_decided_again():
    core = new_core()
    run(core, entries(signal("a")))
    before = states(core)
    assert run(core, entries(signal("a", features={"rsi": 99.0}), first=2)) == []
    assert core.counts["duplicate_signals"] == 1
    assert core.decisions_digest == before[0]


def test_a_close_sent_again_is_counted_and_not_learned_again():
    core = new_core()
    run(core, entries(signal("a"), close("a")))
    assert run(core, entries(close("a", return_pct=-3.0), first=3)) == []
    assert core.counts["duplicate_closes"] == 1
    assert core.model.closes == 1


def test_learning_uses_the_features_frozen_at_the_decision():
    honest, resent = new_core(), new_core()
    run(honest, entries(signal("a", features={"rsi": 1.0}), close("a")))
    run(
        resent,
        entries(signal("a", features={"rsi": 1.0}), signal("a", features={"rsi": 9.0}), close("a")),
    )
    assert digest(resent.model.state()) == digest(honest.model.state())


def test_a_close_before_its_signal_waits_and_is_learned_when_the_signal_comes():
    core = new_core()
    assert run(core, entries(close("a", 1))) == []
    outputs = run(core, entries(signal("a", 0), first=2))
    assert [type(o) for o in outputs] == [Decision, Outcome]
    assert core.model.closes == 1


def test_a_close_for_nothing_is_given_up_with_its_id_and_bytes():
    core = new_core()
    lonely = entries(close("ghost", 1))
    run(core, lonely)
    outputs = run(core, entries(signal("a", 120), signal("b", 120), first=2))
    (letter,) = of_type(Dead, outputs)
    assert (letter.entry_id, letter.reason) == ("0-1", "orphan_close")
    assert letter.data == lonely[0].data.decode()
    assert core.counts["orphan_closes"] == 1


def test_a_signal_without_a_close_expires_by_event_time_and_its_late_close_is_not_learned():
    core = new_core()
    days = 24 * 60 * 61
    later = [signal("b", days), signal("c", days)]
    outputs = run(core, entries(signal("a"), *later, close("a", days + 1)))
    assert [a.code for a in of_type(Alert, outputs)] == [
        "signal_expired",
        "daily_summary",
    ]
    assert [d.reason for d in of_type(Dead, outputs)] == ["late_close"]
    assert core.model.closes == 0


FAR = 4_000_000_000
"""Minutes to a year beyond 9600."""


@pytest.mark.parametrize("far", [FAR, -FAR // 4])
@pytest.mark.parametrize("sent", [1, 40])
def test_one_event_of_another_age_expires_nothing_however_often_it_is_sent(far, sent):
    core = new_core()
    mine = [signal("mine"), close("early", 1), *[signal(f"s{i}", i) for i in range(2)]]
    run(core, entries(*mine, *[signal("liar", far)] * sent))
    outputs = run(core, entries(*[close("liar", far)] * sent, *[close("lie", far)] * sent))
    assert {type(output) for output in outputs} <= {Outcome}
    assert "mine" in core.ledger.open
    assert "early" in core.ledger.parked


def test_nobody_waits_behind_an_event_from_the_future():
    core = new_core()
    far = [signal("liar", FAR), close("lie", FAR)]
    days = 24 * 60 * 61
    later = [signal(f"s{i}", days + i) for i in range(10)]
    outputs = run(core, entries(*far, signal("mine"), close("early", 1), *later))
    expired = [a for a in of_type(Alert, outputs) if a.code == "signal_expired"]
    assert [a.subject for a in expired] == ["mine"]
    assert ["early" in d.data for d in of_type(Dead, outputs)] == [True]


def test_what_wrong_clocks_did_to_event_time_is_over_once_others_follow():
    core = new_core()
    wrong = [signal(f"w{i}", FAR) for i in range(20)]
    run(core, entries(*wrong, *[signal(f"s{i}", i) for i in range(8)]))
    outputs = run(core, entries(*[signal(f"t{i}", 10 + i) for i in range(20)]))
    assert of_type(Alert, outputs) == []
    assert core.counts["decisions"] == 48


@pytest.mark.parametrize(
    "data",
    [
        b"not JSON",
        b"[1, 2]",
        b'{"type": "trade"}',
        b'{"type": "close", "signal_id": "a", "ts": "2026-01-05T09:30:00Z"}',
        encode(close("a")).replace(b"}", b',"surprise":1}'),
        encode(close("a")).replace(b"1.0", b"NaN"),
        encode(close("a")).replace(b"1.0", b"1e999"),
        encode(close("a")).replace(b"2026-01-05T", b"2026-01-05 at "),
        b'"' + b"x" * 1_000_000 + b'"',
        b"\xff\xfe\x00",
    ],
)
def test_bad_input_is_buried_whole_and_the_next_event_is_handled(data):
    core = new_core()
    outputs = run(core, entries(data, signal("a")))
    assert [type(o) for o in outputs] == [Dead, Decision]
    assert outputs[0].entry_id == "0-1"
    assert outputs[0].message
    kept = outputs[0].data.encode() if outputs[0].data is not None else None
    assert kept == data or outputs[0].data_base64 is not None
    assert core.counts["dead"] == 1


def test_a_feature_that_changes_its_type_buries_its_signal_and_changes_nothing_else():
    core = new_core()
    run(core, entries(signal("a", features={"rsi": 50.0})))
    before = digest(core.model.state())
    (letter,) = run(core, entries(signal("b", features={"new": 1.0, "rsi": "high"}), first=2))
    assert letter.reason == "feature_type"
    assert "rsi" in letter.message
    assert digest(core.model.state()) == before


def test_while_warming_up_the_bots_own_baseline_is_echoed():
    outputs = run(new_core(), entries(signal("a", baseline="skip"), signal("b", baseline="take")))
    assert [(d.action, d.reasons) for d in outputs] == [
        ("skip", ("warming_up",)),
        ("take", ("warming_up",)),
    ]


def test_after_the_warm_up_the_model_speaks():
    decisions = of_type(Decision, run(new_core(), STREAM))
    echoed = [d for d in decisions if "warming_up" in d.reasons]
    assert all(d.model.update < 100 for d in echoed)
    assert {d.action for d in decisions if d.model.update >= 100} == {"take", "reduce_size", "skip"}


def test_digests_do_not_depend_on_the_transports_ids(uninterrupted):
    core = new_core()
    for number, entry in enumerate(STREAM):
        core.apply(type(entry)(f"{number + 77}-5", entry.data, entry.event))
    assert states(core) == uninterrupted


def test_ids_of_waiting_closes_are_kept_but_not_digested():
    one, other = new_core(), new_core()
    run(one, entries(close("a")))
    run(other, entries(close("a"), first=9))
    assert state_digest(one.state()) == state_digest(other.state())
    assert digest(one.state()) != digest(other.state())


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(0, len(STREAM)))
def test_going_on_from_a_state_equals_never_having_stopped(cut, uninterrupted):
    before, after = new_core(), new_core()
    run(before, STREAM[:cut])
    after.restore(before.state())
    assert state_digest(after.state()) == state_digest(before.state())
    run(after, STREAM[cut:])
    assert states(after) == uninterrupted


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, len(STREAM) - 1), seed=st.integers(2, 1000))
def test_nothing_later_changes_an_earlier_decision(cut, seed):
    other_future = STREAM[:cut] + entries(*history(60, seed), first=cut + 1)
    here = run(new_core(), STREAM)
    there = run(new_core(), other_future)
    known = [d for d in of_type(Decision, here) if int(d.decision_id[2:]) <= cut]
    assert of_type(Decision, there)[: len(known)] == known


def test_a_refit_is_installed_exactly_lag_closes_after_its_launch():
    decisions = of_type(Decision, run(new_core(), STREAM))
    steps = [
        (after.model.update, after.model.champion)
        for before, after in pairwise(decisions)
        if before.model.champion != after.model.champion
    ]
    assert steps[0] == (QUICK.refit.every + QUICK.refit.lag, "refit-60")


def control(command: str, key: bytes) -> Control:
    blank = Control(command=command, ts=at(1), by="ann", reason="to see", sig="0" * 64)
    return replace(blank, sig=sign(blank, key))


def test_a_signed_control_is_obeyed_and_a_forged_or_unknown_one_buried():
    core = new_core()
    outputs = run(core, entries(control("refit", KEY)))
    assert [o.code for o in outputs] == ["refit"]
    outputs = run(core, entries(control("refit", b"another key"), control("dance", KEY), first=2))
    assert [o.reason for o in outputs] == ["control_refused", "control_refused"]
    assert "unknown command 'dance'" in outputs[1].message


def test_without_a_control_key_no_control_is_obeyed():
    outputs = run(new_core(control_key=None), entries(control("refit", KEY)))
    assert [o.reason for o in outputs] == ["control_refused"]


SCRIPT = """
from snapshots import digest, state_digest
from tests.engine.histories import entries, history, new_core, run
core = new_core()
run(core, entries(*history(260)))
print(core.decisions_digest, state_digest(core.state()))
"""


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_digests_are_the_same_in_any_process_and_with_any_hash_seed(
    hash_seed, uninterrupted, monkeypatch
):
    monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert tuple(done.stdout.split()) == uninterrupted
