"""Peers over what the engine saw: the same rows, and the same labels at the same moments.

A peer predicts a signal where the engine decided it and learns its close where the engine did, so
each knows exactly as much as the other. Only its own calls are timed.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import nan
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.peers import PEERS, REFIT, Fit, Online, dicts

LOWEST, HIGHEST = 0.001, 0.999
"""Peers are judged within the bounds that the engine's experts have."""
PROGRESS_EVERY = 64
_POLL_S = 0.2

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Progress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What happened, for peers to go through.

    Parameters
    ----------
    rows
        The encoded row of each close's signal, shape (closes, columns); NaN: missing.
    won
        Whether it won, shape (closes,).
    steps
        Shape (2 closes,): ``i`` where the signal of close ``i`` is to be predicted, ``-1 - i``
        where that close is to be learned.
    """

    rows: Floats
    won: Bools
    steps: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PeerRun:
    """What came of a peer.

    Parameters
    ----------
    probability
        Of each close, frozen at its signal, shape (closes,); NaN: it knew nothing yet.
    seconds
        What its calls took.
    why_not
        Why it did not run, or not to the end; then the rest is empty.
    """

    probability: Floats
    seconds: float = nan
    why_not: str | None = None


def course(
    rows: Sequence[Floats], won: Bools, decided: NDArray[np.int64], learned: NDArray[np.int64]
) -> Course:
    """The course of closes whose signals were decided and learned at those places of a tape."""
    wide = np.full((len(rows), max(map(len, rows), default=0)), nan)
    for i, row in enumerate(rows):
        wide[i, : len(row)] = row
    places = np.concatenate([decided, learned])
    steps = np.concatenate([np.arange(len(rows)), -1 - np.arange(len(rows))])
    return Course(wide, won, steps[np.argsort(places, kind="stable")])


def run_peer(
    name: str, over: Course, seed: int, progress: Progress = lambda steps: None
) -> PeerRun:
    """One peer over a course. What it raises on the way is its result, not the caller's end."""
    peer = PEERS[name]
    if peer.missing is not None:
        return PeerRun(np.empty(0), why_not=peer.missing)
    try:
        if peer.online is not None:
            return _online(peer.online(seed), over, progress)
        assert peer.fit is not None
        return _refits(peer.fit, over, seed, progress)
    except Exception as error:  # noqa: BLE001 - whatever a foreign library raises on odd input
        return PeerRun(np.empty(0), why_not=f"failed: {type(error).__name__}: {error}")


def run_peers(
    names: Sequence[str],
    over: Course,
    seed: int,
    processes: int = 1,
    progress: Callable[[str, int], None] = lambda name, steps: None,
) -> dict[str, PeerRun]:
    """All peers over a course, some side by side.

    Parameters
    ----------
    processes
        How many run at once; with 1 they run in this process.
    progress
        Called now and then with a peer and how many steps it has done.
    """
    if processes == 1:
        return {name: run_peer(name, over, seed, partial(progress, name)) for name in names}
    context = multiprocessing.get_context("spawn")
    done = context.Array("q", len(names), lock=False)
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(over, done)) as pool:
        futures = {name: pool.submit(_one, name, i, seed) for i, name in enumerate(names)}
        _watch(futures, done, progress)
        return {name: future.result() for name, future in futures.items()}


def _watch(
    futures: Mapping[str, Future[PeerRun]], done: Any, progress: Callable[[str, int], None]
) -> None:
    pending = set(futures.values())
    while pending:
        pending = wait(pending, _POLL_S).not_done
        for i, name in enumerate(futures):
            progress(name, done[i])


# In a pool's process: what it was begun with.
_given: tuple[Course, Any] | None = None


def _begin(over: Course, done: Any) -> None:
    global _given
    _given = over, done


def _one(name: str, number: int, seed: int) -> PeerRun:
    assert _given is not None
    over, done = _given

    def progress(steps: int) -> None:
        done[number] = steps

    with suppress(KeyboardInterrupt):
        return run_peer(name, over, seed, progress)
    return PeerRun(np.empty(0), why_not="interrupted")


def _online(peer: Online, over: Course, progress: Progress) -> PeerRun:
    found = np.full(len(over.won), nan)
    waiting: dict[int, Any] = {}
    seconds = 0.0
    for count, step in enumerate(over.steps.tolist()):
        if step >= 0:
            x = waiting[step] = peer.prepare(dicts(over.rows[step]))
            began = perf_counter()
            found[step] = peer.predict(x)
        else:
            x, won = waiting.pop(-1 - step), bool(over.won[-1 - step])
            began = perf_counter()
            peer.learn(x, won)
        seconds += perf_counter() - began
        if count % PROGRESS_EVERY == 0:
            progress(count)
    progress(len(over.steps))
    return PeerRun(np.clip(found, LOWEST, HIGHEST), seconds)


def _refits(fit: Fit, over: Course, seed: int, progress: Progress) -> PeerRun:
    """Signals between two refits are predicted at once: it comes to the same and is faster."""
    found = np.full(len(over.won), nan)
    window: deque[int] = deque(maxlen=REFIT.window)
    asked: list[int] = []
    predict = None
    closes = 0
    began = perf_counter()
    for count, step in enumerate(over.steps.tolist()):
        if step >= 0:
            asked.append(step)
            continue
        window.append(-1 - step)
        closes += 1
        if closes % REFIT.every:
            continue
        if predict is not None and asked:
            found[asked] = predict(over.rows[asked])
        asked.clear()
        newest = list(window)
        if over.won[newest].any() and not over.won[newest].all():
            predict = fit(over.rows[newest], over.won[newest], seed)
        progress(count)
    if predict is not None and asked:
        found[asked] = predict(over.rows[asked])
    progress(len(over.steps))
    return PeerRun(np.clip(found, LOWEST, HIGHEST), perf_counter() - began)
