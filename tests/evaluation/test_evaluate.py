"""`closeloop evaluate`: what it claims holds, and where there is nothing it claims nothing."""

import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.config import ConfigError
from engine.core import Core
from engine.evaluation import plots
from engine.evaluation.bootstrap import holm
from engine.evaluation.evaluate import Evaluation, Plan, evaluate
from engine.evaluation.evaluate_figures import figures
from engine.evaluation.evaluate_tables import findings, summary
from engine.evaluation.judgement import baseline_of
from engine.evaluation.prequential import running_base_rate
from engine.evaluation.slices import FEWEST, FEWEST_TAKEN, KINDS, sliced, years
from engine.fitting import InlineFitter
from engine.report import log_loss
from streams import Tape, TapeError, encode
from tests.engine.conftest import Command
from tests.engine.histories import QUICK, close, history, signal

SETTINGS = """
[core.refit]
enabled = false
[core.experts.base_rate]
kind = "base_rate"
[core.experts.logistic]
kind = "logistic"
"""
SIGNALS = 1_000
FAST = Plan(resamples=100)


def new_core() -> Core:
    return Core(QUICK, InlineFitter())


def write(path: Path, *events: object) -> Path:
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return path


def noise(signals: int, seed: int) -> list[object]:
    """Signals whose features say nothing about what comes."""
    rng = random.Random(seed)
    events: list[object] = []
    for i in range(signals):
        features = {"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)}
        events.append(signal(f"s{i}", 2 * i, features=features, strategy=rng.choice("xyz")))
        if i:
            events.append(close(f"s{i - 1}", 2 * i + 1, rng.gauss(0, 1)))
    return events


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tape") / "t.jsonl", *history(SIGNALS))


@pytest.fixture(scope="module")
def found(tape: Path) -> Evaluation:
    return evaluate(new_core, Tape(tape), FAST)


def test_an_edge_is_found_and_claimed(found: Evaluation):
    said = summary(found)
    assert "published is better than the base rate" in said
    assert "taken is better than offered" in said
    advantage = found.prequential.scores["taken_minus_offered"]["mean_return_pct"]
    outcomes = found.prequential.outcomes
    expected = outcomes.return_pct[outcomes.taken].mean() - outcomes.return_pct.mean()
    assert advantage.value == pytest.approx(expected)
    assert found.forward is not None
    pooled = found.forward.scores["taken_minus_offered"]["mean_return_pct"]
    assert pooled.interval is not None and pooled.interval[0] > 0.0


def test_on_noise_nothing_is_claimed(tmp_path: Path):
    # One such tape in twenty seems to say something; that the intervals hold the truth as often as
    # they say is tested where they are made.
    tape = write(tmp_path / "noise.jsonl", *noise(1_000, 5))
    said = summary(evaluate(new_core, Tape(tape), replace(FAST, walk_forward=False)))
    assert "better" not in said
    assert "Mean return: taken can't be told from offered." in said
    assert said.endswith("corrected for all looks: in none.")


def test_the_first_tenth_is_not_judged(found: Evaluation):
    outcomes = found.run.outcomes
    assert found.warm_up == SIGNALS // 10
    judged = found.prequential.outcomes
    assert judged.signal_id.tolist() == outcomes.signal_id[found.warm_up :].tolist()
    expected = log_loss(running_base_rate(outcomes)[found.warm_up :], judged.won)
    assert found.prequential.scores["base_rate"]["log_loss"].value == pytest.approx(expected)


def test_figures_lie_in_their_intervals(found: Evaluation):
    for name, those in found.prequential.scores.items():
        for score, figure in those.items():
            # Only the largest of a resampled sum may well lie beyond: a drawdown isn't a mean.
            if figure.interval is not None and "drawdown" not in score:
                assert figure.interval[0] <= figure.value <= figure.interval[1], (name, score)
    log_losses = found.prequential.scores
    assert log_losses["difference"]["log_loss"].value == pytest.approx(
        log_losses["published"]["log_loss"].value - log_losses["base_rate"]["log_loss"].value
    )


def test_windows_are_sized_by_the_tape_when_not_told(found: Evaluation):
    assert (found.plan.train, found.plan.step) == (SIGNALS // 4, SIGNALS // 8)
    assert len(found.windows) == 6


def test_the_bots_own_rules_are_judged_beside(found: Evaluation):
    judged = found.prequential
    said = judged.outcomes.baseline
    assert set(said) == {"take", "skip", ""}
    assert judged.baseline is not None
    assert np.array_equal(judged.baseline, said != "skip")
    other = baseline_of(judged.outcomes, "skip")
    assert other is not None and np.array_equal(other, said == "take")
    mean = judged.outcomes.return_pct[judged.baseline].mean()
    assert judged.scores["baseline"]["mean_return_pct"].value == pytest.approx(mean)
    assert "taken_minus_baseline" in judged.scores


def test_slices_are_of_every_kind_that_divides_the_closes(found: Evaluation):
    kinds = {each.kind for each in found.slices}
    # One strategy and one year divide nothing.
    assert kinds >= {"symbol", "side", "session"}
    assert kinds <= set(KINDS) - {"strategy", "year"}
    for kind in kinds:
        chosen = [each for each in found.slices if each.kind == kind]
        assert all(each.closes >= FEWEST for each in chosen)
        assert [each.closes for each in chosen] == sorted((e.closes for e in chosen), reverse=True)
    symbols = {each.name: each for each in found.slices if each.kind == "symbol"}
    outcomes = found.prequential.outcomes
    rows = outcomes.symbol == "XAUUSD"
    gold = symbols["XAUUSD"]
    assert (gold.closes, gold.taken) == (rows.sum(), (rows & outcomes.taken).sum())
    expected = outcomes.return_pct[rows & outcomes.taken].mean()
    assert gold.taken_return.value == pytest.approx(expected)
    assert gold.scores["taken"]["mean_return_pct"] == pytest.approx(expected)
    offered = outcomes.return_pct[rows].mean()
    assert gold.offered_return.value == pytest.approx(offered)
    assert gold.advantage.value == pytest.approx(expected - offered)
    ours, theirs = gold.scores["published"]["log_loss"], gold.scores["base_rate"]["log_loss"]
    assert gold.log_loss_gain.value == pytest.approx(ours - theirs)
    assert gold.scores["published"]["log_loss"] == pytest.approx(
        log_loss(outcomes.probability[rows], outcomes.won[rows])
    )


def test_all_looks_at_slices_are_corrected_together(found: Evaluation):
    looks = [each.log_loss_gain.p for each in found.slices]
    looks += [each.advantage.p for each in found.slices]
    corrected = [each.log_loss_gain_p for each in found.slices]
    corrected += [each.advantage_p for each in found.slices]
    assert corrected == pytest.approx(holm(looks))
    assert len([p for p in looks if p is not None]) > 5


def test_a_slice_with_few_taken_claims_nothing(found: Evaluation):
    outcomes = found.prequential.outcomes
    action = outcomes.action.copy()
    gold_taken = np.flatnonzero((outcomes.symbol == "XAUUSD") & outcomes.taken)
    action[gold_taken[FEWEST_TAKEN - 1 :]] = "skip"
    looked = sliced(replace(outcomes, action=action), found.prequential.base_rate, None, 5.0, 50)
    slices = {each.name: each for each in looked if each.kind == "symbol"}
    gold = slices["XAUUSD"]
    assert gold.taken == FEWEST_TAKEN - 1
    assert gold.advantage.value is not None
    assert gold.advantage.interval is None and gold.advantage_p is None
    assert slices["EURUSD"].advantage_p is not None


def test_years_are_calendar_years():
    assert years(np.array([0.0, 1_577_836_799.0, 1_577_836_800.0])).tolist() == [
        "1970", "2019", "2020",
    ]  # fmt: skip


def test_the_same_tape_and_seed_give_the_same_figures(tape: Path):
    plan = replace(FAST, limit=600, train=100, step=100)
    once, again = (figures(evaluate(new_core, Tape(tape), plan)) for _ in range(2))
    assert once == again
    other = evaluate(new_core, Tape(tape), replace(plan, seed=1, walk_forward=False))
    assert other.forward is None and other.windows == []
    assert figures(other)["decisions_digest"] == once["decisions_digest"]
    assert figures(other)["prequential"] != once["prequential"]


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for each in value.values():
            yield from numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, float):
        yield value


def test_no_figure_is_a_nan(found: Evaluation):
    assert all(math.isfinite(number) for number in numbers(figures(found)))


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([signal("a"), close("a")], id="one close"),
        pytest.param(
            [
                event
                for i in range(60)
                for event in (signal(f"s{i}", 2 * i), close(f"s{i}", 2 * i + 1, 1.0))
            ],
            id="wins alone",
        ),
        pytest.param(
            [
                event
                for i in range(60)
                for event in (
                    signal(f"s{i}", 2 * i, baseline="skip"),
                    close(f"s{i}", 2 * i + 1, 1.0 - 2 * (i % 2), executed=False),
                )
            ],
            id="all on paper, all skipped",
        ),
    ],
)
def test_a_tape_that_says_little_has_few_figures_and_a_page(events: list[object], tmp_path: Path):
    few = findings(evaluate(new_core, Tape(write(tmp_path / "t.jsonl", *events)), FAST), "few")
    assert all(math.isfinite(number) for number in numbers(few.figures))
    shown = [str(cell) for part in few.parts for row in getattr(part, "rows", ()) for cell in row]
    assert not [cell for cell in shown if "nan" in cell or "inf" in cell]
    assert "is better than offered" not in few.summary


def test_a_tape_without_closes_is_told(tmp_path: Path):
    tape = Tape(write(tmp_path / "t.jsonl", signal("a"), close("b", 1)))
    with pytest.raises(TapeError, match="no close to judge: the tape has 1 signals and 1 closes"):
        evaluate(new_core, tape, FAST)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(train=980, step=60), "the tape has 1,000 closes, and one window needs 1,010"),
        (Plan(step=50, embargo=50), "embargo 50: nothing is left"),
    ],
)
def test_windows_that_do_not_fit_are_told(tape: Path, plan: Plan, words: str):
    with pytest.raises(ConfigError, match=words):
        evaluate(new_core, Tape(tape), plan)


def test_long_series_are_thinned_to_their_ends():
    assert plots.thinned(5).tolist() == [0, 1, 2, 3, 4]
    rows = plots.thinned(100_000)
    assert len(rows) == plots.MOST_POINTS and (rows[0], rows[-1]) == (0, 99_999)


# The command


def test_the_command_writes_tables_json_and_a_page(closeloop: Command, tape: Path, tmp_path: Path):
    (tmp_path / "closeloop.toml").write_text(SETTINGS)
    ran = closeloop("evaluate", tape, "--html", "page.html", "--resamples", 100)
    assert ran.status == 0 and ran.err == ""
    assert max(map(len, ran.out.splitlines())) <= 80
    for words in ("By symbol", "By session", "Walk-forward", "doubly robust", "max. drawdown"):
        assert words in ran.out
    assert "baseline" in ran.out
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 5 and len(page) < 2_000_000
    assert not re.search(r'<(script|link|img|iframe)\b|@import|(?:src|href)="https?:', page)
    for title in ("Reliability", "ROC", "Cumulative return", "Weights", "Slices"):
        assert title in page


def test_the_command_takes_window_sizes_and_a_limit(closeloop: Command, tape: Path, tmp_path: Path):
    (tmp_path / "closeloop.toml").write_text(SETTINGS)
    options = ("--train", 200, "--step", 100, "--embargo", 10, "--limit", 800)
    walked = closeloop("evaluate", tape, "--json", "--resamples", 100, *options).json
    forward = walked["walk_forward"]
    assert (forward["train"], forward["step"], forward["embargo"]) == (200, 100, 10)
    assert walked["closes"] < 400
    assert [each["embargoed"] for each in forward["windows"]] == [10, 10]


def test_the_command_names_what_is_wrong(closeloop: Command, tape: Path):
    Path("empty.jsonl").write_text("")
    empty = closeloop("evaluate", "empty.jsonl")
    assert empty.status == 4 and "no close to judge" in empty.err
    assert len(empty.err.splitlines()) == 1
    missing = closeloop("evaluate", "none.jsonl")
    assert missing.status == 4 and "none.jsonl" in missing.err
    nowhere = closeloop("evaluate", tape, "--html", "nowhere/page.html")
    assert nowhere.status == 2 and "there is no folder" in nowhere.err
    folder = closeloop("evaluate", tape, "--html", ".")
    assert folder.status == 2 and "--html .: can't be written" in folder.err
