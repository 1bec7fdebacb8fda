"""Walk-forward: fresh cores, windows that tile the tape, nothing judged that was open before."""

from itertools import islice

import numpy as np
import pytest

from engine.core import Core
from engine.evaluation.prequential import Outcomes, run, running_base_rate
from engine.evaluation.walk_forward import Judged, Window, pooled, walk_forward, windows
from engine.fitting import InlineFitter
from streams import Tape, encode
from tests.engine.histories import QUICK, history

DELAY = 5
TRAIN, STEP, EMBARGO = 100, 60, 12
SIGNALS = 330


def new_core() -> Core:
    return Core(QUICK, InlineFitter())


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Tape:
    path = tmp_path_factory.mktemp("tape") / "t.jsonl"
    events = history(SIGNALS, delay=DELAY)
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return Tape(path)


@pytest.fixture(scope="module")
def whole(tape: Tape) -> Outcomes:
    return run(new_core(), tape).outcomes


@pytest.fixture(scope="module")
def judged(tape: Tape, whole: Outcomes) -> list[Judged]:
    return walk_forward(new_core, tape, windows(whole.learned_at, TRAIN, STEP, EMBARGO))


def test_windows_step_through_the_tape_and_the_last_is_half_a_step_at_least():
    learned_at = np.arange(100) * 2 + 1
    found = windows(learned_at, train=40, step=20, embargo=5)
    assert found == [
        Window(0, 80, 90, 120),
        Window(40, 120, 130, 160),
        Window(80, 160, 170, 200),
    ]
    assert windows(learned_at[:89], 40, 20) == windows(learned_at[:80], 40, 20)
    assert windows(learned_at[:90], 40, 20)[-1] == Window(80, 160, 160, 180)


@pytest.mark.parametrize("closes", [0, 49])
def test_a_tape_too_short_for_one_window_is_told(closes: int):
    with pytest.raises(ValueError, match=rf"the tape has {closes} closes.*needs 50; lower"):
        windows(np.arange(closes), 40, 20)


def test_an_embargo_that_leaves_nothing_is_told():
    with pytest.raises(ValueError, match="nothing is left of a step of 20 closes"):
        windows(np.arange(100), 40, 20, 20)


def test_a_window_is_judged_by_a_core_that_knows_that_window_alone(
    tape: Tape, judged: list[Judged]
):
    for each in judged[1:3]:
        alone = run(new_core(), islice(tape, each.window.start, each.window.end)).outcomes
        rows = np.isin(alone.signal_id, each.outcomes.signal_id)
        assert np.array_equal(alone.probability[rows], each.outcomes.probability)
        assert np.array_equal(running_base_rate(alone)[rows], each.base_rate)


def test_every_close_after_the_first_training_is_judged_once_or_left_out(
    whole: Outcomes, judged: list[Judged]
):
    names = np.concatenate([each.outcomes.signal_id for each in judged])
    assert len(set(names)) == len(names)
    left_out = sum(each.purged + each.embargoed for each in judged)
    shortest = (len(whole) - TRAIN) % STEP
    ends = len(whole) - (shortest if shortest < STEP // 2 else 0)
    assert len(names) + left_out == ends - TRAIN
    assert set(names) <= set(whole.signal_id[TRAIN:ends])


def test_trades_open_at_the_border_are_purged_and_the_embargo_left_out(
    whole: Outcomes, judged: list[Judged]
):
    lines = dict(zip(whole.signal_id, whole.decided_at, strict=True))
    for each in judged:
        # A minute's close comes before its signal.
        assert each.purged == DELAY - 1
        assert each.embargoed == EMBARGO
        assert min(lines[name] for name in each.outcomes.signal_id) >= each.window.judged_from


def test_the_core_goes_on_learning_while_it_is_judged(judged: list[Judged]):
    for each in judged:
        # A base rate frozen at the border would be one number.
        assert len(set(each.base_rate.tolist())) > 5
        assert len(set(each.outcomes.experts["base_rate"].tolist())) > 5


def test_each_window_has_a_fresh_core(tape: Tape, whole: Outcomes):
    made: list[Core] = []

    def make() -> Core:
        made.append(new_core())
        return made[-1]

    chosen = windows(whole.learned_at, TRAIN, STEP)
    told: list[int] = []
    walk_forward(make, tape, chosen, told.append)
    assert len(made) == len(chosen)
    # The trades open where a window starts have no signal in it.
    assert all(core.model.closes <= TRAIN + STEP for core in made)
    assert told == sorted(told)


def test_windows_are_pooled_in_order(judged: list[Judged]):
    outcomes, base_rate = pooled(judged)
    assert len(outcomes) == len(base_rate) == sum(len(each.outcomes) for each in judged)
    assert (np.diff(outcomes.closed) >= 0).all()
    assert outcomes.experts.keys() == judged[0].outcomes.experts.keys()
