"""Comparison: everybody on the same rows, with the same labels at the same moments."""

import re

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.core_config import CoreConfig, RefitConfig
from engine.evaluation import peers
from engine.evaluation.compare import MIXTURE, MOSTLY, compared, observe
from engine.evaluation.compare_findings import findings
from engine.evaluation.peer_runs import PeerRun, course, run_peer, run_peers
from engine.evaluation.peers import PEERS, Peer, VowpalWabbit, dicts
from engine.evaluation.scores import log_loss
from engine.fitting import InlineFitter
from streams import Tape, encode, write_tape
from tests.bench.short_tapes import short_tape

CONFIG = CoreConfig(refit=RefitConfig(enabled=False))


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    return short_tape(tmp_path_factory.mktemp("tapes"), 400)


@pytest.fixture(scope="module")
def observed(tape):
    return observe(CONFIG, InlineFitter(), Tape(tape))


class Diary:
    """A peer that writes down what happens to it, and predicts how many closes it knows."""

    def __init__(self):
        self.known = []

    def prepare(self, x):
        return x

    def predict(self, x):
        return 0.1 + len(self.known) / 1000

    def learn(self, x, won):
        self.known.append((x["c0"], won))


def test_a_peer_knows_at_each_signal_exactly_what_the_engine_knew(observed, monkeypatch):
    monkeypatch.setitem(PEERS, "diary", Peer("sys", online=lambda seed: Diary()))
    outcomes = observed.run.outcomes
    known = [(outcomes.learned_at < at).sum() for at in outcomes.decided_at]
    found = run_peer("diary", observed.course, 1).probability
    assert found == pytest.approx(0.1 + np.array(known) / 1000)
    assert known[-1] > 300


def test_a_peer_learns_the_rows_that_the_engine_scored():
    rows = [np.array([0.0, 5.0]), np.array([1.0, np.nan, 7.0])]
    over = course(rows, np.array([True, False]), np.array([0, 1]), np.array([2, 3]))
    assert over.steps.tolist() == [0, 1, -1, -2]
    assert [dicts(row) for row in over.rows] == [{"c0": 0.0, "c1": 5.0}, {"c0": 1.0, "c2": 7.0}]


def test_refits_predict_as_they_would_one_by_one(monkeypatch):
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=1) for _ in range(1_600)]
    won = rng.random(1_600) < 0.7
    places = np.arange(1_600)
    over = course(rows, won, 2 * places, 2 * places + 41)

    def fit(given, wins, seed):
        return lambda asked: np.full(len(asked), wins.mean())

    monkeypatch.setitem(PEERS, "mean", Peer("sys", fit=fit))
    found = run_peer("mean", over, 1).probability
    every, window = peers.REFIT.every, peers.REFIT.window
    for i in range(1_600):
        fitted = max(i - 20, 0) // every * every  # closes known at signal i, up to the last refit
        if fitted == 0:
            assert np.isnan(found[i])
        else:
            assert found[i] == pytest.approx(won[max(fitted - window, 0) : fitted].mean())


def test_in_a_process_of_its_own_a_peer_says_the_same(observed):
    told = {}
    (beside,) = run_peers(["river_logistic"], observed.course, 1, 2, told.__setitem__).values()
    here = run_peer("river_logistic", observed.course, 1)
    np.testing.assert_array_equal(beside.probability, here.probability)
    assert told == {"river_logistic": len(observed.course.steps)}


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_that_is_installed_gives_probabilities(name):
    if PEERS[name].missing is not None:
        pytest.skip(PEERS[name].missing)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(800, 2))
    x[::7, 1] = np.nan
    places = np.arange(800)
    over = course(list(x), x[:, 0] > 0, 2 * places, 2 * places + 1)
    ran = run_peer(name, over, 1)
    assert ran.why_not is None
    assert ran.seconds > 0.0
    late = slice(500, None)
    assert log_loss(ran.probability[late], over.won[late]) < 0.5


def test_who_is_not_installed_or_fails_is_listed_with_the_reason(observed, monkeypatch):
    def broken(seed):
        raise ValueError("no such seed")

    monkeypatch.setitem(PEERS, "absent", Peer("no_such_package", online=broken))
    monkeypatch.setitem(PEERS, "broken", Peer("sys", online=broken))
    found = compared(observed, run_peers(["absent", "broken"], observed.course, 1), resamples=20)
    assert "no_such_package" in found["absent"].why_not
    assert found["broken"].why_not == "failed: ValueError: no such seed"
    page = findings("A tape", found)
    assert "absent" in page.summary
    assert page.figures["contenders"]["absent"]["log_loss"] is None


def test_all_are_judged_on_rows_on_which_all_spoke(observed):
    closes = len(observed.course.won)
    late = np.full(closes, 0.5)
    late[: closes // 2 - 20] = np.nan
    found = compared(observed, {"late": PeerRun(late, 1.0)}, resamples=20)
    outcomes = observed.run.outcomes
    rows = np.isfinite(late)
    for p in outcomes.experts.values():
        if np.isfinite(p[closes // 10 :]).mean() >= MOSTLY:
            rows &= np.isfinite(p)
    assert found["late"].rows == found[MIXTURE].rows == found.rows == rows.sum() > 100
    assert found[MIXTURE].log_loss == log_loss(outcomes.probability[rows], outcomes.won[rows])
    assert found["late"].log_loss == pytest.approx(np.log(2.0))
    apart = found["late"].log_loss - found[MIXTURE].log_loss
    assert found["late"].difference.value == pytest.approx(apart)
    low, high = found["late"].difference.interval
    assert low <= apart <= high


def test_who_speaks_rarely_narrows_nobody_elses_rows(observed):
    outcomes = observed.run.outcomes
    rare = np.full(len(outcomes), np.nan)
    rare[-30:] = 0.5
    found = compared(observed, {"rare": PeerRun(rare, 1.0)}, resamples=20)
    assert found["rare"].rows == 30
    assert found[MIXTURE].rows == found.rows > 100
    ours = log_loss(outcomes.probability[-30:], outcomes.won[-30:])
    assert found["rare"].difference.value == pytest.approx(np.log(2.0) - ours)


def test_a_close_that_stood_before_its_signal_is_nobodys_to_predict(tmp_path, tape):
    lines = [line.data for line in Tape(tape)]
    place = next(i for i, data in enumerate(lines) if b'"g50"' in data)
    close = next(data for data in lines if b'"g50"' in data and b"return_pct" in data)
    lines.remove(close)
    moved = tmp_path / "moved.jsonl"
    with write_tape(moved) as out:
        for i, data in enumerate(lines):
            if i == place:
                out.write(close)
            out.write(data)
    seen = observe(CONFIG, InlineFitter(), Tape(moved))
    assert len(seen.run.outcomes) == 400
    assert len(seen.course.won) == 399


def test_the_command_prints_writes_json_and_a_page(tape, tmp_path):
    page = tmp_path / "page.html"
    arguments = ["compare", str(tape), "--peers", "river_logistic", "--html", str(page), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    figures = orjson.loads(done.stdout)
    assert {"mixture", "base_rate", "river_logistic"} <= figures["contenders"].keys()
    assert figures["contenders"]["river_logistic"]["us_per_event"] > 0
    assert len(re.findall("<svg", page.read_text())) == 2


def test_the_command_names_the_peers_when_one_is_unknown(tape):
    done = CliRunner().invoke(app, ["compare", str(tape), "--peers", "river_arf,magic"])
    assert done.exit_code != 0
    assert "magic" in str(done.exception) and "river_srp" in str(done.exception)


def test_vowpal_wabbit_gets_features_whatever_they_are_called():
    asked = VowpalWabbit.prepare(None, dicts(np.array([1.5, np.nan, 2.0])))
    assert asked == "|f c0:1.5 c2:2.0"


def test_an_empty_tape_has_nothing_to_judge(tmp_path):
    empty = tmp_path / "empty.jsonl"
    with write_tape(empty) as out:
        out.write(encode(next(iter(Tape(short_tape(tmp_path, 1)))).entry().event))
    found = findings("A tape", compared(observe(CONFIG, InlineFitter(), Tape(empty)), {}))
    assert found.summary.startswith("No close to judge")
