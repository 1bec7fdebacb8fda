"""Refits in a process of their own: the same result, out of the way until it is waited for."""

import os
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from engine.fitting import ProcessFitter
from learners import RefitJob, RefitParams, fit


def job(name: str = "refit-1", closes: int = 600) -> RefitJob:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(closes, 4)).astype(np.float32)
    times = np.arange(closes, dtype=np.float64)
    params = RefitParams(rounds=5)
    return RefitJob(name, rows, rows[:, 0] > 0, times, times + 0.5, params=params)


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessFitter]:
    fitter = ProcessFitter()
    yield fitter
    fitter.close()


def test_another_process_fits_what_this_one_would(shared: ProcessFitter) -> None:
    shared.submit(job())
    assert shared.collect("refit-1") == fit(job())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a policy for idle time")
def test_a_refit_runs_in_idle_time_until_it_is_waited_for(shared: ProcessFitter) -> None:
    pid = shared._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    shared.submit(job("refit-2"))
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    policies = []

    def go_on() -> None:
        policies.append(os.sched_getscheduler(pid))
        os.kill(pid, signal.SIGCONT)

    shared.on_wait = go_on
    assert shared.collect("refit-2").id == "refit-2"
    assert policies[0] == os.SCHED_OTHER


def test_a_fitter_whose_process_is_killed_loses_nothing() -> None:
    fitter = ProcessFitter()
    try:
        assert fitter._process.pid is not None
        os.kill(fitter._process.pid, signal.SIGKILL)
        fitter._process.join()
        fitter.submit(job())
        assert fitter.collect("refit-1") == fit(job())
    finally:
        fitter.close()
