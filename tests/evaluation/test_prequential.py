"""One prequential pass: what was known to a decision, and nothing learned later."""

from pathlib import Path

import numpy as np
import pytest

from engine.core import Core
from engine.core_config import LedgerConfig
from engine.evaluation import prequential
from engine.evaluation.prequential import Mark, Run, run, running_base_rate
from engine.fitting import InlineFitter
from engine.replay import replay
from engine.report import SKIPPED_SHARE, log_loss
from streams import Tape, encode
from tests.engine.histories import QUICK, close, history, signal


def tape(folder: Path, *events: object) -> Tape:
    path = folder / "t.jsonl"
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return Tape(path)


def new_core() -> Core:
    return Core(QUICK, InlineFitter())


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(new_core(), tape(tmp_path_factory.mktemp("tape"), *history(400)))


def test_a_run_judges_what_replay_judges(passed: Run, tmp_path: Path):
    core = new_core()
    figures = replay(core, tape(tmp_path, *history(400)))
    outcomes = passed.outcomes.select(slice(int(400 * SKIPPED_SHARE), None))
    assert log_loss(outcomes.probability, outcomes.won) == figures["log_loss"]
    assert passed.core.decisions_digest == core.decisions_digest
    assert len(passed.outcomes) == figures["outcomes"]
    assert int((passed.outcomes.action == "skip").sum()) == figures["actions"].get("skip", 0)


def test_the_running_base_rate_is_that_of_the_base_rate_expert(passed: Run):
    expected = passed.outcomes.experts["base_rate"]
    assert np.abs(running_base_rate(passed.outcomes) - expected).max() < 1e-12


def test_columns_are_what_the_bot_sent(passed: Run):
    events = history(400)
    sent = {event.signal_id: event for event in events if event.type == "signal"}
    outcomes = passed.outcomes
    for row in (0, 7, 399):
        of = sent[str(outcomes.signal_id[row])]
        assert outcomes.symbol[row] == of.symbol
        assert outcomes.side[row] == of.side
        assert outcomes.session[row] == of.features["session"]
        assert outcomes.baseline[row] == (of.baseline or "")
        assert outcomes.strategy[row] == ""
        assert outcomes.opened[row] == of.ts.timestamp()
        assert events[outcomes.decided_at[row]] is of
        learned = events[outcomes.learned_at[row]]
        assert (learned.type, learned.signal_id) == ("close", of.signal_id)
        assert outcomes.closed[row] == learned.ts.timestamp()
        assert outcomes.return_pct[row] == learned.return_pct
    assert np.array_equal(outcomes.won, outcomes.return_pct > 0)
    assert np.array_equal(outcomes.stopped == 1.0, ~outcomes.won)


def test_an_expert_that_abstains_has_no_number(tmp_path: Path):
    found = run(new_core(), tape(tmp_path, *history(100)))
    assert np.isnan(found.outcomes.experts["lightgbm"][0])
    assert np.isfinite(found.outcomes.experts["lightgbm"][-1])


def test_a_session_is_text_or_unknown(tmp_path: Path):
    events = [signal("a", features={"session": 3.0}), close("a"), signal("b"), close("b", 2)]
    found = run(new_core(), tape(tmp_path, *events)).outcomes
    assert found.session.tolist() == ["", ""]


def test_what_the_close_does_not_say_is_unknown(tmp_path: Path):
    said = close("b", 2, -1.0, exit_reason="stop", executed=False)
    found = run(new_core(), tape(tmp_path, signal("a"), close("a"), signal("b"), said)).outcomes
    assert np.isnan(found.stopped[0]) and found.stopped[1] == 1.0
    assert found.executed.tolist() == [True, False]


def test_a_close_before_its_signal_is_learned_where_the_signal_stands(tmp_path: Path):
    early = [signal("a"), close("b", 1), close("a", 2), signal("b", 3)]
    found = run(new_core(), tape(tmp_path, *early)).outcomes
    assert found.signal_id.tolist() == ["a", "b"]
    assert found.decided_at.tolist() == [0, 3]
    assert found.learned_at.tolist() == [2, 3]
    # What is learned on the decision's own line was not known to it.
    assert running_base_rate(found).tolist() == [1 / 2, 2 / 3]


def test_decisions_without_a_close_have_no_outcome(tmp_path: Path):
    events = [signal("a"), signal("b", 1), signal("a", 2), close("b", 3), signal("c", 4)]
    decisions = run(new_core(), tape(tmp_path, *events)).decisions
    assert decisions.outcome.tolist() == [-1, 0, -1]
    assert decisions.select(np.array([1])).outcome.tolist() == [0]


def test_an_expired_signal_is_no_mark_and_not_remembered(tmp_path: Path):
    config = QUICK.model_copy(update={"ledger": LedgerConfig(expire_days=0.01)})
    events = [signal("a"), signal("b", 60), close("b", 61)]
    found = run(Core(config, InlineFitter()), tape(tmp_path, *events))
    assert found.core.counts["expired_signals"] == 1
    assert found.marks == []
    assert found.decisions.outcome.tolist() == [-1, 0]


def test_marks_say_after_how_many_closes_a_refit_was_installed(passed: Run):
    installed = [mark for mark in passed.marks if mark.kind.startswith("refit_")]
    every, lag = QUICK.refit.every, QUICK.refit.lag
    assert installed[0] == Mark(every + lag, "refit_installed", f"refit-{every}")
    assert len(installed) == sum(
        passed.core.model.champions.refits[how] for how in ("installed", "rejected")
    )


def test_weights_are_looked_at_so_often_that_a_picture_has_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prequential, "WEIGHT_SAMPLES", 16)
    found = run(new_core(), tape(tmp_path, *history(96)))
    assert found.weights_at.tolist() == list(range(8, 97, 8))
    assert found.weights.shape == (len(found.weights_at), len(found.names))
    assert np.abs(found.weights.sum(axis=1) - 1.0).max() < 1e-9
    ends = dict(zip(found.names, found.core.model.mixture.weights, strict=True))
    assert dict(zip(found.names, found.weights[-1], strict=True)) == ends


def test_rows_are_selected_by_mask_slice_and_number(passed: Run):
    outcomes = passed.outcomes
    losers = outcomes.select(~outcomes.won)
    assert not losers.won.any() and len(losers) == int((~outcomes.won).sum())
    expected = outcomes.experts["base_rate"][~outcomes.won]
    assert np.array_equal(losers.experts["base_rate"], expected)
    assert outcomes.select(np.array([5, 2])).signal_id.tolist() == [
        outcomes.signal_id[5], outcomes.signal_id[2],
    ]  # fmt: skip


def test_a_trained_core_goes_on_and_its_open_signals_have_no_line(tmp_path: Path):
    core = new_core()
    run(core, tape(tmp_path, signal("a"), close("a"), signal("b", 2)))
    found = run(core, tape(tmp_path, close("b", 3), signal("c", 4), close("c", 5)))
    assert found.outcomes.decided_at.tolist() == [-1, 1]
    assert found.decisions.outcome.tolist() == [1]


def test_a_tape_without_closes_is_an_empty_run(tmp_path: Path):
    found = run(new_core(), tape(tmp_path, signal("a")))
    assert len(found.outcomes) == 0 and found.weights.shape == (0, len(found.names))
    assert len(run(new_core(), tape(tmp_path)).decisions) == 0


def test_progress_is_told(tmp_path: Path):
    told: list[int] = []
    run(new_core(), tape(tmp_path, *history(200)), told.append)
    assert told == [0, 256]
