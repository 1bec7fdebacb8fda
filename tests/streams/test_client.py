"""What a bot and a reader of decisions can count on, held against both clients and every server."""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streams import protocol
from streams.aclient import AsyncClient
from streams.client import Client
from streams.connection import Connection, connect
from streams.errors import AddressError, ConnectionLost, EventError
from streams.events import (
    Alert,
    Close,
    Decision,
    ModelRef,
    Outcome,
    Signal,
    dead,
    decode,
    encode,
)
from streams.keys import Keys, shard_of
from streams.protocol import Receipt

NOW = datetime(2026, 5, 1, 13, 30, tzinfo=UTC)


class Blocking:
    """`AsyncClient` without the ``await``, so that one set of tests holds both clients."""

    def __init__(self, address: str, shards: int = 1) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(address, shards)
        self._iterators: list[Any] = []

    def __enter__(self) -> "Blocking":
        self._runner.__enter__()
        try:
            self._runner.run(self._client.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for iterator in self._iterators:
            self._runner.run(iterator.aclose())
        self._runner.run(self._client.__aexit__(None, None, None))
        self._runner.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if isinstance(result, Coroutine):
                return self._runner.run(result)
            return self._each(result)

        return call

    def _each(self, iterator: Any) -> Iterator[Any]:
        self._iterators.append(iterator)
        try:
            while True:
                yield self._runner.run(anext(iterator))
        except StopAsyncIteration:
            return


@pytest.fixture(params=[Client, Blocking], ids=["sync", "asyncio"])
def kind(request: pytest.FixtureRequest) -> type[Client]:
    found: type[Client] = request.param
    return found


@pytest.fixture
def client(kind: type[Client], address: str) -> Iterator[Client]:
    with kind(address) as opened:
        yield opened


def signal(signal_id: str = "a", symbol: str = "EURUSD") -> Signal:
    return Signal(
        signal_id=signal_id, ts=NOW, symbol=symbol, side="long", features={"rsi": 61.5, "gap": None}
    )


def close(signal_id: str = "a") -> Close:
    return Close(signal_id=signal_id, ts=NOW + timedelta(hours=1), return_pct=0.5)


def decision(entry_id: str, signal_id: str = "a") -> Decision:
    return Decision(
        decision_id=entry_id,
        signal_id=signal_id,
        ts=NOW,
        symbol="EURUSD",
        action="take",
        probability=0.7,
        expected_return_pct=0.1,
        risk=0.2,
        size_multiplier=1.0,
        reasons=("over_threshold",),
        model=ModelRef(update=0, last_close=None, champion=None, config="0123456789ab"),
    )


def outcome(signal_id: str) -> Outcome:
    return Outcome(
        signal_id=signal_id,
        ts=NOW,
        opened=NOW,
        symbol="EURUSD",
        side="long",
        action="take",
        probability=0.7,
        expected_return_pct=0.1,
        risk=0.2,
        size_multiplier=1.0,
        won=True,
        return_pct=0.5,
        executed=True,
        experts={"base_rate": 0.5},
        update=1,
    )


def alert(message: str) -> Alert:
    return Alert(ts=NOW, severity="info", code="drift", subject="log_loss", message=message)


def put(connection: Connection, key: str, data: bytes, entry_id: str = "*") -> str:
    return connection.redis.xadd(key, {"e": data}, id=entry_id).decode()


def decide(connection: Connection, entry_id: str, signal_id: str = "a", shard: int = 0) -> Decision:
    """Answer a signal as the worker does: under the signal's own ID."""
    answer = decision(entry_id, signal_id)
    put(connection, Keys(shard).decisions, encode(answer), entry_id)
    return answer


def published(connection: Connection, shard: int = 0) -> list[Any]:
    return [decode(fields[b"e"]) for _, fields in connection.redis.xrange(Keys(shard).events)]


class soon:  # noqa: N801 - reads as a verb
    """A call in another thread: its result, within a deadline."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(call)

    def result(self) -> Any:
        with self._pool:
            return self._future.result(timeout=20)


def wait_until_blocked(connection: Connection) -> None:
    """Return once some client of the server waits in a blocking read."""
    deadline = threading.Event()
    for _ in range(2_000):
        if connection.redis.info("clients")["blocked_clients"]:
            return
        deadline.wait(0.005)
    raise AssertionError("nobody came to wait")


# Publishing


def test_a_published_event_stands_in_the_input_under_the_receipt_s_id(
    client: Client, connection: Connection
) -> None:
    receipt = client.publish(signal())
    assert receipt == Receipt(receipt.id, "a", 0)
    ((entry_id, fields),) = connection.redis.xrange(Keys().events)
    assert (entry_id.decode(), fields) == (receipt.id, {b"e": encode(signal())})


def test_many_are_published_in_order(client: Client, connection: Connection) -> None:
    events = [event for n in range(1_200) for event in (signal(f"{n}"), close(f"{n}"))]
    receipts = client.publish_many(iter(events))
    assert published(connection) == events
    ids = [entry_id.decode() for entry_id, _ in connection.redis.xrange(Keys().events)]
    assert [receipt.id for receipt in receipts] == ids
    assert client.publish_many([]) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (replace(signal(), features={"a": "x" * 300}), "feature `a`: must be a"),
        (replace(signal(), features={"a": float("nan")}, price=1j), "complex"),
        (replace(signal(), meta={"a": "x" * 70_000}), "at most 65536 are read"),
        (replace(signal(), symbol="\ud800"), "surrogates not allowed"),
        (replace(signal(), ts=NOW.replace(tzinfo=None)), "is not an RFC 3339 time"),
        (decision("1-0"), "a Decision can't be published"),
    ],
)
def test_what_a_worker_would_refuse_is_never_sent(
    client: Client, connection: Connection, wrong: Signal, why: str
) -> None:
    with pytest.raises(EventError, match=why):
        client.publish(wrong)
    with pytest.raises(EventError, match=why):
        client.publish_many([signal(), wrong])
    assert connection.redis.exists(Keys().events) == 0


# Shards


def test_a_signal_goes_to_its_symbol_s_shard_and_its_close_follows(
    kind: type[Client], address: str, connection: Connection
) -> None:
    with kind(address, shards=4) as client:
        symbols = ["EURUSD", "XAUUSD", "AAPL", "BTCUSD", "MSFT"]
        events = [signal(symbol, symbol) for symbol in symbols]
        assert len({shard_of(symbol, 4) for symbol in symbols}) > 1
        for event in events:
            assert client.publish(event).shard == shard_of(event.symbol, 4)
        client.publish_many([close(symbol) for symbol in symbols])
    for shard in range(4):
        here = [event for event in events if shard_of(event.symbol, 4) == shard]
        assert published(connection, shard) == here + [close(event.signal_id) for event in here]


def test_a_close_of_another_s_signal_needs_the_symbol(
    kind: type[Client], address: str, connection: Connection
) -> None:
    with kind(address, shards=4) as client:
        with pytest.raises(EventError, match=r"shard of signal 'a' isn't known here.*`symbol=`"):
            client.publish(close())
        receipt = client.publish(close(), symbol="EURUSD")
    assert receipt.shard == shard_of("EURUSD", 4)
    assert published(connection, receipt.shard) == [close()]


def test_with_one_shard_a_close_needs_no_symbol(client: Client, connection: Connection) -> None:
    client.publish(close())
    assert published(connection) == [close()]


def test_the_oldest_signals_shards_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SHARDS_REMEMBERED", 2)
    router = protocol.Router(4)
    for name in ("a", "b", "a", "c"):
        router.route(signal(name))
    assert router.route(close("a")).shard == router.route(close("c")).shard
    with pytest.raises(EventError, match="shard of signal 'b' isn't known"):
        router.route(close("b"))


def test_there_is_at_least_one_shard() -> None:
    with pytest.raises(ValueError, match="shards must be at least 1; got 0"):
        Client("memory://none", shards=0)


# Waiting for a decision


def test_a_decision_already_there_is_returned(client: Client, connection: Connection) -> None:
    first, second = client.publish_many([signal("a"), signal("b")])
    expected = [decide(connection, first.id, "a"), decide(connection, second.id, "b")]
    assert [client.decision(first), client.decision(second)] == expected
    assert client.decision(first, timeout=0) == expected[0]


def test_a_decision_is_waited_for(client: Client, connection: Connection) -> None:
    receipt = client.publish(signal())
    worker = soon(lambda: decide(connection, receipt.id))
    assert client.decision(receipt) == worker.result()


def test_a_decision_on_another_shard_is_waited_for_there(
    kind: type[Client], address: str, connection: Connection
) -> None:
    with kind(address, shards=4) as client:
        receipt = client.publish(signal(symbol="XAUUSD"))
        assert receipt.shard > 0
        answer = decide(connection, receipt.id, shard=receipt.shard)
        assert client.decision(receipt) == answer


def test_without_a_decision_in_time_it_says_so(client: Client) -> None:
    receipt = client.publish(signal())
    told = f"no decision on signal 'a' (closeloop:{{0}}:events {receipt.id}) within 0.01 s; is a"
    with pytest.raises(TimeoutError, match=re.escape(told)):
        client.decision(receipt, timeout=0.01)


@pytest.mark.parametrize("address", ["redis_server"], indirect=True)
def test_a_copy_of_a_signal_gets_the_decision_on_the_first(
    client: Client, connection: Connection
) -> None:
    first, copy = client.publish(signal()), client.publish(signal())
    # The worker passes over the copy; whether others follow or not makes no difference.
    answer = decide(connection, first.id)
    assert client.decision(copy) == answer
    decide(connection, client.publish(signal("b")).id, "b")
    assert client.decision(copy) == answer


@pytest.mark.parametrize("address", ["redis_server"], indirect=True)
def test_a_copy_waits_for_the_decision_on_the_first(client: Client, connection: Connection) -> None:
    decide(connection, client.publish(signal("b")).id, "b")
    first, copy = client.publish(signal()), client.publish(signal())
    worker = soon(lambda: decide(connection, first.id))
    assert client.decision(copy) == worker.result()


def test_a_refused_signal_is_told_with_the_reason(client: Client, connection: Connection) -> None:
    receipt = client.publish(signal())
    letter = dead(Keys().events, receipt.id, "feature_type", "feature `rsi` was text before", b"")
    put(connection, Keys().dead, encode(letter))
    told = "signal 'a' .* was refused: feature `rsi` was text before"
    with pytest.raises(EventError, match=told):
        client.decision(receipt, timeout=0.01)
    decide(connection, client.publish(signal("b")).id, "b")
    with pytest.raises(EventError, match=told):
        client.decision(receipt)


def test_dead_letters_are_searched_a_few_at_a_time_and_not_for_ever(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LETTERS", 5)
    monkeypatch.setattr(protocol, "LOOK_BACK", 20)
    asked: list[int] = []
    newest = protocol._newest

    def counted(key: str, *arguments: Any) -> Any:
        asked.extend([arguments[2]] * (key == Keys().dead))
        return newest(key, *arguments)

    monkeypatch.setattr(protocol, "_newest", counted)
    receipts = [client.publish(signal(f"s{number}")) for number in range(23)]
    for receipt in receipts:
        letter = dead(Keys().events, receipt.id, "invalid", f"why {receipt.id}", b"")
        put(connection, Keys().dead, encode(letter))
    for receipt in (receipts[22], receipts[17], receipts[3]):
        with pytest.raises(EventError, match=f"why {receipt.id}"):
            client.decision(receipt, timeout=0.01)
    with pytest.raises(TimeoutError):
        client.decision(receipts[2], timeout=0.01)
    assert asked == [5] * (1 + 2 + 4 + 4)


def test_a_decision_that_was_trimmed_is_not_waited_for(
    client: Client, connection: Connection
) -> None:
    receipt = client.publish(signal())
    decide(connection, client.publish(signal("b")).id, "b")
    with pytest.raises(EventError, match="and later ones stand: it was trimmed, or"):
        client.decision(receipt, timeout=60)


@pytest.mark.parametrize("data", [b"\xff", b"nonsense", encode(alert("not a decision"))])
def test_an_entry_that_is_no_decision_is_named(
    client: Client, connection: Connection, data: bytes
) -> None:
    receipt = client.publish(signal())
    put(connection, Keys().decisions, data, receipt.id)
    told = re.escape(f"closeloop:{{0}}:decisions {receipt.id} holds no Decision: ")
    with pytest.raises(EventError, match=told):
        client.decision(receipt)
    with pytest.raises(EventError, match=told):
        next(client.decisions("0-0"))


def test_an_entry_of_someone_else_is_named(client: Client, connection: Connection) -> None:
    connection.redis.xadd(Keys().decisions, {"x": "y"}, id="1-0")
    told = re.escape("closeloop:{0}:decisions 1-0 has no field `e`")
    with pytest.raises(EventError, match=told):
        next(client.decisions("0-0"))


# Reading on


def test_decisions_are_read_from_a_position_and_on_from_any_of_them(
    client: Client, connection: Connection
) -> None:
    made = [decide(connection, f"{n}-0", f"{n}") for n in range(1, 1_201)]
    everything = list(client.decisions("0-0", timeout=0))
    assert everything == made
    resumed = client.decisions(after=everything[700].decision_id, timeout=0)
    assert list(resumed) == made[701:]


def test_from_now_on_means_from_the_call_on(address: str, connection: Connection) -> None:
    decide(connection, "1-0", "old")
    with Client(address) as client:
        following = client.decisions(timeout=5)
        new = decide(connection, "2-0", "new")
        assert next(following) == new


@pytest.mark.parametrize("address", ["redis_server"], indirect=True)
def test_an_asyncio_reader_gets_what_comes_while_it_waits(
    address: str, connection: Connection
) -> None:
    decide(connection, "1-0", "old")
    with Blocking(address) as client:
        read = soon(lambda: next(client.decisions(timeout=10)))
        wait_until_blocked(connection)
        assert decide(connection, "2-0", "new") == read.result()


def test_new_decisions_are_waited_for(client: Client, connection: Connection) -> None:
    worker = soon(lambda: [decide(connection, f"{n}-0") for n in (1, 2, 3)])
    following = client.decisions("0-0", timeout=10)
    assert [next(following) for _ in range(3)] == worker.result()


def test_reading_ends_when_nothing_comes_in_time(client: Client) -> None:
    assert list(client.decisions(timeout=0.01)) == []


def test_outcomes_and_alerts_come_with_their_positions(
    client: Client, connection: Connection
) -> None:
    for n in (1, 2):
        put(connection, Keys().outcomes, encode(outcome(f"{n}")), f"{n}-0")
        put(connection, Keys().alerts, encode(alert(f"{n}")), f"{n}-5")
    assert list(client.outcomes("0-0", timeout=0)) == [
        ("1-0", outcome("1")),
        ("2-0", outcome("2")),
    ]
    assert list(client.alerts("1-5", timeout=0)) == [("2-5", alert("2"))]


def test_each_shard_is_read_by_itself(client: Client, connection: Connection) -> None:
    here = decide(connection, "1-0", "a", shard=3)
    decide(connection, "2-0", "b", shard=0)
    assert list(client.decisions("0-0", shard=3, timeout=0)) == [here]


@pytest.mark.parametrize("after", ["", "now", "1-0-0", "-1", "+", ">"])
def test_a_position_that_is_none_is_told(client: Client, after: str) -> None:
    with pytest.raises(ValueError, match="after must be '\\$' or a stream ID like '0-0'; got"):
        next(client.decisions(after))


# Faults


def test_an_address_that_is_none_is_told(kind: type[Client]) -> None:
    with pytest.raises(AddressError), kind("nowhere"):
        pass


@pytest.mark.parametrize("address", ["redis_server"], indirect=True)
def test_a_dropped_connection_does_not_end_a_wait(client: Client, connection: Connection) -> None:
    receipt = client.publish(signal())
    waiting = soon(lambda: client.decision(receipt, timeout=20))
    wait_until_blocked(connection)
    connection.redis.client_kill_filter(_type="normal", skipme=True)
    answer = decide(connection, receipt.id)
    assert waiting.result() == answer


def test_a_wait_outlives_a_restart_of_the_server(kind: type[Client], tmp_path: Path) -> None:
    address = f"embedded://{tmp_path}"
    with kind(address) as client:
        receipt = client.publish(signal())
        following = client.decisions("0-0")
        waiting = soon(lambda: next(following))
        with connect(address) as connection:
            wait_until_blocked(connection)
            connection.redis.shutdown(nosave=True)
        with connect(address) as connection:
            answer = decide(connection, receipt.id)
            assert waiting.result() == answer
            assert client.decision(receipt) == answer


def test_a_server_that_stays_away_is_told_when_the_time_is_over(
    kind: type[Client], tmp_path: Path
) -> None:
    with kind(f"embedded://{tmp_path}") as client:
        receipt = client.publish(signal())
        with connect(f"embedded://{tmp_path}") as connection:
            connection.redis.shutdown(nosave=True)
        with pytest.raises(ConnectionLost, match="embedded://"):
            client.decision(receipt, timeout=0.2)
        with pytest.raises(ConnectionLost, match="embedded://"):
            list(client.decisions("0-0", timeout=0.2))
        with pytest.raises(ConnectionLost, match="embedded://"):
            client.publish(signal())


# The pure part


@pytest.mark.parametrize(
    ("entry_id", "before"),
    [
        ("5-3", "5-2"),
        ("5-1", "5-0"),
        ("5-0", "4-18446744073709551615"),
        ("0-1", "0-0"),
    ],
)
def test_the_position_before_an_id_is_right_before_it(entry_id: str, before: str) -> None:
    assert protocol._before(entry_id) == before
