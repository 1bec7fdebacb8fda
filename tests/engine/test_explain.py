"""Explanations: taken from the exact state before the signal, and adding up to what was decided."""

import math

import numpy as np
import pytest

from engine.config import WorkerConfig
from engine.core import Core
from engine.core_config import ExpertConfig
from engine.explain import ExplainError, Explanation, explain
from engine.recovery import RecoveryError
from engine.stretch import Stretches
from learners.booster import Scorer
from learners.calibration import NAMES
from learners.forest import AdaptiveRandomForest
from learners.forest_paths import by_column, paths
from learners.linear import Logistic
from snapshots import state_digest
from streams import Connection, Decision, Entry, encode
from tests.engine.conftest import Command
from tests.engine.histories import QUICK, close, entries, history, new_core, run, signal
from tests.engine.test_verify import HALF, half_way, serve
from tests.engine.test_worker import Shard

EVENTS = history(120)
STREAM = entries(*EVENTS)
KINDS = ("base_rate", "logistic", "bayes", "forest")
CONFIG = QUICK.model_copy(
    update={
        "experts": {
            kind: ExpertConfig(kind=kind, params={"n_models": 5} if kind == "forest" else {})
            for kind in KINDS
        }
    }
)


def before(signal_id: str) -> tuple[Core, Entry]:
    """The state before a signal, and its entry."""
    core = new_core(CONFIG)
    for entry in STREAM:
        if entry.event.type == "signal" and entry.event.signal_id == signal_id:
            return core, entry
        core.apply(entry)
    raise AssertionError(signal_id)


@pytest.fixture(scope="module")
def late() -> Explanation:
    """Of a signal late enough for all experts to have a say."""
    core, entry = before("s110")
    (decision,) = [
        o
        for o in run(new_core(CONFIG), STREAM)
        if o.__class__ is Decision and o.signal_id == "s110"
    ]
    return explain(core, entry, encode(decision))


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def test_the_decision_is_made_again_as_it_was_published(late: Explanation) -> None:
    assert late.as_published is True
    assert late.decision.probability == late.probability
    assert late.decision.model.update == late.closes


def test_a_decision_published_otherwise_is_noticed() -> None:
    core, entry = before("s20")
    assert explain(core, entry, b'{"type":"decision"}').as_published is False
    core, entry = before("s20")
    assert explain(core, entry).as_published is None


def test_explaining_leaves_the_state_that_applying_leaves() -> None:
    core, entry = before("s90")
    explain(core, entry)
    applied, entry = before("s90")
    applied.apply(entry)
    assert state_digest(core.state()) == state_digest(applied.state())


def test_the_mixture_is_the_experts_by_their_shares(late: Explanation) -> None:
    assert {expert.name for expert in late.experts} == {*KINDS, "lightgbm"}
    mean = sum(expert.share * expert.probability for expert in late.experts)
    assert mean == pytest.approx(late.mixed, abs=1e-12)
    assert sum(expert.share for expert in late.experts) == pytest.approx(1.0)


def test_what_was_decided_by_is_the_mixture_and_its_corrections_by_their_shares(
    late: Explanation,
) -> None:
    assert [one.name for one in late.calibration] == list(NAMES)
    assert late.calibration[0].probability == late.mixed
    mean = sum(one.share * one.probability for one in late.calibration)
    assert mean == pytest.approx(late.probability, abs=1e-12)
    assert sum(one.share for one in late.calibration) == pytest.approx(1.0)
    assert late.probability != late.mixed


def test_an_expert_that_abstains_has_no_share() -> None:
    found = explain(*before("s0"))
    abstaining = {e.name for e in found.experts if e.probability is None}
    assert abstaining == {"logistic", "bayes", "forest", "lightgbm"}
    assert [e.share for e in found.experts if e.name == "base_rate"] == [1.0]
    assert (found.terms, found.forests) == ({}, {})


def test_the_row_is_told_by_feature_with_what_is_missing(late: Explanation) -> None:
    given = next(e for e in EVENTS if e.type == "signal" and e.signal_id == "s110").features
    assert late.row["edge"] == given["edge"]
    assert late.row["noise"] == given["noise"]
    assert late.row[f"session={given['session']}"] == 1.0


@pytest.mark.parametrize("name", ["lightgbm", "logistic"])
def test_terms_add_up_to_the_experts_log_odds(late: Explanation, name: str) -> None:
    (expert,) = [expert for expert in late.experts if expert.name == name]
    terms = late.terms[name]
    total = terms.start + sum(terms.terms.values())
    assert total == pytest.approx(log_odds(expert.probability), abs=1e-9)
    assert terms.probability == pytest.approx(expert.probability, abs=1e-9)
    assert [abs(term) for term in terms.terms.values()] == sorted(
        (abs(term) for term in terms.terms.values()), reverse=True
    )


def test_the_champion_is_explained_on_the_row_that_it_is_asked_with() -> None:
    core, entry = before("s110")
    found = explain(core, entry)
    row = np.array([math.nan if x is None else x for x in found.row.values()])
    score = Scorer(core.model.panel["lightgbm"].text)(row)
    assert found.terms["lightgbm"].probability == pytest.approx(score, abs=1e-9)


def test_the_linear_experts_terms_sum_to_its_very_probability() -> None:
    rng = np.random.default_rng(1)
    model = Logistic()
    for _ in range(50):
        row = np.where(rng.random(4) < 0.1, np.nan, rng.normal(size=4))
        model.learn_row(row, bool(rng.random() < 0.5))
    for row in (rng.normal(size=4), np.array([1.0, np.nan]), rng.normal(size=9)):
        terms, intercept = model.terms(row)
        z = sum(terms) + intercept
        assert 1 / (1 + math.exp(-z)) == pytest.approx(model.predict_proba_row(row), abs=1e-15)
        assert len(terms) == min(len(row), 4)


# The forest's paths


def grown(seed: int = 3, closes: int = 400) -> tuple[AdaptiveRandomForest, np.random.Generator]:
    rng = np.random.default_rng(seed)
    forest = AdaptiveRandomForest(n_models=5, seed=seed, grace_period=20)
    for _ in range(closes):
        row = np.where(rng.random(4) < 0.1, np.nan, rng.normal(size=4))
        forest.learn_row(row, bool(row[0] > 0 or rng.random() < 0.2))
    return forest, rng


def test_paths_end_in_the_votes_that_the_forest_counts() -> None:
    forest, rng = grown()
    for _ in range(20):
        row = np.where(rng.random(4) < 0.2, np.nan, rng.normal(size=4))
        found = paths(forest.state(), row)
        mean = sum(path.weight * path.probability for path in found)
        voted, _ = forest.predict_with_votes(row)[1]
        assert mean == pytest.approx(voted, abs=1e-12)
        assert sum(path.weight for path in found) == pytest.approx(1.0)


def test_the_changes_on_a_path_lead_from_its_base_rate_to_its_vote() -> None:
    forest, rng = grown()
    row = rng.normal(size=4)
    found = paths(forest.state(), row)
    assert any(path.steps for path in found)
    for path in found:
        changes = sum(step.change for step in path.steps) + path.leaf_change
        assert path.base_rate + changes == pytest.approx(path.probability, abs=1e-12)
        for step in path.steps:
            assert step.went_left == (row[step.column] <= step.threshold)


def test_a_missing_value_is_said_to_be_missing() -> None:
    forest, _ = grown()
    steps = [step for path in paths(forest.state(), np.full(4, np.nan)) for step in path.steps]
    assert steps
    assert all(step.missing for step in steps)


def test_columns_are_ranked_by_how_often_they_are_on_the_paths() -> None:
    forest, rng = grown()
    found = paths(forest.state(), rng.normal(size=4))
    ranked = by_column(found)
    times = [one.times for one in ranked]
    assert times == sorted(times, reverse=True)
    assert sum(times) == sum(len(path.steps) for path in found)
    total = sum(one.change for one in ranked)
    assert total == pytest.approx(sum(p.weight * s.change for p in found for s in p.steps))


def test_a_forest_that_learned_nothing_has_no_paths() -> None:
    assert paths(AdaptiveRandomForest(n_models=3).state(), np.zeros(2)) == []


def test_a_restored_forest_has_the_same_paths() -> None:
    forest, rng = grown()
    twin = AdaptiveRandomForest(n_models=5, seed=3, grace_period=20)
    twin.restore(forest.state())
    row = rng.normal(size=4)
    assert paths(twin.state(), row) == paths(forest.state(), row)


# What can't be explained


def test_a_copy_and_what_is_refused_are_said_to_be_so() -> None:
    core = new_core()
    run(core, entries(signal("a")))
    (again, other) = entries(signal("a"), signal("b", features={"rsi": "high"}), first=2)
    with pytest.raises(ExplainError, match="copy of signal 'a'"):
        explain(core, again)
    with pytest.raises(ExplainError, match="refused: feature `rsi`"):
        explain(core, other)
    with pytest.raises(ExplainError, match="is no signal"):
        explain(core, entries(close("a"))[0])


# A shard's streams


@pytest.fixture
def shard(connection: Connection, tmp_path, monkeypatch) -> Shard:
    monkeypatch.setattr("engine.worker.IDLE_MS", 50)
    made = Shard(connection, tmp_path)
    made.config = made.config.model_copy(
        update={"core": CONFIG, "worker": WorkerConfig(batch=16, lease_ms=150)}
    )
    for half in (EVENTS[:HALF], EVENTS[HALF:]):
        made.publish(*half)
        made.worker().run(until_idle=True)
    return made


def stretches(shard: Shard, connection: Connection) -> Stretches:
    return Stretches(connection, shard.keys, shard.store, shard.new_core)


def test_signals_of_a_shard_are_explained_from_the_nearest_snapshot(shard, connection) -> None:
    found = stretches(shard, connection)
    for signal_id in ("s0", "s60", "s119"):
        assert found.explain(signal_id).as_published is True


one_server = pytest.mark.parametrize("address", ["redis_server"], indirect=True)


@one_server
def test_a_signal_that_is_not_there_or_not_decided_is_said_to_be_so(shard, connection) -> None:
    with pytest.raises(ExplainError, match="no signal 'unheard'"):
        stretches(shard, connection).explain("unheard")
    shard.publish(signal("new", 500))
    with pytest.raises(ExplainError, match="isn't decided yet"):
        stretches(shard, connection).explain("new")


@one_server
def test_a_decision_that_was_trimmed_is_explained_without_comparing(shard, connection) -> None:
    shard.redis.xtrim(shard.keys.decisions, maxlen=10, approximate=False)
    found = stretches(shard, connection).explain("s60")
    assert found.as_published is None
    assert found.decision.signal_id == "s60"


@one_server
def test_a_trimmed_history_is_said_to_be_one(shard, connection) -> None:
    lease = shard.transport.acquire("one", 60_000)
    shard.transport.trim(lease, half_way(shard).manifest.position)
    with pytest.raises(RecoveryError, match="no snapshot"):
        stretches(shard, connection).explain("s0")
    shard.redis.delete(shard.keys.decisions)
    with pytest.raises(ExplainError, match="trimmed"):
        stretches(shard, connection).explain("s0")


# The command

SETTINGS = """
[stream]
address = "memory://explain-command"
[core.refit]
enabled = false
[core.experts]
base_rate = {kind = "base_rate"}
logistic = {kind = "logistic"}
forest = {kind = "forest", params = {n_models = 3}}
"""


def test_the_command_explains_from_streams_and_tapes(
    closeloop: Command, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "closeloop.toml").write_text(SETTINGS)
    (tmp_path / "events.jsonl").write_bytes(b"".join(encode(e) + b"\n" for e in EVENTS))
    closeloop("publish", "events.jsonl")
    serve(monkeypatch, capsys)
    ran = closeloop("explain", "s110", "--json")
    assert ran.status == 0
    assert ran.json["as_published"] is True
    assert ran.json["decision"]["probability"] == ran.json["probability"]
    shown = closeloop("explain", "s110")
    assert shown.status == 0
    for words in (
        "yes, byte for byte",
        "linear",
        "3 trees' paths",
        "_margin",
        "stack_curve",
        "edge",
    ):
        assert words in shown.out
    unknown = closeloop("explain", "unheard")
    assert unknown.status == 2
    assert "no signal 'unheard'" in unknown.err

    closeloop("record", "decisions.jsonl", "--stream", "decisions")
    tapes = ("--tape", "events.jsonl", "--decisions", "decisions.jsonl")
    ran = closeloop("explain", "s110", *tapes, "--json")
    assert ran.status == 0
    assert ran.json["as_published"] is True
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines[:100] + lines[101:]))
    ran = closeloop("explain", "s110", *tapes)
    assert ran.status == 1
    assert "closeloop verify" in ran.err
    assert closeloop("explain", "unheard", "--tape", "events.jsonl").status == 2
    assert closeloop("explain", "s1", "--decisions", "decisions.jsonl").status == 2
