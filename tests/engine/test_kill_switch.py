"""A person halts the engine and arms it again; in between it answers as configured, and learns."""

from datetime import timedelta

import pytest
from msgspec import structs

from engine.controls import sign
from engine.core import Core
from engine.core_config import CoreConfig, PolicyConfig
from engine.safety.settings import SafetyConfig
from streams import Alert, Control, Decision, Outcome, encode, read_entry
from streams.connection import connect
from streams.events import Dead
from streams.keys import Keys
from streams.transport import RedisTransport
from tests.engine.conftest import Command
from tests.engine.histories import KEY, QUICK, at, close, entries, new_core, run, signal

WARM = QUICK.model_copy(update={"policy": PolicyConfig(warmup_closes=0)})
LONG_KEY = b"a control key of a fair length"
_minutes = iter(range(10**6))


def said(command: str, by: str = "ann") -> bytes:
    ts = at(0) + timedelta(seconds=next(_minutes))
    blank = Control(command=command, ts=ts, by=by, reason="to see", sig="0" * 64)
    return encode(structs.replace(blank, sig=sign(blank, KEY)))


def with_answer(answer: str) -> CoreConfig:
    return WARM.model_copy(update={"safety": SafetyConfig(halted_answer=answer)})


def decided(core: Core, name: str, **fields: object) -> Decision:
    (found,) = [o for o in run(core, entries(signal(name, **fields))) if isinstance(o, Decision)]
    return found


def test_halted_it_skips_every_signal_until_it_is_armed():
    core = new_core(WARM.model_copy(update={"policy": PolicyConfig(rule="thresholds", take=0.0,
        skip=0.0, warmup_closes=0)}))  # fmt: skip
    assert decided(core, "a").action == "take"
    (alert,) = run(core, entries(said("halt")))
    assert isinstance(alert, Alert)
    assert (alert.severity, alert.code, alert.message) == (
        "critical", "halt", "halted by ann: to see",
    )  # fmt: skip
    halted = decided(core, "b")
    assert (halted.action, halted.size_multiplier, halted.reasons) == ("skip", 0.0, ("halted",))
    assert halted.propensity == 0.0
    run(core, entries(said("arm")))
    assert decided(core, "c").action == "take"


@pytest.mark.parametrize(
    ("baseline", "action", "reasons"),
    [
        ("take", "take", ("halted",)),
        ("skip", "skip", ("halted",)),
        (None, "take", ("halted", "default_baseline")),
    ],
)
def test_halted_it_may_give_the_bots_own_baseline_back(baseline, action, reasons):
    core = new_core(with_answer("baseline"))
    run(core, entries(said("halt")))
    found = decided(core, "a", baseline=baseline)
    assert (found.action, found.reasons) == (action, reasons)
    assert found.size_multiplier == (1.0 if action == "take" else 0.0)


def test_halted_it_goes_on_learning():
    core = new_core(WARM)
    run(core, entries(signal("a"), said("halt")))
    (outcome,) = run(core, entries(close("a")))
    assert isinstance(outcome, Outcome)
    assert core.model.closes == 1


def test_halting_twice_or_arming_an_armed_engine_is_said_to_change_nothing():
    core = new_core(WARM)
    (already,) = run(core, entries(said("arm")))
    assert isinstance(already, Dead)
    assert "is armed already" in already.message
    run(core, entries(said("halt")))
    (again,) = run(core, entries(said("halt", by="bob")))
    assert isinstance(again, Dead)
    assert core.guard.switch.firing.keys() == {"operator"}


def test_who_has_no_key_halts_nothing():
    core = new_core(WARM)
    blank = Control(command="halt", ts=at(1), by="eve", reason="", sig="0" * 64)
    (refused,) = run(core, entries(encode(structs.replace(blank, sig=sign(blank, b"another")))))
    assert isinstance(refused, Dead)
    assert core.guard.switch.state_now == "ACTIVE"


def test_it_is_halted_after_a_restore_too():
    core, after = new_core(WARM), new_core(WARM)
    run(core, entries(said("halt")))
    after.restore(core.state())
    assert decided(after, "a").reasons == ("halted",)


def test_the_command_signs_what_it_says(
    closeloop: Command, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSELOOP_CONTROL_KEY", LONG_KEY.decode())
    ran = closeloop("control", "halt", "--reason", "bad day", "--by", "ann", "--address", address)
    assert ran.status == 0, ran.err
    with connect(address) as connection:
        (raw,) = RedisTransport(connection, Keys()).read("0-0", 10)
    (alert,) = new_core(WARM, LONG_KEY).apply(read_entry(raw.id, raw.data))
    assert alert.message == "halted by ann: bad day"


def test_the_command_names_what_it_lacks(closeloop: Command, address: str) -> None:
    ran = closeloop("control", "arm", "--reason", "fine", "--address", address)
    assert ran.status == 2
    assert "CLOSELOOP_CONTROL_KEY" in ran.err
    assert closeloop("control", "dance", "--reason", "x", "--address", address).status == 2
