"""`closeloop tune`: it finds what is there, goes on after a kill, claims nothing beyond chance."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from engine.config import ConfigError, load_config
from engine.core import Core
from engine.core_config import CoreConfig, DriftConfig, ExpertConfig, RefitConfig
from engine.evaluation import bootstrap
from engine.evaluation.pages import print_findings
from engine.evaluation.prequential import run
from engine.evaluation.search import hopeless
from engine.evaluation.search_space import SPACE, configured, core_toml, with_settings
from engine.evaluation.study import best_of
from engine.evaluation.trials import Part, evaluate, first_part
from engine.evaluation.tune import Tuning, last_part, tune
from engine.evaluation.tune_findings import findings, tuned_file
from engine.fitting import InlineFitter
from learners import RefitParams
from streams import Close, Tape, TapeError, encode
from tests.engine.conftest import Command
from tests.engine.histories import QUICK, history

SLOW = CoreConfig(
    experts={
        "base_rate": ExpertConfig(kind="base_rate"),
        "logistic": ExpertConfig(kind="logistic", params={"lr": 0.00001}),
    },
    refit=RefitConfig(enabled=False),
)
"""Learns much too slowly: any search should find that."""
TRIALS = 9


def write(path: Path, events: list[object]) -> Path:
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return path


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tape") / "t.jsonl", history(1_600))


@pytest.fixture(scope="module")
def tuning(tape: Path) -> Tuning:
    return tune(SLOW, [tape], TRIALS, 1, tape.with_name("whole.journal"))


def blocks_of(config, part) -> list[float]:
    heard: list[float] = []
    evaluate(config, part, lambda loss: heard.append(loss) is None)
    return heard


# The space


def test_every_setting_of_the_space_is_one_of_the_core_and_may_have_both_ends_of_its_range():
    config = CoreConfig()
    values = configured(config)
    assert list(values) == list(SPACE)
    for setting, value in values.items():
        assert setting.low < value < setting.high, setting.name
        for end in (setting.low, setting.high):
            other = with_settings(config, {setting.name: end})
            assert configured(other) == values | {setting: end}, setting.name
            Core(other, InlineFitter())


def test_settings_of_what_is_not_there_are_not_searched():
    names = {setting.name for setting in configured(SLOW)}
    assert names == {"drift.delta", "experts.logistic.params.lr"}


def test_a_range_is_widened_to_hold_what_is_configured():
    (rounds,) = (setting for setting in SPACE if setting.name == "refit.params.rounds")
    held = rounds.distribution(500)
    assert (held.low, held.high) == (rounds.low, 500)


def test_settings_that_were_written_are_read_again_as_they_were(tmp_path):
    config = CoreConfig(
        seed=7,
        experts={
            "base_rate": ExpertConfig(kind="base_rate"),
            'my "own" tree': ExpertConfig(
                kind="river.tree.HoeffdingTreeClassifier",
                params={"grace_period": 40, "tau": 1e-9, "binary_split": True, "leaf": "nba"},
            ),
        },
        refit=RefitConfig(every=77, params=RefitParams(learning_rate=1e-05)),
        drift=DriftConfig(on_mixture=("alert", "reset"), on_expert=()),
    )
    path = tmp_path / "tuned.toml"
    for each in (config, SLOW, QUICK, CoreConfig()):
        path.write_text(core_toml(each))
        assert load_config(path).core == each


def test_the_page_of_docs_has_the_ranges_that_are_searched():
    page = (Path(__file__).parents[2] / "docs" / "tune.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {name.strip("`"): [float(end.replace(",", "")) for end in ends] for name, *ends in rows}
    assert told == {setting.name: [setting.low, setting.high] for setting in SPACE}


# Trials


def test_a_trial_ends_at_the_border_and_tells_the_losses_that_a_whole_run_has_there(tape, tmp_path):
    part = first_part([tape], 700)
    whole = run(Core(QUICK, InlineFitter()), Tape(tape)).outcomes
    assert blocks_of(QUICK, part) == pytest.approx(part.losses(whole), abs=1e-12)
    lines, closes = [], 0
    for line in Tape(tape):
        lines.append(line.data if closes < 700 else b"what comes later")
        closes += isinstance(line.entry().event, Close)
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"\n".join(lines))
    assert blocks_of(QUICK, first_part([other], 700)) == blocks_of(QUICK, part)


def test_a_trial_that_is_not_to_go_on_ends_at_once(tape):
    heard: list[float] = []

    def twice(loss: float) -> bool:
        heard.append(loss)
        return len(heard) < 2

    evaluate(QUICK, first_part([tape], 700), twice)
    assert len(heard) == 2


# The search


def test_a_trial_is_stopped_when_it_is_behind_block_after_block_and_not_by_a_bad_block():
    best = [0.5, 0.6, 0.4, 0.5, 0.6, 0.5]
    worse = [each + 0.01 for each in best]
    assert [hopeless(worse[:n], best) for n in range(1, 7)] == [False] * 4 + [True] * 2
    assert not hopeless([0.9, *best[1:]], best)
    assert not hopeless(best, best)
    assert not hopeless([each - 0.01 for each in best], best)


def test_trials_that_are_behind_are_stopped_and_never_the_best(tuning):
    stopped = [trial for trial in tuning.trials if trial.stopped]
    assert stopped and all(5 <= len(trial.blocks) < 20 for trial in stopped)
    assert all(len(trial.blocks) == 20 for trial in tuning.trials if not trial.stopped)
    lucky = replace(stopped[0], blocks=[0.0])
    assert best_of([tuning.trials[0], lucky]) == tuning.trials[0]


def test_a_search_finds_what_is_wrong_and_the_last_part_confirms_it(tuning):
    assert tuning.helped
    assert tuning.advised == tuning.tuned != SLOW
    assert tuning.best.settings["experts.logistic.params.lr"] > 0.002
    assert tuning.difference.value < -0.01
    assert tuning.trials[0].settings["experts.logistic.params.lr"] == 0.00001
    assert len(tuning.trials) == TRIALS


def test_the_last_part_holds_only_trades_that_opened_after_the_first_ended(tape, tuning):
    outcomes = run(Core(SLOW, InlineFitter()), Tape(tape)).outcomes
    border = outcomes.closed[tuning.closes - 1]
    assert tuning.given_outcomes.opened.min() >= border
    purged = len(outcomes) - tuning.closes - len(tuning.given_outcomes)
    assert purged == (outcomes.opened[tuning.closes :] < border).sum() > 0
    assert list(last_part(outcomes, tuning.closes)) == list(
        range(tuning.closes + purged, len(outcomes))
    )


def test_what_is_printed_is_what_a_user_gets_who_runs_the_file(tape, tuning, tmp_path):
    path = tmp_path / "tuned.toml"
    path.write_text(tuned_file(tuning))
    got = run(Core(load_config(path).core, InlineFitter()), Tape(tape)).outcomes
    assert list(got.probability[-len(tuning.tuned_outcomes) :]) == list(
        tuning.tuned_outcomes.probability
    )


class Reversed:
    """A crew in this process, of which the one that started last is heard first."""

    def __init__(self, part: Part, jobs: int) -> None:
        self.part = part
        self.free: list[Link] = [Link() for _ in range(jobs)]

    def start(self, config: CoreConfig) -> "Link":
        link = self.free.pop()
        link.blocks = blocks_of(config, self.part)
        return link

    def heard(self, links: list["Link"]) -> Iterator[tuple["Link", float]]:
        yield links[-1], links[-1].blocks.pop(0)


class Link:
    blocks: list[float]

    def send(self, go_on: bool) -> None:
        pass


def test_the_trials_are_the_same_however_many_run_and_whichever_ends_first(
    tape, tuning, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "engine.evaluation.search.crew", lambda part, jobs: nullcontext(Reversed(part, jobs))
    )
    again = tune(SLOW, [tape], TRIALS, 3, tmp_path / "j")
    assert again.trials == tuning.trials
    drawn = {tuple(trial.settings.values()) for trial in again.trials}
    assert len(drawn) == TRIALS


KILLED = """
import sys
from pathlib import Path
from engine.evaluation.tune import tune
from tests.evaluation.test_tune import SLOW, TRIALS

def say(what, done):
    print(what, flush=True)
    if what.startswith("3 of 9 trials"):
        sys.stdin.read()  # for ever: here it is killed

if __name__ == "__main__":
    tape = Path(sys.argv[1])
    tune(SLOW, [tape], TRIALS, 2, Path(sys.argv[2]), progress=say)
"""


def test_a_search_that_is_killed_goes_on_to_the_end_it_would_have_had(tape, tuning, tmp_path):
    journal, program = tmp_path / "killed.journal", tmp_path / "program.py"
    program.write_text(KILLED)
    search = subprocess.Popen(
        [sys.executable, program, tape, journal],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert search.stdout is not None
    said = next((line for line in search.stdout if line.startswith("3 of 9 trials")), None)
    search.send_signal(signal.SIGKILL)
    search.communicate(timeout=30)
    assert said is not None and search.returncode == -signal.SIGKILL
    with journal.open("ab") as file:  # and the kill tore what it was writing
        file.write(b'{"op_code": 6, "worker')
    done: list[str] = []
    again = tune(SLOW, [tape], TRIALS, 1, journal, progress=lambda what, _: done.append(what))
    assert next(what for what in done if "trials" in what).startswith("3 of 9 trials")
    assert again.trials == tuning.trials
    assert findings(again).figures == findings(tuning).figures


def test_a_finished_search_is_not_made_again(tape, tuning, monkeypatch):
    monkeypatch.setattr("engine.evaluation.search.crew", None)
    journal = tape.with_name("whole.journal")
    assert tune(SLOW, [tape], TRIALS, 2, journal).trials == tuning.trials


@pytest.mark.parametrize("change", ["tape", "config", "seed", "holdout"])
def test_a_journal_of_another_search_is_refused(tape, tuning, tmp_path, change):
    journal = tape.with_name("whole.journal")
    other = write(tmp_path / "t.jsonl", history(1_000, seed=2)) if change == "tape" else tape
    config = SLOW.model_copy(update={"seed": 3}) if change == "config" else SLOW
    holdout, seed = 0.4 if change == "holdout" else 0.3, 2 if change == "seed" else 1
    before = journal.read_bytes()
    with pytest.raises(ConfigError, match="another tape, configuration"):
        tune(config, [other], TRIALS, 1, journal, holdout, seed)
    assert journal.read_bytes() == before


def test_a_file_that_is_no_journal_is_left_alone(tape, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_bytes(b"a line\nand half of one")
    with pytest.raises(ConfigError, match="holds no search"):
        tune(SLOW, [tape], TRIALS, 1, precious)
    assert precious.read_bytes() == b"a line\nand half of one"


# What is said of it


def judged(tuning: Tuning, low: float, high: float) -> Tuning:
    return replace(tuning, difference=bootstrap.Estimate((low + high) / 2, low, high))


def test_an_interval_that_holds_zero_is_no_help_and_the_given_settings_are_advised(
    tuning, tmp_path
):
    path = tmp_path / "tuned.toml"
    for low, high, said in (
        (-0.002, 0.0001, "did not help beyond chance"),
        (0.0001, 0.002, "did harm"),
    ):
        one = judged(tuning, low, high)
        assert said in findings(one).summary
        assert one.advised == SLOW
        path.write_text(tuned_file(one))
        assert load_config(path).core == SLOW
        assert f"#lr = {tuning.best.settings['experts.logistic.params.lr']!r}" in path.read_text()


def test_when_no_trial_is_better_that_is_said(tuning):
    first = replace(tuning.trials[0])
    same = replace(tuning, best=first, tuned=SLOW, difference=bootstrap.Estimate(0.0, 0.0, 0.0))
    assert "No trial was better" in findings(same).summary
    assert "not advised" not in tuned_file(same)


def test_the_tables_fit_a_screen_of_80_columns(tuning, capsys):
    print_findings(findings(tuning), Console(width=80))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in "".join(line.split("┃")[0] for line in out.splitlines() if "┃" in line)


# The command


def test_the_command_writes_what_is_advised_and_overwrites_only_by_force(
    closeloop: Command, tape: Path, tmp_path: Path
):
    (tmp_path / "mine.toml").write_text(core_toml(SLOW))
    asked = ("tune", tape, "--config", "mine.toml", "--trials", 4, "--jobs", 1)
    ran = closeloop(*asked, "--json", "--html", "page.html")
    assert ran.status == 0
    assert (tmp_path / "page.html").read_text().count("<svg") == 2
    lr = load_config(tmp_path / "tuned.toml").core.experts["logistic"].params["lr"]
    found = ran.json
    assert found["helped"] and found["settings"]["experts.logistic.params.lr"]["tuned"] == lr
    again = closeloop(*asked)
    assert (again.status, again.out) == (2, "")
    assert "tuned.toml exists" in again.err and "--force" in again.err
    forced = closeloop(*asked, "--force", "--json")
    assert forced.json == found


def test_where_nothing_can_be_written_is_said_before_the_search(closeloop: Command, tape: Path):
    ran = closeloop("tune", tape, "--out", "no/folder/t.toml")
    assert ran.status == 2
    assert "there is no folder no/folder" in ran.err


# Tapes that can't be tuned on


def test_too_little_to_tune_on_is_said_with_the_mend(tmp_path):
    def refusal(events, **options) -> str:
        path = write(tmp_path / "bad.jsonl", events)
        with pytest.raises(TapeError) as error:
            tune(SLOW, [path], 2, 1, tmp_path / "j", **options)
        return str(error.value)

    events = history(700)
    signals = [event for event in events if not isinstance(event, Close)]
    assert "0 closes of signals in it, at least 500" in refusal(signals)
    assert "100 closes of signals in it, at least 500" in refusal(history(100))
    assert "--holdout 0.1 leaves" in refusal(events, holdout=0.1)
    lost = [
        Close(signal_id=event.signal_id, ts=event.ts, return_pct=-1.0)
        if isinstance(event, Close)
        else event
        for event in events
    ]
    assert "in the first part is a loss" in refusal(lost)


def test_blocks_cover_the_counted_part_without_gaps():
    ends = first_part([], 1_000).ends
    assert (ends[0], ends[-1]) == (100, 1_000)
    assert np.ptp(np.diff(ends)) <= 1
