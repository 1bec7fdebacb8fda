"""A bot that keeps publishing, at least once: what may not have arrived it publishes again.

Besides its tape it makes the mistakes that bots make: entries that are none, forged controls, and
signals sent again later with other features.
"""

import random
from threading import Condition, Thread
from time import sleep

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streams import Keys
from tests.chaos.processes import DEADLINE_S, Stuck

BATCH = 8
MARK = b"planted-"
"""Every bad input holds this, and nothing else does."""


class Bot:
    """Publishes a tape's lines in order, from a thread of its own.

    Parameters
    ----------
    lines
        The tape: signals and closes as bytes.
    port
        Where, which may well be a proxy.
    seed
        Of the mistakes.
    """

    def __init__(self, lines: list[bytes], port: int, seed: int) -> None:
        self.lines = lines
        self.limit = 0
        """How many lines it may publish by now."""
        self.cursor = 0
        """How many it has, and knows of."""
        self.errors = 0
        self.planted = 0
        self.resent = 0
        self._random = random.Random(seed)
        self._redis = redis.Redis(
            port=port,
            protocol=2,
            socket_timeout=1.5,
            socket_connect_timeout=1.5,
            retry=Retry(NoBackoff(), 0),
        )
        self._extra: list[dict[str, bytes]] = []
        self._paused = self._ended = False
        self._changed = Condition()
        self._idle = False
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def allow(self, limit: int) -> None:
        """Let it publish up to that many lines."""
        with self._changed:
            self.limit = min(limit, len(self.lines))
            self._changed.notify_all()

    def pause(self) -> None:
        """Stop it between two batches; waits until it stands."""
        with self._changed:
            self._paused = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._idle, DEADLINE_S):
                raise Stuck("the bot doesn't come to rest")

    def resume(self, cursor: int | None = None, again: list[bytes] | None = None) -> None:
        """Let it go on, from `cursor` if given, once it has published `again`."""
        with self._changed:
            if cursor is not None:
                self.resent += self.cursor - cursor
                self.cursor = cursor
            self._extra += [{"e": data} for data in again or []]
            self._paused = False
            self._changed.notify_all()

    @property
    def done(self) -> bool:
        """Whether it has published all that it may."""
        with self._changed:
            return self._idle and not self._extra and self.cursor >= self.limit

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        self._redis.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (
                    self._paused or (self.cursor >= self.limit and not self._extra)
                ):
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait()
                if self._ended:
                    return
                self._idle = False
                extra, self._extra = self._extra, []
                count = min(BATCH, self.limit - self.cursor)
                entries = [{"e": data} for data in self.lines[self.cursor : self.cursor + count]]
                if count:
                    entries += self._mistakes()
            if self._publish(extra + entries):
                with self._changed:
                    self.cursor += count
            else:
                # The lines of the batch come again anyway: the cursor stands.
                with self._changed:
                    self._extra = extra + self._extra

    def _publish(self, entries: list[dict[str, bytes]]) -> bool:
        """Publish a batch; False after an error, when some of it may be there."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for fields in entries:
                pipeline.xadd(Keys().events, fields)  # type: ignore[arg-type]
            try:
                pipeline.execute()
            except redis.RedisError:
                self.errors += 1
                sleep(0.02)
                return False
        return True

    def _mistakes(self) -> list[dict[str, bytes]]:
        draw = self._random.random()
        if draw < 0.06:
            self.planted += 1
            return [self._bad()]
        if draw < 0.16 and self.cursor > 20:
            return [{"e": self._sent_again()}]
        return []

    def _bad(self) -> dict[str, bytes]:
        mark = MARK + str(self.planted).encode()
        return self._random.choice(
            [
                {"e": b"not JSON, " + mark},
                {"e": b'{"type":"signal","signal_id":"' + mark + b'"}'},
                {"e": b'{"type":"close","signal_id":"' + mark + b'","ts":"2020-01-01T00:00:00Z"'
                      b',"return_pct":1e999}'},
                {"e": b'{"type":"control","command":"refit","ts":"2020-01-01T00:00:00Z","by":"'
                      + mark + b'","reason":"x","sig":"' + b"0" * 64 + b'"}'},
                {"event": b"{}", "mark": mark},
            ]
        )  # fmt: skip

    def _sent_again(self) -> bytes:
        """A line published lately; if it is a signal, with other features."""
        data = self.lines[self._random.randrange(max(0, self.cursor - 200), self.cursor)]
        event = orjson.loads(data)
        if event["type"] != "signal":
            return data
        event["features"] = {
            name: -value if isinstance(value, float) else value
            for name, value in event["features"].items()
        }
        return orjson.dumps(event)
