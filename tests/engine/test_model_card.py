"""The model card: every figure is on record, and nothing that was typed breaks out of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from engine.champions import CHAMPION
from engine.config import Config
from engine.core import Core
from engine.model_card import Surroundings, card, markdown
from engine.model_parts import feature_kinds, shown
from engine.model_quality import judged, share_interval, sliced
from engine.models_log import History, UnknownModel, reconstruct
from engine.models_reading import Served, served
from learners import FeatureEncoder
from streams import Decision, ModelChange, Outcome, connect
from tests.engine.conftest import Command
from tests.engine.histories import entries, history, new_core, run
from tests.engine.test_models_log import BACK, FIRST, FORCED, SECOND, TURNED_AWAY, A, B, C, D, of
from tests.engine.test_worker import Shard

CONFIG = Config()
MEMORY = "memory://a-card"


@pytest.fixture(scope="module")
def core() -> Core:
    return new_core()


@pytest.fixture(scope="module")
def outputs(core: Core) -> list[object]:
    """What the engine made of a day with five refits."""
    return list(run(core, entries(*history(330))))


@pytest.fixture(scope="module")
def told(outputs: list[object]) -> History:
    found = [output for output in outputs if isinstance(output, ModelChange)]
    return reconstruct((f"{number}-0", each) for number, each in enumerate(found, 1))


def outcomes_of(outputs: list[object], model: str) -> list[Outcome]:
    """Those of the signals that were decided while a model was champion."""
    decided = {
        o.signal_id for o in outputs if isinstance(o, Decision) and o.model.champion == model
    }
    return [o for o in outputs if isinstance(o, Outcome) and o.signal_id in decided]


def around(outcomes: list[Outcome], **given: object) -> Surroundings:
    told = {"config": CONFIG, "view": None, "served": Served(outcomes, True), "drifts": {}}
    return Surroundings(**told | given)


def text_of(told: History, model: str, outcomes: list[Outcome], **given: object) -> str:
    return markdown(card(told, model, around(outcomes, **given)))


def test_the_card_has_the_headings_of_the_field(told, outputs):
    text = text_of(told, B, outcomes_of(outputs, B))
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "Overview", "Intended use", "Training data", "Training", "Gate",
        "Metrics on closes held out", "As champion", "Metrics as champion, by slice", "Limits",
        "How to operate", "History",
    ]  # fmt: skip


def test_the_same_records_make_the_same_card(told, outputs):
    outcomes = outcomes_of(outputs, B)
    assert text_of(told, B, outcomes) == text_of(told, B, outcomes)


def test_what_the_refit_recorded_stands_in_the_card(told, outputs):
    text = text_of(told, B, outcomes_of(outputs, B))
    facts = told.facts_of(B)
    for value in (*facts.metrics.values(), *facts.champion_metrics.values()):
        assert shown(value) in text
    for name, value in facts.params.items():
        assert f"| {name} | {shown(value)} |" in text
    assert f"| closes trained on | {facts.trained_on} |" in text
    assert str(told[B].digest) in text
    assert "| lineage | refit-120 ← refit-60 |" in text


def test_an_unknown_model_has_no_card(told):
    with pytest.raises(UnknownModel):
        card(told, "refit-1", around([]))


# Metrics on the closes held out


def test_a_share_of_closes_has_wilsons_interval():
    # Brown, Cai and DasGupta (2001), equation 4, by hand: z = 1.6449 and 15 of 20.
    z, n, share = 1.6448536269514722, 20, 0.75
    middle = (15 + z * z / 2) / (n + z * z)
    half = z * n**0.5 / (n + z * z) * (share * (1 - share) + z * z / (4 * n)) ** 0.5
    assert share_interval(0.75, 20) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_only_closes_that_the_defender_had_not_seen_count_as_judges():
    first, second = of(*FIRST, *SECOND)[A], SECOND[0]
    assert first.facts is not None
    assert second.facts is not None
    # Twenty are held out, but the defender was fitted on all but the newest fifteen.
    close_behind = replace(second, facts=replace(second.facts, launched=first.facts.launched + 15))
    assert judged(of(*FIRST, second), B).closes == 20
    assert judged(of(*FIRST, close_behind), B).closes == 15
    assert judged(of(second), B).closes is None  # the defender's own record was trimmed


def test_a_metric_without_an_interval_says_why(told):
    found = judged(told, B)
    assert found is not None
    for metric in found.metrics:
        assert (metric.interval is None) == bool(metric.why_not)
    assert [m.name for m in found.metrics if m.interval] == ["accuracy"]


# As champion


def test_slices_are_of_the_models_own_probability_and_add_up(outputs):
    outcomes = outcomes_of(outputs, B)
    found = sliced(outcomes)
    own = np.array([o.experts[CHAMPION] for o in outcomes])
    won = np.array([o.won for o in outcomes])
    assert found[0].closes == len(outcomes) > 150
    assert found[0].log_loss == pytest.approx(-np.log(np.where(won, own, 1 - own)).mean())
    assert found[0].win_rate == won.mean()
    for kind in ("symbol", "side", "regime"):
        assert sum(s.closes for s in found if s.kind == kind) == len(outcomes)
        assert sum(s.taken for s in found if s.kind == kind) == found[0].taken
    assert not any(s.kind == "strategy" for s in found)  # one alone divides nothing


def test_intervals_hold_what_they_are_about_and_shrink_with_closes(outputs):
    whole, *parts = sliced(outcomes_of(outputs, B))
    low, high = whole.win_rate_interval
    assert low < whole.win_rate < high
    assert 0.05 < high - low < 0.2  # of n closes about 1.645 / sqrt(n) = 0.12
    largest = max((p for p in parts if p.win_rate_interval), key=lambda p: p.closes)
    assert largest.win_rate_interval[1] - largest.win_rate_interval[0] > high - low
    assert all(p.win_rate_interval is None for p in parts if p.closes < 20)


def test_a_trade_left_to_the_baseline_counts_by_what_the_model_would_have_done(outputs):
    outcomes = outcomes_of(outputs, B)
    left = [replace(o, action="skip", arm="baseline", mode="shadow", advised="take")
            for o in outcomes]  # fmt: skip
    refused = [replace(o, action="take", arm="baseline", mode="shadow", advised="skip")
               for o in outcomes]  # fmt: skip
    assert sliced(left)[0].taken == len(outcomes)
    assert sliced(refused)[0].taken == 0
    assert sliced(refused)[0].return_pct is None


def test_without_the_extra_the_card_says_what_is_left_out(told, outputs, monkeypatch):
    outcomes = outcomes_of(outputs, B)
    with_it = text_of(told, B, outcomes)
    monkeypatch.setitem(sys.modules, "arch", None)
    without = text_of(told, B, outcomes)
    assert "by a stationary bootstrap" in with_it
    assert 'they need the extra `evaluate` (pip install "closeloop[evaluate]")' in (
        without.replace("\\", "")
    )
    assert f"| all | {len(outcomes)} |" in with_it
    assert f"| all | {len(outcomes)} |" in without
    assert sliced(outcomes)[0].win_rate_interval is None


def test_a_model_that_was_never_champion_says_so():
    text = text_of(of(*FIRST, *TURNED_AWAY), C, [])
    assert "It has never been champion." in text
    assert "No signal that it decided as champion has closed." in text


def test_figures_that_do_not_reach_back_to_the_first_say_so(told, outputs):
    outcomes = outcomes_of(outputs, B)
    assert "as far as the streams" not in text_of(told, B, outcomes)
    trimmed = text_of(told, B, outcomes, served=Served(outcomes[100:], False))
    assert f"the newest {len(outcomes) - 100}, as far as the streams reach back" in trimmed


def test_drift_while_it_was_champion_is_among_its_limits(told):
    assert "| drift alarms while champion | none |" in text_of(told, B, [])
    drifted = text_of(told, B, [], drifts={"mixture": 2, "rsi": 1})
    assert "| drift alarms while champion | mixture 2, rsi 1 |" in drifted


# Standing and commands


def test_a_forced_model_says_so_for_ever():
    text = text_of(of(*FIRST, *FORCED, *SECOND), D, [])
    assert "It was forced in: the gate had refused it." in text
    assert "installed, forced" in text


@pytest.mark.parametrize(
    ("view", "command", "said"),
    [
        ({"models": {"champion": A, "kept": [A, B]}}, f"promote {B} ", None),
        ({"models": {"champion": A, "kept": [A]}}, None, "It is not kept any more"),
        (None, f"promote {B} ", "no worker has said so lately"),
        # The view may lag behind the stream.
        ({"models": {"champion": B, "kept": []}}, f"promote {B} ", "no worker has said so lately"),
    ],
)
def test_commands_name_the_model_and_only_what_can_be_done(view, command, said):
    text = text_of(of(*FIRST, *SECOND, BACK), B, [], view=view)
    assert (f"`closeloop models promote {B} --reason WHY`" in text) == (command is not None)
    assert (said or "How to operate") in text


def test_a_champion_is_kept_whatever_an_older_view_says():
    view = {"models": {"champion": B, "kept": []}}
    text = text_of(of(*FIRST, *SECOND), B, [], view=view)
    assert f"`closeloop models pin {B} --reason WHY`" in text
    assert "`closeloop models rollback --reason WHY`" in text


def test_what_the_gate_refused_is_promoted_by_force():
    text = text_of(of(*FIRST, *TURNED_AWAY), C, [])
    assert f"`closeloop models promote {C} --force --reason WHY`" in text


def test_nothing_that_somebody_typed_breaks_out_of_its_cell(told, tmp_path):
    typed = "a | b\n\n# heading <script>alert(1)</script> [link](http://x) `code` \x1b[31m"
    evil = replace(BACK, reason=typed, by=typed)
    text = text_of(of(*FIRST, *SECOND, evil), A, [])
    row = next(line for line in text.splitlines() if line.startswith("| 2026") and "rolled" in line)
    assert row.replace("\\|", "").count("|") == 6
    assert "\\<script\\>" in row
    assert "\\[link\\]" in row
    assert "<script>" not in text
    assert "\x1b" not in text
    assert not any(line.startswith("# heading") for line in text.splitlines())


# Features


def test_columns_are_told_apart_whatever_bots_call_their_features():
    encoder = FeatureEncoder()
    features = {"rsi": 1.0, "a=b": 2.0, "@hour": True, "session": "x=y", "s@": "a\\b", "s2": "@o"}
    moment = history(1)[0].ts
    encoder.encode(moment, "EUR=USD", "long", "@best", features, [0.0] * 5, "calm")
    found = feature_kinds(encoder.names)
    assert len(found.own) == 9
    assert found.numbers == ["rsi", "a=b", "@hour"]
    assert found.categories == {"session": ["x=y"], "s@": ["a\\b"], "s2": ["@o"]}
    assert found.seen == {
        "symbol": ["EUR=USD"], "strategy": ["@best"], "side": ["long"], "regime": ["calm"],
    }  # fmt: skip


# By the command


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory, outputs: list[object]) -> Iterator[Shard]:
    """A shard whose streams hold what the engine made of that day."""
    with connect(MEMORY) as connection:
        found = Shard(connection, tmp_path_factory.mktemp("card"))
        worker = found.worker()
        pipeline = connection.redis.pipeline(transaction=False)
        for number, output in enumerate(outputs, 1):
            key, _, data = worker._address(output, "")
            pipeline.xadd(key, {"e": data}, id=f"{number}-0")
        pipeline.execute()
        yield found


def test_what_a_model_decided_is_found_in_the_streams(shard, told, outputs):
    for model in (A, B):
        found = served(shard.connection, shard.keys, told[model], 1_000)
        assert found == Served(outcomes_of(outputs, model), True)
    newest = served(shard.connection, shard.keys, told[B], 50)
    assert newest == Served(outcomes_of(outputs, B)[-50:], False)


def test_the_command_writes_the_card(closeloop: Command, shard: Shard, told, outputs):
    ran = closeloop("models", "card", B, "--address", MEMORY)
    assert ran.status == 0, ran.err
    assert ran.out.rstrip() == text_of(told, B, outcomes_of(outputs, B)).rstrip()
    assert closeloop("models", "card", B, "--out", "card.md", "--address", MEMORY).out == ""
    assert Path("card.md").read_text() == ran.out.removesuffix("\n")


def test_the_page_holds_all_it_shows(closeloop: Command, shard: Shard):
    ran = closeloop("models", "card", B, "--out", "card.html", "--address", MEMORY)
    assert ran.status == 0, ran.err
    page = Path("card.html").read_text()
    assert f"<h1>Model card: {B}</h1>" in page
    assert "<h2>Metrics as champion, by slice</h2>" in page
    assert "http" not in page
