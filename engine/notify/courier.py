"""Brings one receiver its alerts, with several tries, and remembers which it has been told."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event

import structlog
from prometheus_client import Counter as Metric
from redis.backoff import AbstractBackoff, ExponentialWithJitterBackoff

from engine.notify.backlog import gather
from engine.notify.marks import AlertStream, Mark
from engine.notify.message import Message
from engine.notify.receiver import Receiver, attempt
from streams.errors import StreamError

POLL_S = 0.5
MAX_PAUSE_S = 60.0
"""However long a receiver asks to be left alone, it is tried again after this."""
BACKOFF = ExponentialWithJitterBackoff(cap=30.0, base=1.0)


@dataclass(frozen=True, slots=True)
class Patience:
    """With a receiver: how long a try may take, how many there are, and how far apart."""

    timeout_s: float
    attempts: int
    backoff: AbstractBackoff = BACKOFF


class Courier:
    """Serves one receiver, on the thread that calls `run`.

    Parameters
    ----------
    receiver
        Whom.
    stream
        Where its alerts and its mark are.
    source
        Whose alerts they are, for people.
    patience
        With the receiver.
    notifications
        Counts by receiver and result: `Metrics.notifications`.
    leading
        Whether this process is the one to tell.
    stop
        Set from outside to end.
    """

    def __init__(
        self,
        receiver: Receiver,
        stream: AlertStream,
        source: str,
        patience: Patience,
        notifications: Metric,
        leading: Callable[[], bool],
        stop: Event,
    ) -> None:
        self.receiver = receiver
        self._stream = stream
        self._source = source
        self._patience = patience
        self._notifications = notifications
        self._leading = leading
        self._stop = stop
        # Where we are, should the server forget it; and what no message has told of yet.
        self._mark: Mark | None = None
        self._untold: Counter[str] = Counter()

    def run(self) -> None:
        """Tell what comes until told to stop."""
        while not self._stop.is_set():
            # The worker says when the server is away; here it is only waited for.
            with suppress(StreamError):
                if self._mark is None or self._leading():
                    self.tell()
            self._stop.wait(POLL_S)

    def tell(self) -> None:
        """Tell what waits, while leading; of the log's, a page. Raises `StreamError`.

        What comes meanwhile is told the next time: however many come, decisions have their time.
        """
        mark = self.place()
        if self._active() and (backlog := gather(self._stream, mark, self.receiver)):
            summed = backlog.summed
            for mark, alert in backlog.told:
                message = Message(self._source, mark.entry_id, alert, self._untold + summed)
                if not self._active() or (sent := self.deliver(message)) is None:
                    return
                self._report(summed)
                if sent:
                    self._untold.clear()
                else:
                    self._untold += summed + Counter([alert.code])
                summed = Counter()
                # The log is told of everything, so a page of it may as well be told again.
                if self.receiver.most is not None:
                    self._move(mark)
            self._report(summed)
            self._untold += summed
            self._move(backlog.end)

    def place(self) -> Mark:
        """The mark; of a receiver that never had one, at the end of the stream.

        Raises `StreamError`.
        """
        stored = self._stream.mark(self.receiver.name)
        if stored is None:
            stored = self._mark or self._stream.end()
            self._stream.move(self.receiver.name, stored)
        self._mark = stored
        return stored

    def deliver(self, message: Message) -> bool | None:
        """Whether the receiver took it, in however many tries; None when interrupted."""
        for failures in range(1, self._patience.attempts + 1):
            failure = attempt(self.receiver, message, self._patience.timeout_s)
            if failure is None:
                self._count("sent", 1)
                return True
            if failures == self._patience.attempts or not failure.again:
                break
            pause = min(failure.after_s or 0.0, MAX_PAUSE_S)
            self._stop.wait(max(pause, self._patience.backoff.compute(failures)))
            if not self._active():
                return None
        self._count("undelivered", 1)
        structlog.get_logger().error(
            "alert_undelivered",
            receiver=self.receiver.name,
            code=message.alert.code,
            subject=message.alert.subject,
            entry_id=message.entry_id,
            tries=failures,
            detail=str(failure),
        )
        return False

    def _move(self, mark: Mark) -> None:
        """Remember it, however often it takes: else what was told is told again."""
        self._mark = mark
        while True:
            try:
                return self._stream.move(self.receiver.name, mark)
            except StreamError:
                if self._stop.wait(POLL_S):
                    return None

    def _report(self, summed: Counter[str]) -> None:
        if summed:
            self._count("summed_up", summed.total())
            structlog.get_logger().warning(
                "alerts_summed_up", receiver=self.receiver.name, alerts=dict(summed)
            )

    def _active(self) -> bool:
        return self._leading() and not self._stop.is_set()

    def _count(self, result: str, alerts: int) -> None:
        self._notifications.labels(self.receiver.name, result).inc(alerts)
