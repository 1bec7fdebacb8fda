"""`closeloop features`: it finds what tells, claims nothing of noise, drops only what it may."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from engine.core_config import CoreConfig, RefitConfig
from engine.evaluation.bootstrap import Estimate
from engine.evaluation.feature_groups import ENGINES, Pair, clusters, groups, redundant_pairs
from engine.evaluation.feature_rows import Table, features_of, read_table
from engine.evaluation.feature_windows import fit_windows, rises, without
from engine.evaluation.features import Analysis, analyse, beyond_chance
from engine.evaluation.features_findings import figures, findings, verdict
from engine.evaluation.pages import print_findings
from learners import FeatureEncoder, RefitParams
from learners.refit import split
from streams import Close, Signal, TapeError, encode
from tests.engine.conftest import Command
from tests.engine.histories import at, history

CONFIG = CoreConfig(
    refit=RefitConfig(window=1_500, params=RefitParams(rounds=20, min_data_in_leaf=20))
)
SIGNALS = 3_000
Features = dict[str, float | bool | str | None]


def write(path: Path, events: list[Signal | Close]) -> Path:
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return path


def made(
    path: Path, signals: int, truth: Callable[[np.random.Generator], tuple[Features, bool]]
) -> Path:
    """A tape of signals a minute apart, closed five minutes later."""
    rng = np.random.default_rng(5)
    events: list[Signal | Close] = []
    won: dict[int, bool] = {}
    for i in range(signals + 5):
        if i >= 5:
            value = 1.0 if won[i - 5] else -1.0
            events.append(Close(signal_id=f"s{i - 5}", ts=at(i), return_pct=value))
        if i < signals:
            features, won[i] = truth(rng)
            events.append(
                Signal(signal_id=f"s{i}", ts=at(i), symbol="S", side="long", features=features)
            )
    return write(path, events)


def planted(rng: np.random.Generator) -> tuple[Features, bool]:
    edge = rng.normal()
    features: Features = {
        "edge": edge,
        "copy": 2.0 * edge + 1.0,
        "still": 3.0,
        "mood": str(rng.choice(["up", "down", "flat"])),
        "noise_1": rng.normal(),
        "noise_2": rng.normal(),
    }
    return features, bool(edge + 0.7 * rng.normal() + 0.8 * (features["mood"] == "up") > 0)


def nothing(rng: np.random.Generator) -> tuple[Features, bool]:
    return {f"x{i}": rng.normal() for i in range(8)}, bool(rng.random() < 0.5)


def nearly_twins(rng: np.random.Generator) -> tuple[Features, bool]:
    level, gap = rng.normal(), 0.2 * rng.normal()
    return {"high": level + gap, "low": level, "volume": rng.normal()}, bool(gap > 0)


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("tape") / "t.jsonl", SIGNALS, planted)


@pytest.fixture(scope="module")
def table(tape: Path) -> Table:
    return read_table([tape], CONFIG, lambda done: None)


@pytest.fixture(scope="module")
def analysis(tape: Path) -> Analysis:
    return analyse([tape], CONFIG, windows=8)


# Features and their columns


def test_all_columns_of_a_category_are_one_feature_whatever_bots_call_it():
    encoder = FeatureEncoder()
    features: Features = {"a=b": "x=1", "@mine": 1.0, "c\\d": "@", "plain": True}
    for value in ("x=1", "y\\"):
        encoder.encode(at(0), "EURUSD", "long", "orb", features | {"a=b": value}, [0.0] * 5)
    found = features_of(encoder.names)
    width = {name: len(columns) for name, columns in found.items()}
    bots = {name: count for name, count in width.items() if not name.startswith("@")}
    assert bots == {"a=b": 2, "\\@mine": 1, "c\\d": 1, "plain": 1}
    assert width["@symbol"] == width["@strategy"] == 1
    assert sorted(np.concatenate(list(found.values()))) == list(range(len(encoder.names)))


def test_features_of_one_family_are_left_out_together_and_lone_families_one_by_one(table):
    assert groups(table, []) == {
        "edge": ["edge"],
        "copy": ["copy"],
        "still": ["still"],
        "mood": ["mood"],
        "noise": ["noise_1", "noise_2"],
        ENGINES: [name for name in table.features if name.startswith("@")],
    }
    alone = Table(table.view, {name: table.features[name] for name in ("noise_1", "noise_2")})
    assert groups(alone, []) == {"noise_1": ["noise_1"], "noise_2": ["noise_2"], ENGINES: []}


def test_features_that_say_the_same_are_found_and_join_a_group(table):
    pairs = [pair for pair in redundant_pairs(table) if not pair.one.startswith("@")]
    assert [(pair.one, pair.other) for pair in pairs] == [("edge", "copy")]
    assert pairs[0].rho == pytest.approx(1.0)
    assert groups(table, pairs)["edge ~ copy"] == ["edge", "copy"]


def test_redundancy_links_over_others():
    pairs = [Pair("a", "b", 1.0), Pair("c", "d", -0.95), Pair("b", "e", 0.91)]
    assert clusters(pairs) == [["a", "b", "e"], ["c", "d"]]
    assert clusters([]) == []


# Windows


def test_no_trade_that_trains_a_window_was_open_when_one_that_judges_it_began(table):
    windows = fit_windows(table, CONFIG.refit, 1, 8, lambda done: None)
    closes = 0
    for window in windows:
        train, held = split(window.job)
        assert list(held) == list(window.held)
        assert window.job.closed[train].max() < window.job.opened[held].min()
        closes += len(held)
    assert len(windows) == 8
    assert windows[-1].job.closed[-1] == table.view.closed[-1]
    assert closes > 0.6 * len(table.view.won)


def test_what_comes_later_changes_no_earlier_window(table):
    view = table.view
    late = np.arange(len(view.won)) >= len(view.won) - 200
    other = replace(table, view=replace(view, won=np.where(late, ~view.won, view.won)))
    before, after = (
        fit_windows(each, CONFIG.refit, 1, 8, lambda done: None) for each in (table, other)
    )
    for one, two in zip(before[:-1], after[:-1], strict=True):
        assert one.text == two.text and list(one.losses) == list(two.losses)
    assert list(before[-1].losses) != list(after[-1].losses)


def test_permuting_a_feature_that_the_model_does_not_use_changes_nothing(table):
    window = fit_windows(table, CONFIG.refit, 1, 3, lambda done: None)[0]
    found = dict(zip(table.features, rises(window, table.features, 1).T, strict=True))
    assert not found["still"].any()
    assert found["edge"].mean() > 0.01 or found["copy"].mean() > 0.01


def test_the_columns_of_a_feature_are_permuted_as_one(table):
    window = fit_windows(table, CONFIG.refit, 1, 3, lambda done: None)[-1]
    edge, copy = table.features["edge"], table.features["copy"]
    features = {"edge": edge, "copy": copy, "both": np.concatenate([edge, copy])}
    one, other, both = rises(window, features, 1).mean(axis=0)
    assert both > 1.3 * max(one, other)


def test_leaving_out_everything_leaves_the_base_rate(table):
    windows = fit_windows(table, CONFIG.refit, 1, 3, lambda done: None)
    every = np.arange(table.view.rows.shape[1])
    base = np.concatenate([window.base_rate for window in windows])
    assert list(without(windows, every)) == list(base)


# What is found


def test_features_that_tell_are_told_from_noise(analysis):
    sure = {name for name, importance in analysis.importances.items() if importance.sure}
    assert "mood" in sure and sure & {"edge", "copy"}
    assert sure <= {"mood", "edge", "copy"}
    assert analysis.behind.high < 0
    assert next(iter(analysis.importances)) in ("edge", "copy")
    assert analysis.without["edge ~ copy"].low > 0.01
    # Its copy stands in for it.
    assert analysis.without["edge"].value < analysis.without["edge ~ copy"].value / 3
    assert beyond_chance(analysis.without) == {"edge ~ copy", "mood"}


def test_of_two_that_say_the_same_one_is_dropped_and_dropping_does_no_harm(analysis):
    dropped = {one.feature: one.why for one in analysis.drop.chosen}
    assert dropped["still"] == "never changes"
    assert len({"edge", "copy"} & dropped.keys()) <= 1
    assert "mood" not in dropped
    assert not analysis.drop.harms
    assert "Dropping still" in verdict(analysis)


def test_features_that_nearly_agree_are_kept_when_their_difference_tells(tmp_path):
    tape = made(tmp_path / "twins.jsonl", 2_000, nearly_twins)
    found = analyse([tape], CONFIG, windows=6)
    assert ("high", "low") in [(pair.one, pair.other) for pair in found.pairs]
    assert not {"high", "low"} & {one.feature for one in found.drop.chosen}


def test_what_judges_the_dropping_has_no_part_in_the_choice(tape, tmp_path):
    lines = tape.read_bytes().splitlines()
    border = len(lines) * 41 // 50  # four of six windows end at four fifths
    late = [
        line.replace(b'"return_pct":-1.0', b'"return_pct":9.0')
        if i % 3
        else line.replace(b'"return_pct":1.0', b'"return_pct":-9.0')
        for i, line in enumerate(lines)
    ]
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"\n".join(lines[:border] + late[border:]))
    one, two = (analyse([each], CONFIG, windows=6).drop for each in (tape, other))
    assert one.proposed == two.proposed and one.chosen == two.chosen
    assert abs(two.kept_loss - one.kept_loss) > 0.05


def test_nothing_is_claimed_of_noise(tmp_path):
    tape = made(tmp_path / "noise.jsonl", 2_000, nothing)
    found = analyse([tape], CONFIG, windows=6)
    assert not any(importance.sure for importance in found.importances.values())
    assert "No feature is of use beyond chance" in verdict(found)
    assert found.behind.high > 0


def test_the_same_seed_gives_the_same_figures(tape):
    one, two = (figures(analyse([tape], CONFIG, windows=3)) for _ in range(2))
    assert one == two


def test_the_advice_follows_the_interval(analysis):
    def said(low: float, high: float) -> tuple[str, object]:
        drop = replace(analysis.drop, difference=Estimate((low + high) / 2, low, high))
        found = figures(replace(analysis, drop=drop))
        return found["verdict"], found["drop"]["advised"]

    assert said(0.001, 0.003)[0].endswith("that harms, keep them.")
    assert said(-0.003, -0.001)[0].endswith("that helps.")
    assert said(-0.001, 0.001)[0].endswith("no difference beyond chance.")
    assert [said(*ends)[1] for ends in ((0.1, 0.3), (-0.1, 0.3), (-0.3, -0.1))] == [
        False, True, True,
    ]  # fmt: skip
    none = replace(analysis, drop=replace(analysis.drop, chosen=[]))
    assert verdict(none).endswith("There is nothing to drop.")


def test_the_tables_fit_a_screen_of_80_columns(analysis, capsys):
    print_findings(findings(analysis), Console(width=80))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


# The command, and tapes that tell nothing


def test_the_command_prints_figures_and_writes_a_page(closeloop: Command, tape: Path, tmp_path):
    (tmp_path / "closeloop.toml").write_text("[core.refit]\nwindow = 1000\n")
    ran = closeloop("features", tape, "--windows", 3, "--json", "--html", "page.html")
    assert ran.status == 0
    assert ran.json["windows"] == 3
    assert set(ran.json["drop"]) >= {"features", "difference", "advised"}
    assert (tmp_path / "page.html").read_text().count("<svg") == 2


@pytest.mark.parametrize("case", ["no closes", "few", "wins only"])
def test_a_tape_that_tells_nothing_is_refused_with_the_mend(tmp_path, case):
    events = history(1_200) if case == "wins only" else history(200)
    if case == "no closes":
        events = [event for event in events if isinstance(event, Signal)]
    if case == "wins only":
        events = [
            msgspec.structs.replace(event, return_pct=1.0) if isinstance(event, Close) else event
            for event in events
        ]
    with pytest.raises(TapeError) as error:
        analyse([write(tmp_path / "t.jsonl", events)], CONFIG, windows=3)
    assert {
        "no closes": "none of its 200 signals has a close (0 closes, 0 lines",
        "few": "200 closes of signals in the tapes, at least 1,000 are needed",
        "wins only": "to train on is a win. Check return_pct",
    }[case] in str(error.value)
