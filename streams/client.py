"""The client for bots and for whoever reads decisions.

    with Client("redis://localhost:6379") as client:
        receipt = client.publish(
            Signal(signal_id="t-1", ts=now, symbol="EURUSD", side="long", features={"rsi": 61.5})
        )
        decision = client.decision(receipt, timeout=1.0)
        ...
        client.publish(Close(signal_id="t-1", ts=later, return_pct=0.42))

Publishing checks every field, before anything is sent. The same for asyncio is
`streams.aclient.AsyncClient`.

Publishing is at least once. After `ConnectionLost` nobody knows whether the server took the event:
publish it again, with the same `signal_id`. A copy is counted and otherwise passed over; the
signal's one decision is found whichever copy's receipt is asked with.
"""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from msgspec import Struct

from streams import protocol
from streams.connection import connect, translated
from streams.errors import ConnectionLost
from streams.events import Alert, Close, Decision, Outcome, Signal
from streams.keys import Keys
from streams.protocol import Conversation, Receipt

_T = TypeVar("_T")
_Output = TypeVar("_Output", bound=Struct)


class Client:
    """A bot's or a reader's way to the streams. Threads may share one.

    Parameters
    ----------
    address
        As `streams.connection.connect` takes it, and with its errors.
    shards
        How many shards the workers serve; the same number everywhere.

    Every method raises `ConnectionLost` when the server can't be reached, and `ServerError` when it
    refuses. Whatever waits outlives a server's restart, as far as its time-out allows.
    """

    def __init__(self, address: str, shards: int = 1) -> None:
        self._router = protocol.Router(shards)
        self._connection = connect(address)

    def publish(self, event: Signal | Close, *, symbol: str | None = None) -> Receipt:
        """Publish an event. Returns where it stands, to ask for its decision with.

        A signal goes to its symbol's shard, and a close to where its signal went. With more than
        one shard, `symbol` is needed for the close of a signal that this client didn't publish.

        Raises `EventError`, before anything is sent, when a worker would refuse the event.
        """
        (receipt,) = self._carry(protocol.publish([self._router.route(event, symbol)]))
        return receipt

    def publish_many(self, events: Iterable[Signal | Close]) -> list[Receipt]:
        """Publish events in order, in few round trips.

        Raises `EventError`, before any of them is sent, when a worker would refuse one. After
        `ConnectionLost` some of them may have been taken: publish all of them again.
        """
        return self._carry(protocol.publish([self._router.route(event) for event in events]))

    def decision(self, receipt: Receipt, timeout: float = 5.0) -> Decision:
        """Wait up to `timeout` seconds for the decision on a published signal.

        Raises `TimeoutError` when none came, and `EventError` when none will: the signal was
        refused (the message says why), or its decision was trimmed.
        """
        return self._carry(protocol.await_decision(receipt, timeout))

    def decisions(
        self, after: str = "$", *, shard: int = 0, timeout: float | None = None
    ) -> Iterator[Decision]:
        """The decisions of one shard after a position, in input order.

        Parameters
        ----------
        after
            ``$`` for those from now on, ``0-0`` for all that are kept, or the `decision_id` of the
            last one handled, to go on where an earlier process stopped.
        shard
            Which shard's.
        timeout
            Seconds to wait for the next before it ends; without, it waits for good.

        Raises `EventError`, with stream and ID, at an entry that is no decision.
        """
        found = self._follow(Keys(shard).decisions, Decision, after, timeout)
        return (decision for _, decision in found)

    def outcomes(
        self, after: str = "$", *, shard: int = 0, timeout: float | None = None
    ) -> Iterator[tuple[str, Outcome]]:
        """Like `decisions`, the outcomes, each with its position to go on after."""
        return self._follow(Keys(shard).outcomes, Outcome, after, timeout)

    def alerts(
        self, after: str = "$", *, shard: int = 0, timeout: float | None = None
    ) -> Iterator[tuple[str, Alert]]:
        """Like `decisions`, the alerts, each with its position to go on after."""
        return self._follow(Keys(shard).alerts, Alert, after, timeout)

    def _follow(
        self, key: str, model: type[_Output], after: str, timeout: float | None
    ) -> Iterator[tuple[str, _Output]]:
        # Not in the generator: "$" means now, not when the first is asked for.
        return self._entries(key, model, self._carry(protocol.start_of(key, after)), timeout)

    def _entries(
        self, key: str, model: type[_Output], position: str, timeout: float | None
    ) -> Iterator[tuple[str, _Output]]:
        while found := self._carry(protocol.read_after(key, position, timeout)):
            for position, data in found:
                yield position, protocol.decoded(model, key, position, data)

    def _carry(self, conversation: Conversation[_T]) -> _T:
        """Carry a conversation over this client's connection."""
        try:
            step = next(conversation)
            while True:
                if isinstance(step, float):
                    time.sleep(step)
                    step = conversation.send(None)
                    continue
                try:
                    with translated(self._connection.address):
                        reply = step(self._connection.redis)
                except ConnectionLost as lost:
                    step = conversation.throw(lost)
                else:
                    step = conversation.send(reply)
        except StopIteration as end:
            result: _T = end.value
            return result

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
