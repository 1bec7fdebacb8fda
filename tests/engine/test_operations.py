"""What people tell the engine: each command is done in its place, or refused with a reason."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.commands import COMMANDS
from engine.controls import REMEMBERED, sign
from engine.core import Core
from engine.core_config import CoreConfig, PolicyConfig, RefitConfig
from engine.live_settings import changeable
from engine.safety.settings import BotConfig, RolloutConfig, SafetyConfig
from learners import RefitParams
from snapshots import state_digest
from streams import Alert, Control, Dead, Decision, ModelChange, Output, encode
from tests.engine.histories import KEY, QUICK, at, close, entries, history, new_core, run, signal

ALL = PolicyConfig(rule="thresholds", take=0.0, skip=0.0, warmup_closes=0, max_positions=10_000)
REFITS = QUICK.model_copy(
    update={
        "refit": RefitConfig(
            every=60, lag=10, window=200, holdout=40, guard=1.0, tolerance=10.0,
            params=RefitParams(rounds=5, max_rounds=5, min_data_in_leaf=10),
        )
    }
)  # fmt: skip
NEVER = {"take": 1.0, "skip": 1.0, "exploration_rate": 0.0}
"""The model takes nothing."""
_seconds = iter(range(10**6))


def config(**changed: Any) -> CoreConfig:
    return QUICK.model_copy(update={"policy": ALL, **changed})


UNMOVED: dict[str, object] = {"counts": {}, "controls": {}, "measurements": {}}
"""What a refused command may change: how many came, and which."""


def said(command: str, **args: float | bool | str) -> bytes:
    ts = at(0) + timedelta(seconds=next(_seconds))
    blank = Control(
        command=command, ts=ts, by="ann", reason="to see", sig="0" * 64, args=args or None
    )
    return encode(replace(blank, sig=sign(blank, KEY)))


def tell(core: Core, command: str, **args: float | bool | str) -> list[Output]:
    return run(core, entries(said(command, **args)))


def refused(core: Core, command: str, **args: float | bool | str) -> str:
    before = state_digest(core.state() | UNMOVED)
    (letter,) = tell(core, command, **args)
    assert isinstance(letter, Dead), letter
    assert letter.reason == "control_refused"
    assert state_digest(core.state() | UNMOVED) == before
    return letter.message


def decided(core: Core, name: str, **fields: object) -> Decision:
    (found,) = [o for o in run(core, entries(signal(name, **fields))) if isinstance(o, Decision)]
    return found


@pytest.mark.parametrize(
    ("command", "args", "why"),
    [
        ("dance", {}, "unknown command 'dance'; known: approve, arm"),
        ("mode", {}, "mode needs `mode`, a text"),
        ("mode", {"mode": 3.0}, "`mode` is 3.0, but must be a text"),
        ("mode", {"mode": "canary", "percent": 100.0}, "between 0 and 100, not 100"),
        ("mode", {"mode": "wild"}, "mode 'wild' is none; it is shadow, advisory, canary or live"),
        ("refit", {"speed": 1.0}, "refit takes no argument 'speed'; it takes: full, force"),
        ("install", {"model": "refit-7"}, "model 'refit-7' is not kept; kept are: none yet"),
        ("rollback", {}, "there was no champion before this one"),
        ("unpin", {}, "no model is pinned"),
        ("set", {"setting": "core.seed", "value": 1.0}, "can't be changed while running; these"),
        ("set", {"setting": "policy.take", "value": 7.0}, "policy.take can't be 7"),
        ("set", {"setting": "policy.max_positions", "value": 3.5}, "max_positions can't be 3.5"),
        ("approve", {"proposal": 1.0}, "no proposal 1 waits; waiting: none"),
        ("arm", {}, "the engine is armed already"),
        ("arm", {"revision": 7.0}, "stale: it was given at revision 7, this is revision 0"),
        ("measure", {"name": "drawdown", "value": 1.0}, "nothing here looks at 'drawdown'"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_the_reason_and_changes_nothing(command, args, why):
    assert why in refused(new_core(config()), command, **args)


def test_a_command_in_view_of_what_stands_is_obeyed_and_the_next_is_stale():
    core = new_core(config())
    assert core.guard.revision == 0
    tell(core, "halt", revision=0.0)
    assert core.guard.revision == 1
    assert "stale" in refused(core, "arm", revision=0.0)
    (alert,) = tell(core, "arm", revision=1.0)
    assert isinstance(alert, Alert)


def test_a_small_change_of_a_setting_is_made_at_once_and_stands_in_every_decisions_digest():
    core = new_core(config())
    before = decided(core, "a").model.config
    (alert,) = tell(core, "set", setting="policy.reduced_size", value=0.55)
    assert "policy.reduced_size from 0.5 to 0.55 by ann: to see" in alert.message
    assert decided(core, "b").model.config != before
    after = new_core(config())
    after.restore(core.state())
    assert after.settings.policy.reduced_size == 0.55
    assert decided(after, "c").model.config == decided(core, "c").model.config
    tell(core, "set", setting="policy.reduced_size", value=0.5)
    assert decided(core, "d").model.config == before


def test_settings_that_only_go_together_are_restored_together():
    core = new_core(config(safety=SafetyConfig(approve_above=1.0), policy=PolicyConfig()))
    for setting, value in (("skip", 0.35), ("take", 0.85), ("skip", 0.7)):
        tell(core, "set", setting=f"policy.{setting}", value=value)
    assert (core.settings.policy.skip, core.settings.policy.take) == (0.7, 0.85)
    after = new_core(core.config)
    after.restore(core.state())  # skip alone would be above the take of before
    assert after.settings.policy == core.settings.policy


def test_however_many_measurements_come_a_slow_clocks_command_is_obeyed():
    core = new_core(config())
    halt = said("halt")
    for i in range(REMEMBERED + 10):
        tell(core, "measure", name="snapshot_age", value=float(i))
    (alert,) = run(core, entries(halt))
    assert isinstance(alert, Alert)
    assert core.guard.switch.state_now == "HALTED"


def test_a_change_of_more_than_a_fifth_waits_for_an_approval():
    core = new_core(config())
    at_the_limit = 0.5 * 1.2
    (alert,) = tell(core, "set", setting="policy.reduced_size", value=at_the_limit)
    assert alert.code == "set"
    (asked,) = tell(core, "set", setting="policy.reduced_size", value=0.73)
    assert (asked.code, asked.severity) == ("approval_asked", "warning")
    assert core.settings.policy.reduced_size == at_the_limit
    approved, done = tell(core, "approve", proposal=1.0)
    assert (approved.code, done.code) == ("approve", "set")
    assert core.settings.policy.reduced_size == 0.73
    assert "no proposal 1 waits" in refused(core, "approve", proposal=1.0)


def test_a_rejected_proposal_is_gone():
    core = new_core(config())
    tell(core, "set", setting="policy.reduced_size", value=0.9)
    tell(core, "reject", proposal=1.0)
    assert core.settings.policy.reduced_size == 0.5
    assert core.figures()["proposals"] == []


def test_every_setting_that_can_be_changed_is_a_number_of_the_policys():
    core = new_core(config())
    for setting in changeable():
        assert core.settings.value(setting) == float(
            getattr(core.config.policy, setting.removeprefix("policy."))
        )


# The rollout


@pytest.mark.parametrize("mode", ["shadow", "advisory"])
def test_in_shadow_and_advisory_the_baseline_is_done_and_the_models_answer_noted(mode):
    core = new_core(config(policy=ALL.model_copy(update=NEVER)))
    tell(core, "mode", mode=mode)
    decision = decided(core, "a", baseline="take")
    assert (decision.action, decision.size_multiplier, decision.reasons) == ("take", 1.0, (mode,))
    assert (decision.mode, decision.arm, decision.propensity) == (mode, "baseline", 1.0)
    assert decision.advised == ("skip" if mode == "advisory" else None)
    (outcome, *_) = run(core, entries(close("a")))
    assert (outcome.action, outcome.advised, outcome.mode) == ("take", "skip", mode)


def test_in_canary_a_share_of_the_signals_is_the_models():
    core = new_core(config(policy=ALL.model_copy(update=NEVER)))
    tell(core, "mode", mode="canary", percent=25.0)
    found = [decided(core, f"s{i}", baseline="take") for i in range(400)]
    model = [d for d in found if d.arm == "model"]
    assert {d.action for d in model} == {"skip"}
    assert {d.action for d in found if d.arm == "baseline"} == {"take"}
    assert {d.propensity for d in found} == {0.75}
    assert 70 < len(model) < 130


def test_a_step_of_the_rollout_is_taken_or_waits_as_configured():
    for promotion in ("automatic", "approval"):
        rollout = RolloutConfig(mode="canary", min_days=0.0, promotion=promotion)
        core = new_core(config(rollout=rollout))
        events: list[Any] = []
        for i in range(3_000):
            arm = core.guard.rollout.arm(f"s{i}")
            gain = 1.0 if (arm == "model") == (i % 10 != 0) else -1.0
            events += [signal(f"s{i}", i), close(f"s{i}", i + 0.5, gain)]
        told = [o for o in run(core, entries(*events)) if isinstance(o, Alert)]
        if promotion == "approval":
            (asked,) = [a for a in told if a.code == "approval_asked"]
            assert "promotion to canary 25 % waits as proposal 1" in asked.message
            assert core.guard.rollout.percent == 10.0
            tell(core, "approve", proposal=1.0)
        else:
            assert next(a.subject for a in told if a.code == "promotion") == "rollout"
        assert core.guard.rollout.percent > 10.0


# Hard limits, and what a halted engine answers


def test_what_a_halted_engine_answers_is_configured_for_each_bot():
    bots = {"own": BotConfig(halted_answer="baseline")}
    core = new_core(config(safety=SafetyConfig(bots=bots)))
    tell(core, "halt")
    assert decided(core, "a", strategy="own", baseline="take").action == "take"
    assert decided(core, "b", strategy="other", baseline="take").action == "skip"


def test_no_model_exceeds_a_bots_hard_limits():
    bots = {"small": BotConfig(max_size=0.3, max_positions=2)}
    core = new_core(config(safety=SafetyConfig(bots=bots)))
    first = decided(core, "a", strategy="small")
    assert (first.action, first.size_multiplier, first.reasons[-1]) == (
        "reduce_size", 0.3, "bot_limit",
    )  # fmt: skip
    assert decided(core, "b", strategy="small", side="short").action == "reduce_size"
    third = decided(core, "c", strategy="small")
    assert (third.action, third.reasons[-1], third.propensity) == ("skip", "bot_limit", 0.0)
    assert decided(core, "d", strategy="other").action == "take"
    run(core, entries(close("a", 2)))
    assert decided(core, "e", strategy="small").action == "reduce_size"


# Models


def trained(changed: CoreConfig = REFITS, signals: int = 160) -> Core:
    core = new_core(changed)
    run(core, entries(*history(signals)))
    return core


def changes(outputs: list[Output]) -> list[ModelChange]:
    return [o for o in outputs if isinstance(o, ModelChange)]


def test_rolled_back_the_very_next_decision_is_the_old_champions():
    core = trained()
    assert core.model.champion == "refit-120"
    _, change = tell(core, "rollback")
    assert (change.change, change.model, change.parent, change.by, change.reason) == (
        "rolled_back", "refit-60", "refit-120", "ann", "to see",
    )  # fmt: skip
    decision = decided(core, "next")
    assert decision.model.champion == "refit-60"
    old = new_core(REFITS)
    run(old, entries(*history(160))[:170])
    assert old.model.champion == "refit-60"
    booster, before = (c.model.panel["lightgbm"].text for c in (core, old))
    assert booster == before


def test_going_back_to_a_named_model_forgets_no_champion_but_those_after_it():
    core = trained(signals=320)
    kept = core.figures()["models"]["kept"]
    assert core.model.champion == kept[-1]
    tell(core, "rollback", model=kept[1])
    assert core.figures()["models"]["previous"] == kept[0]
    tell(core, "rollback", model=kept[2])  # not one of those before any more
    assert core.figures()["models"]["previous"] == kept[1]
    tell(core, "rollback")
    assert core.model.champion == kept[1]


def test_a_refit_under_way_is_judged_against_the_champion_of_its_launch_whatever_comes():
    stream = entries(*history(260))
    core = new_core(REFITS)
    number = 0
    while core.model.champions.schedule.pending != 180:
        core.apply(stream[number])
        number += 1
    tell(core, "rollback")
    again = new_core(REFITS)
    again.restore(core.state())
    later = run(core, stream[number:])
    assert [encode(o) for o in run(again, stream[number:])] == [encode(o) for o in later]
    fitted = next(c for c in changes(later) if c.model == "refit-180")
    assert fitted.facts is not None
    assert fitted.facts.champion_metrics  # of refit-120, which was champion at the launch


def test_a_pinned_model_stays_champion_and_others_are_kept_as_challengers():
    core = trained()
    tell(core, "pin", model="refit-60")
    told = changes(run(core, entries(*history(320)[320:])))
    assert next((c.change, c.model) for c in told if c.change != "fitted") == (
        "rejected", "refit-180",
    )  # fmt: skip
    assert "refit-60 is pinned" in told[1].reason
    assert core.model.champion == "refit-60"
    assert core.figures()["models"]["challenger"] is not None
    tell(core, "unpin")
    tell(core, "install", model=core.figures()["models"]["challenger"])
    assert core.model.champion != "refit-60"


def test_what_the_gate_refused_is_installed_only_by_force_and_says_so_for_ever():
    strict = REFITS.model_copy(
        update={"refit": REFITS.refit.model_copy(update={"floor_accuracy": 1.0})}
    )
    core = trained(strict)
    assert core.model.champion is None
    assert "the gate refused refit-60; give `force`" in refused(core, "install", model="refit-60")
    for command in ("pin", "rollback"):
        assert "the gate refused refit-60, and it never" in refused(core, command, model="refit-60")
    _, change = tell(core, "install", model="refit-60", force=True)
    assert change.forced
    tell(core, "refit", force=True)
    told = changes(run(core, entries(*history(240)[320:])))
    forced = next(c for c in told if c.change == "installed")
    assert (forced.forced, forced.by) == (True, "ann")
    assert forced.model.endswith("-forced")
    assert decided(core, "later").model.champion == forced.model


def test_a_full_refit_tries_several_shapes():
    core = trained(signals=130)
    tell(core, "refit", full=True)
    told = changes(run(core, entries(*history(240)[260:])))
    facts = next(c.facts for c in told if c.facts is not None and c.facts.cause == "ann")
    assert facts.params["num_leaves"] in (7.0, 15.0, 30.0)


def test_every_command_is_tried_here_or_in_the_tests_of_the_kill_switch():
    text = Path(__file__).read_text()
    assert all(f'"{command}"' in text for command in COMMANDS)
