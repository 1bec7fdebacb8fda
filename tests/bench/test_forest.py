"""The forest bench: what it feeds its models, how it scores them, and what it says of rivals."""

import math

import orjson
import pytest
from msgspec.structs import replace

from bench import forest
from bench.forest import CLIP, TURN, Score, against, log_loss, mean_and_error, race, summary
from bench.forest_models import MODELS, missing
from bench.forest_streams import DRAWN, closed, taken
from bench.results import BenchError
from bench.tapes import generated
from streams import Close, Signal, encode, write_tape


class Recorder:
    """A model that answers one probability and notes what it was asked to do."""

    def __init__(self, answer=0.8):
        self.answer = answer
        self.calls = []

    def prepare(self, x):
        return x["n"]

    def predict(self, x):
        self.calls.append(("predict", x))
        return self.answer

    def learn(self, x, y):
        self.calls.append(("learn", x, y))

    def size(self):
        return 7


def numbered(count):
    """Events of which every fourth is false."""
    return [({"n": float(n)}, n % 4 != 0) for n in range(count)]


def test_a_model_predicts_each_event_before_it_learns_it_whatever_the_turns():
    events = numbered(TURN + 3)
    models = {"ours": Recorder(), "other": Recorder()}
    seen = []
    scores = race(events, models, seen.append)
    for model in models.values():
        pairs = [(("predict", x["n"]), ("learn", x["n"], y)) for x, y in events]
        assert model.calls == [call for pair in pairs for call in pair]
    assert seen == [TURN, 3]
    assert [len(score.rates) for score in scores.values()] == [2, 2]
    assert scores["other"].size == 7


def test_log_loss_and_accuracy_are_means_over_the_events():
    score = race(numbered(TURN + 50), {"ours": Recorder(0.8)})["ours"]
    assert score.accuracy == pytest.approx(0.75)
    assert score.log_loss == pytest.approx(-0.75 * math.log(0.8) - 0.25 * math.log(0.2))


def test_even_odds_count_as_true():
    assert race([({"n": 0.0}, True)], {"ours": Recorder(0.5)})["ours"].accuracy == 1.0


def test_a_wrong_certainty_costs_what_the_clip_says_and_a_right_one_is_not_free():
    wrong, right = -math.log(CLIP), -math.log(1.0 - CLIP)
    assert [log_loss(0.0, True), log_loss(1.0, False)] == pytest.approx([wrong, wrong])
    assert [log_loss(1.0, True), log_loss(0.0, False)] == pytest.approx([right, right])


def test_errors_are_standard_errors_over_seeds():
    found = mean_and_error([1.0, 2.0, 3.0, 6.0])
    assert found["mean"] == 3.0
    assert found["error"] == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert mean_and_error([1.0])["error"] is None


def test_a_rival_is_held_against_ours_seed_by_seed_and_turn_by_turn():
    seeds = [
        {"ours": Score(0.25, 0.9, 10, [10.0, 40.0]), "rival": Score(0.5, 0.8, 20, [5.0, 4.0])},
        {"ours": Score(0.5, 0.9, 30, [30.0]), "rival": Score(0.75, 0.8, 21, [10.0])},
    ]
    rival = summary(seeds)["rival"]
    assert rival["log_loss"]["by_seed"] == [0.5, 0.75]
    assert rival["log_loss_than_ours"]["mean"] == 0.25
    assert rival["log_loss_than_ours"]["error"] == 0.0  # though either's own is not
    assert rival["ours_times_faster"] == 3.0  # of 2, 10 and 3
    assert rival["events_per_s"] == 5.0


def test_a_stream_counts_for_ours_when_its_log_loss_is_no_higher():
    def figures(apart, faster):
        return {"river": {"log_loss_than_ours": {"mean": apart}, "ours_times_faster": faster}}

    table = {"a": figures(0.1, 90.0), "b": figures(0.0, 70.0), "c": figures(-0.001, 80.0)}
    found = against("river", table)
    assert (found["log_loss_at_most_theirs"], found["streams"]) == (2, 3)
    assert (found["times_faster_median"], found["times_faster_least"]) == (80.0, 70.0)


def test_a_tapes_trades_come_in_the_order_of_their_closes_with_their_own_labels(tmp_path):
    signals = [e for e in generated(6) if isinstance(e, Signal)]
    signals = [replace(s, features={"n": float(k)}) for k, s in enumerate(signals)]
    path = tmp_path / "tape.jsonl"
    with write_tape(path) as tape:
        for signal in signals:
            tape.write(encode(signal))
        for k, result in ((2, 0.5), (0, -0.5), (2, -9.0), (1, 0.0)):
            close = Close(signal_id=f"g{k}", ts=signals[-1].ts, return_pct=result)
            tape.write(encode(close))
    assert list(closed(path)) == [({"n": 2.0}, True), ({"n": 0.0}, False), ({"n": 1.0}, False)]


@pytest.mark.parametrize("name", DRAWN)
def test_a_stream_is_the_same_for_the_same_seed(name):
    events = taken(name, 1, 300)
    assert len(events) == 300
    assert events == taken(name, 1, 300)
    assert (events == taken(name, 2, 300)) == (name in ("phishing", "bananas"))
    assert {y for _, y in events} == {True, False}
    assert len({tuple(x) for x, _ in events}) == 1


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_a_plain_rule_the_right_way_round(name):
    if (why := missing(name)) is not None:
        pytest.skip(why)
    events = [({"a": float(n % 3), "b": float(n % 7)}, n % 3 == 2) for n in range(1_200)]
    score = race(events, {name: MODELS[name](["a", "b"], 3, 1)})[name]
    late = race(events[:300], {name: MODELS[name](["a", "b"], 3, 1)})[name]
    assert score.accuracy > 0.95
    assert score.log_loss < late.log_loss < math.log(2.0)
    assert score.size > 100


def absent(names, trees, seed):
    raise ImportError("No module named 'capymoa'")


def test_the_bench_tells_what_is_left_out_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "capymoa", absent)
    monkeypatch.setattr(forest, "WARM_UP", 50)
    out = tmp_path / "figures.json"
    forest.main(trees=3, events=250, seeds=2, rivals="river,capymoa", only="phishing", json_out=out)
    figures = orjson.loads(out.read_bytes())
    assert figures["left_out"] == {"capymoa": "No module named 'capymoa'"}
    assert list(figures["streams"]) == ["phishing"]
    river = figures["streams"]["phishing"]["river"]
    assert 0.0 < river["log_loss"]["mean"] < 1.0
    assert len(river["accuracy"]["by_seed"]) == 2
    assert river["events_per_s"] > 0 and river["bytes"] > 1_000
    assert figures["against"]["river"]["streams"] == 1
    said = capsys.readouterr().out
    assert "capymoa is left out: No module named 'capymoa'" in said
    assert "weather and sea are left out" in said


def test_a_rival_it_does_not_know_is_named_with_those_it_knows():
    with pytest.raises(BenchError, match="--rivals 'oak' is none of river, capymoa, vw"):
        forest.main(rivals="river,oak")


def test_a_stream_it_does_not_know_is_named_and_so_is_a_tapes_without_tapes():
    with pytest.raises(BenchError, match=r"--only 'weather' is none of agrawal, .*, bananas"):
        forest.main(only="phishing,weather")


def test_a_tape_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BenchError, match=r"weather\.jsonl\.gz"):
        taken("weather", 1, 10, tmp_path)
