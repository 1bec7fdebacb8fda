"""Questions to the core from other threads, answered in the worker's own.

Nobody but the worker touches its core. Who wants to know something of it leaves a question here;
the worker answers between two batches and while it is idle. A full mailbox of scores takes less
than a batch, so questions hold no decision up for long, however many are asked.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Any, TypeVar

from engine.core import Core

SIZE = 16
"""Questions that wait, at most."""

T = TypeVar("T")


class MailboxFull(Exception):
    """Too many questions wait; ask again later."""


class Mailbox:
    """Takes questions from any thread, and has them answered in the worker's.

    Parameters
    ----------
    size
        Questions that wait, at most.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._lock = Lock()
        self._waiting: deque[tuple[Callable[[Core], Any], Future[Any]]] = deque()

    def ask(self, question: Callable[[Core], T]) -> "Future[T]":
        """Leave a question, which must change nothing; the future gets what it returns or raises.

        Who gives up cancels the future; then it isn't asked any more. Raises `MailboxFull`.
        """
        answer: Future[T] = Future()
        with self._lock:
            if len(self._waiting) >= self._size:
                # While no worker serves, those whose askers have gone would fill it.
                self._waiting = deque(pair for pair in self._waiting if not pair[1].cancelled())
            if len(self._waiting) >= self._size:
                raise MailboxFull(f"{self._size} questions wait for the worker; ask again later")
            self._waiting.append((question, answer))
        return answer

    def serve(self, core: Core) -> None:
        """Answer the questions that wait. For the thread that owns `core`, which none may change.

        Not those that come meanwhile: they might not end.
        """
        for _ in range(len(self._waiting)):
            with self._lock:
                question, answer = self._waiting.popleft()
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(question(core))
                except Exception as error:  # noqa: BLE001 - the asker's to hear, not the worker's
                    answer.set_exception(error)
