"""Where refits are computed: in another process, or right here. The result is the same."""

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from time import perf_counter

from learners import Refit, RefitJob, fit

NICENESS = 19
"""Of the fitting process, where the system has no scheduling policy for idle time only."""


_HAS_IDLE_POLICY = hasattr(os, "SCHED_IDLE")


class InlineFitter:
    """Fits when asked for the result, in this process. For tests and small runs."""

    def __init__(self) -> None:
        self._jobs: dict[str, RefitJob] = {}

    def submit(self, job: RefitJob) -> None:
        """Keep `job` until its result is wanted."""
        self._jobs[job.id] = job

    def collect(self, job_id: str) -> Refit:
        """Fit the job."""
        return fit(self._jobs.pop(job_id))


class ProcessFitter:
    """Fits in a child process, while decisions flow on.

    The child runs when nobody else wants the processor, until a result is waited for: then it is
    as urgent as the decision that waits.

    A child that dies (killed, out of memory) loses nothing: the fit is a pure function of its job,
    and is done again in this process.

    Parameters
    ----------
    on_wait
        Called about twice a second while `collect` waits, to keep a lease alive.
    """

    def __init__(self, on_wait: Callable[[], None] = lambda: None) -> None:
        self.waited_seconds = 0.0
        self.on_wait = on_wait
        self._jobs: dict[str, RefitJob] = {}
        self._results: dict[str, Future[Refit]] = {}
        context = multiprocessing.get_context("spawn")
        self._link, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end,), daemon=True)
        self._process.start()
        # Only the child holds the far end, so that either side sees the other's death.
        far_end.close()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="refit")

    def submit(self, job: RefitJob) -> None:
        """Send `job` to the child; returns at once."""
        self._jobs[job.id] = job
        _schedule(self._process.pid, idle=True)
        self._results[job.id] = self._thread.submit(self._ask, job)

    def collect(self, job_id: str) -> Refit:
        """The result of the job, as soon as there is one."""
        result = self._results.pop(job_id)
        job = self._jobs.pop(job_id)
        started = perf_counter()
        if not result.done():
            _schedule(self._process.pid, idle=False)
        try:
            while True:
                try:
                    return result.result(timeout=0.5)
                except TimeoutError:
                    self.on_wait()
        except (EOFError, OSError):
            return fit(job)
        finally:
            self.waited_seconds += perf_counter() - started

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.join()
        self._thread.shutdown()
        self._link.close()

    def _ask(self, job: RefitJob) -> Refit:
        # The arrays go as they are: pickled, they'd be copied while no decision can be made.
        arrays: list[pickle.PickleBuffer] = []
        self._link.send_bytes(pickle.dumps(job, 5, buffer_callback=arrays.append))
        for array in arrays:
            self._link.send_bytes(array.raw())
        refit = self._link.recv()
        assert isinstance(refit, Refit)
        return refit


def _schedule(process: int | None, idle: bool) -> None:
    """Let `process` run in idle time only, or like any other (Linux's sched(7))."""
    if _HAS_IDLE_POLICY and process is not None:
        # It may be dead, or the system may forbid it: then it is slower or in the way, not wrong.
        with suppress(OSError):
            policy = os.SCHED_IDLE if idle else os.SCHED_OTHER
            os.sched_setscheduler(process, policy, os.sched_param(0))


def _serve(link: Connection) -> None:
    """The child: one refit after the other, until the parent is gone."""
    if not _HAS_IDLE_POLICY:
        os.nice(NICENESS)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            job = link.recv_bytes()
            link.send(fit(pickle.loads(job, buffers=_arrays(link))))


def _arrays(link: Connection) -> Iterator[bytes]:
    """The arrays of a job, one after the other as unpickling asks for them."""
    while True:
        yield link.recv_bytes()
