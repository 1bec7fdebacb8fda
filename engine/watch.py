"""What only the worker's clock knows, and what people may look at: once a second, between batches.

Measurements past a trigger's threshold enter the input as signed `measure` commands, so that the
core, and every replay, sees them at the same place. Without a control key there are none. What
stands where is written for people (`engine.view`). None of this is waited for or tried again.
"""

from collections import deque
from time import monotonic

import numpy as np
import structlog

from engine.core import Core
from engine.safety.settings import TriggersConfig
from engine.sending import signed
from engine.view import view, write_view
from streams import Connection, Keys, StreamError
from streams.connection import translated

LOOK_S = 1.0
"""Seconds between two looks."""
REPEAT_S = 60.0
"""Seconds after which what is still past its threshold is said again."""


class Watch:
    """Measures a worker's decisions and snapshots, and shows what stands where.

    Parameters
    ----------
    connection, keys
        Where the input and the view are.
    config
        The thresholds.
    control_key
        Signs measurements; without one none is sent.
    owner
        The worker's name, which measurements are by.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        config: TriggersConfig,
        control_key: bytes | None,
        owner: str,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._config = config
        self._key = control_key
        self._owner = owner
        # Batches' seconds and decisions, the newest last, and how many decisions that is.
        self._batches: deque[tuple[float, int]] = deque()
        self._decisions = 0
        self._events = 0
        self._snapshots = 0
        # Since when there have been events that no snapshot holds.
        self._new_since: float | None = None
        # What was sent last, and when.
        self._sent: dict[str, tuple[bool, float]] = {}
        self._next = 0.0
        self._shown = ("", -1)

    def decided(self, decisions: int, seconds: float) -> None:
        """A batch with so many decisions took that long, from being read to being committed.

        Only those that came as they were published: who catches up is late in any case.
        """
        if not decisions:
            return
        self._batches.append((seconds, decisions))
        self._decisions += decisions
        while self._decisions - self._batches[0][1] >= self._config.latency.window:
            self._decisions -= self._batches.popleft()[1]

    def look(self, core: Core, position: str, snapshots: int) -> None:
        """Look, if it is time to, or what stands has changed; `snapshots` were saved until now."""
        now = monotonic()
        if now < self._next and core.guard.revision == self._shown[1]:
            return
        self._next = now + LOOK_S
        events = core.counts["events"]
        if snapshots != self._snapshots:
            self._snapshots, self._new_since = snapshots, None
        if events != self._events and self._new_since is None:
            self._new_since = now
        self._events = events
        try:
            self._measure(now)
            if self._shown != (position, core.guard.revision):
                with translated(self._connection.address):
                    write_view(self._connection, self._keys, view(core, position))
                self._shown = (position, core.guard.revision)
        except StreamError as error:
            structlog.get_logger().warning("watch_failed", detail=str(error))

    def latency_ms(self) -> float | None:
        """The 99th percentile over the newest decisions; None before there are enough."""
        if self._decisions < self._config.latency.window:
            return None
        seconds, counts = zip(*self._batches, strict=True)
        ordered = np.argsort(seconds)
        reached = np.cumsum(np.array(counts)[ordered])
        at = int(np.searchsorted(reached, 0.99 * reached[-1]))
        return 1_000.0 * float(np.array(seconds)[ordered][at])

    def _measure(self, now: float) -> None:
        if self._key is None:
            return
        age = 0.0 if self._new_since is None else (now - self._new_since) / 60.0
        for name, value in (("latency", self.latency_ms()), ("snapshot_age", age)):
            trigger = getattr(self._config, name)
            if value is None or not trigger.enabled:
                continue
            past = value > trigger.threshold
            was, at = self._sent.get(name, (False, 0.0))
            if past == was and not (past and now - at >= REPEAT_S):
                continue
            data = signed(self._key, "measure", self._owner, "", {"name": name, "value": value})
            # Not sent again when the answer is lost: the next look says more.
            with translated(self._connection.address):
                self._connection.redis.xadd(self._keys.events, {"e": data})
            self._sent[name] = (past, now)
