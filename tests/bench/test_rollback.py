"""The rollback's bench: it sees whose decision is whose, and that the very next one is right."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench import rollback as bench
from bench.results import BenchError

GIVEN = [bench.Given("old", (10, 0), 0), bench.Given("new", (20, 0), 5_000_000)]


def seen(*champions):
    """Two signals before the first command, then three, then two; a millisecond apart."""
    ids = [(5, 0), (9, 9), (10, 1), (12, 0), (19, 0), (21, 0), (22, 0)]
    due = [number * 1_000_000 for number in range(len(ids))]
    return bench.Seen(ids, list(champions), due, [ns + 500_000 for ns in due])


def test_the_next_decision_is_by_the_other_champion_and_so_are_all_that_follow():
    right = seen("new", "new", "old", "old", "old", "new", "new")
    assert bench.effects(GIVEN, right) == [
        bench.Effect(1, 0, 2.5, 0.5),
        bench.Effect(1, 0, 0.5, 0.5),
    ]
    moments, late = bench.ordinary(GIVEN, right, seed=1)
    assert late == [0.5] * 5
    # To the receipt of one that no command came before: 0.5 ms after it was due, at most 1.5.
    assert 0.5 <= min(moments) < 0.6 and 1.4 < max(moments) <= 1.5


def test_a_rollback_that_takes_effect_late_or_never_is_seen():
    late = seen("new", "new", "new", "old", "old", "new", "new")
    never = seen("new", "new", "old", "new", "old", "old", "old")
    assert [(e.decisions, e.wrong) for e in bench.effects(GIVEN, late)] == [(2, 1), (1, 0)]
    assert [(e.decisions, e.wrong) for e in bench.effects(GIVEN, never)] == [(1, 1), (0, 2)]


def test_commands_need_a_signal_in_between():
    two = [GIVEN[0], bench.Given("new", (10, 0), 0)]
    with pytest.raises(BenchError, match="no signal came between two commands"):
        bench.effects(two, seen(*["old"] * 7))


def test_with_a_real_worker_a_rollback_is_there_one_decision_later(tmp_path):
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, bench.__file__, "--rollbacks", "2", "--rate", "100", "--json", out],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = orjson.loads(Path(out).read_bytes())
    assert (figures["decisions"], figures["wrong"], figures["holds"]) == (1, 0, True)
    old, new = figures["champions"]
    assert old != new
    assert len(figures["effects"]) == 4
    assert all(each["from_command_ms"] > 0.0 for each in figures["effects"])
