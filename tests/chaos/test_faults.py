"""Faults put into real processes: a worker, a Redis, the network, the disk. The short form.

`bench/chaos.py` draws hundreds from the same faults; here each test has a handful, and between them
they come by every room. Each run is judged against a core that was never interrupted.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from bench.tapes import generated
from streams import encode
from tests.chaos.boundaries import BOUNDARIES
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.processes import Launcher
from tests.chaos.run import Outcome, run
from tests.chaos.schedule import schedule

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


def after(launcher: Launcher, faults: list[Fault], events: int) -> Outcome:
    lines = [encode(event) for event in islice(generated(events), events)]
    outcome = run(faults, lines, 1, launcher)
    assert not outcome.failures, outcome.failures
    assert outcome.verdict.holds, outcome.verdict.wrong
    assert len(outcome.injected) == len(faults)
    assert outcome.verdict.decisions > 0
    return outcome


def of(*names: str) -> list[Fault]:
    return [BY_NAME[name] for name in names]


def dying_at(chosen: Callable[[str], bool]) -> list[Fault]:
    return of(*(boundary.name for boundary in BOUNDARIES if chosen(boundary.group)))


def test_a_worker_that_dies_at_any_boundary_of_a_commit_or_a_recovery_leaves_no_trace(launcher):
    after(launcher, dying_at(lambda group: group in ("commit", "recovery")), events=700)


def test_a_worker_that_dies_on_the_way_to_a_safe_snapshot_leaves_no_trace(launcher):
    names = ("half write", "before sync", "before rename", "after rename", "after trim")
    after(launcher, of(*(f"snapshot: {name}" for name in names)), events=1_200)


def test_a_worker_killed_paused_or_overtaken_publishes_nothing_twice(launcher):
    after(
        launcher,
        of(
            "SIGKILL while recovering",
            "SIGSTOP past its lease, SIGCONT",
            "taken over, clocks 7 minutes apart",
            "its fitting process killed",
        ),
        events=600,
    )


def test_what_a_server_loses_is_reported_and_all_that_is_left_is_decided(launcher):
    outcome = after(
        launcher,
        of(
            "SIGKILL, appendfsync always",
            "an older file",
            "an older file, worker killed",
            "loss: after report",
            "a replica promoted, writes missing",
            "FLUSHALL",
        ),
        events=1_000,
    )
    assert outcome.lost_by_redis > 0


def test_a_server_that_refuses_and_a_network_that_fails_are_waited_for(launcher):
    outcome = after(
        launcher,
        of(
            "maxmemory reached",
            "made a replica: READONLY",
            "busy with a script: BUSY",
            "answers LOADING, BUSY, ...",
            "consumer group deleted",
            "cut",
            "replies byte by byte",
            "reset in mid-reply",
        ),
        events=700,
    )
    # Nothing of this ends a worker.
    assert outcome.starts == 1


def test_a_disk_that_fails_costs_snapshots_and_nothing_else(launcher):
    outcome = after(
        launcher,
        of("a file in the folder's place", "full", "a bit flipped", "a future position"),
        events=800,
    )
    assert outcome.starts == 3


def test_every_kind_of_fault_is_drawn_once_there_is_room_and_alike_for_a_seed():
    drawn = schedule(len(FAULTS) + 50, seed=3)
    assert set(drawn) == set(FAULTS)
    assert drawn == schedule(len(FAULTS) + 50, seed=3)
    assert drawn != schedule(len(FAULTS) + 50, seed=4)
    assert sum(fault.name == "FLUSHALL" for fault in drawn) <= 2
