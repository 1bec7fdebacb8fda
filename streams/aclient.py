"""The asyncio client: `streams.client.Client`, word for word, with ``await``.

async with AsyncClient("redis://localhost:6379") as client:
    receipt = await client.publish(signal)
    decision = await client.decision(receipt, timeout=1.0)
    async for decision in client.decisions(after=decision.decision_id):
        ...
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
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


class AsyncClient:
    """`Client` for asyncio, to be used with ``async with``, which connects and closes it.

    Parameters, errors and promises are those of `Client`. Tasks may share one.
    """

    def __init__(self, address: str, shards: int = 1) -> None:
        self._address = address
        self._router = protocol.Router(shards)

    async def publish(self, event: Signal | Close, *, symbol: str | None = None) -> Receipt:
        """See `Client.publish`."""
        (receipt,) = await self._carry(protocol.publish([self._router.route(event, symbol)]))
        return receipt

    async def publish_many(self, events: Iterable[Signal | Close]) -> list[Receipt]:
        """See `Client.publish_many`."""
        return await self._carry(protocol.publish([self._router.route(event) for event in events]))

    async def decision(self, receipt: Receipt, timeout: float = 5.0) -> Decision:
        """See `Client.decision`."""
        return await self._carry(protocol.await_decision(receipt, timeout))

    async def decisions(
        self, after: str = "$", *, shard: int = 0, timeout: float | None = None
    ) -> AsyncIterator[Decision]:
        """See `Client.decisions`; ``$`` means from when the first is awaited."""
        async for _, decision in self._follow(Keys(shard).decisions, Decision, after, timeout):
            yield decision

    def outcomes(
        self, after: str = "$", *, shard: int = 0, timeout: float | None = None
    ) -> AsyncIterator[tuple[str, Outcome]]:
        """See `Client.outcomes`."""
        return self._follow(Keys(shard).outcomes, Outcome, after, timeout)

    def alerts(
        self, after: str = "$", *, shard: int = 0, timeout: float | None = None
    ) -> AsyncIterator[tuple[str, Alert]]:
        """See `Client.alerts`."""
        return self._follow(Keys(shard).alerts, Alert, after, timeout)

    async def _follow(
        self, key: str, model: type[_Output], after: str, timeout: float | None
    ) -> AsyncIterator[tuple[str, _Output]]:
        position = await self._carry(protocol.start_of(key, after))
        while found := await self._carry(protocol.read_after(key, position, timeout)):
            for position, data in found:
                yield position, protocol.decoded(model, key, position, data)

    async def _carry(self, conversation: Conversation[_T]) -> _T:
        """Carry a conversation over this client's connection."""
        try:
            step = next(conversation)
            while True:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    step = conversation.send(None)
                    continue
                try:
                    with translated(self._connection.address):
                        reply = await step(self._redis)
                except ConnectionLost as lost:
                    step = conversation.throw(lost)
                else:
                    step = conversation.send(reply)
        except StopIteration as end:
            result: _T = end.value
            return result

    async def __aenter__(self) -> Self:
        # An embedded server may take a moment to start; the loop goes on meanwhile.
        self._connection = await asyncio.to_thread(connect, self._address)
        self._redis = self._connection.aio()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._redis.aclose()
        await asyncio.to_thread(self._connection.close)
