"""Where refits are computed: in another process, or right here. The result is the same."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from time import perf_counter

from learners import Refit, RefitJob, fit

NICENESS = 10


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
    """Fits in a child process of low priority, while decisions flow on.

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
        self._results[job.id] = self._thread.submit(self._ask, job)

    def collect(self, job_id: str) -> Refit:
        """The result of the job, as soon as there is one."""
        result = self._results.pop(job_id)
        job = self._jobs.pop(job_id)
        started = perf_counter()
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
        self._link.send(job)
        refit = self._link.recv()
        assert isinstance(refit, Refit)
        return refit


def _serve(link: Connection) -> None:
    """The child: one refit after the other, until the parent is gone."""
    os.nice(NICENESS)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            link.send(fit(link.recv()))
