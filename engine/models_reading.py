"""Reading what the streams say of models: the models stream whole, the others newest first.

Nothing is written. What a stream has trimmed is gone; functions say how far they could look.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.models_log import History, ModelRecord, Reign, UnknownModel, reconstruct
from engine.recording import recorded
from streams import START, Connection, EventError, Keys, StreamError, order
from streams.events import (
    Alert,
    Decision,
    ModelChange,
    Outcome,
    SnapshotNotice,
    Wire,
    decode_output,
)

_PAGE = 1_000


class NoModels(StreamError):
    """No refit has been made yet."""


def _quietly(entries: int) -> None:
    """Progress that nobody looks at."""


def read_history(
    connection: Connection, keys: Keys, progress: Callable[[int], None] = _quietly
) -> History:
    """The history that a shard's models stream tells. Raises `NoModels` when it is empty.

    `progress` is called with the number of entries that were read, page by page.
    """

    def entries() -> Iterator[tuple[str, ModelChange]]:
        for page in recorded(connection, keys.models, START, follow=False):
            for entry_id, data in page:
                yield entry_id, _decoded(ModelChange, keys.models, entry_id, data)
            progress(len(page))

    history = reconstruct(entries())
    if not history.logged:
        raise NoModels(
            f"no refit has been made yet: {keys.models} is empty; a worker (`closeloop run`)"
            " launches the first after refit.every closes, or `closeloop control refit` does"
        )
    return history


def newest_first(
    connection: Connection,
    key: str,
    model: type[Wire],
    progress: Callable[[int], None] = _quietly,
) -> Iterator[Wire]:
    """The records of an output stream, newest first, read page by page as they are asked for."""
    end = "+"
    while True:
        page: Any = connection.retrying(partial(connection.redis.xrevrange, key, end, "-", _PAGE))
        for entry_id, fields in page:
            yield _decoded(model, key, entry_id.decode(), fields.get(b"e", b""))
        progress(len(page))
        if len(page) < _PAGE:
            return
        end = f"({page[-1][0].decode()}"


def decision_of(
    connection: Connection,
    keys: Keys,
    signal_id: str,
    progress: Callable[[int], None] = _quietly,
) -> Decision:
    """The decision on a signal. Raises `UnknownModel` when the stream doesn't have it."""
    for decision in newest_first(connection, keys.decisions, Decision, progress):
        if decision.signal_id == signal_id:
            return decision
    raise UnknownModel(
        f"no decision on {signal_id!r} in {keys.decisions}; it keeps the newest"
        " stream.max_outputs, and a tape of the events replays them all"
    )


@dataclass(frozen=True, slots=True)
class Served:
    """What came of the signals that were decided while a model was champion.

    Parameters
    ----------
    outcomes
        In the order of their closes.
    whole
        Whether the streams reach back to the first of those decisions, and it was looked at.
    """

    outcomes: list[Outcome]
    whole: bool


def served(
    connection: Connection,
    keys: Keys,
    record: ModelRecord,
    most: int,
    progress: Callable[[int], None] = _quietly,
) -> Served:
    """The newest outcomes, at most so many, whose decisions name the model as champion."""
    if not record.reigns:
        return Served([], True)
    first, signals, whole = record.reigns[0].first, set[str](), False
    for decision in newest_first(connection, keys.decisions, Decision, progress):
        if decision.model.update < first:
            whole = True
            break
        if decision.model.champion == record.id:
            if len(signals) == most:
                break
            signals.add(decision.signal_id)
    found = []
    for outcome in newest_first(connection, keys.outcomes, Outcome, progress):
        if outcome.update <= first:
            break
        if outcome.signal_id in signals:
            found.append(outcome)
    return Served(found[::-1], whole)


def drift_alarms(
    connection: Connection,
    keys: Keys,
    reigns: Iterable[Reign],
    progress: Callable[[int], None] = _quietly,
) -> Counter[str]:
    """Alarms of the drift detectors during these reigns, by what drifted."""
    found: Counter[str] = Counter()
    for reign in reigns:
        end = None if reign.ended is None else order(reign.ended.id)
        start = START if reign.began is None else reign.began.id
        for page in recorded(connection, keys.alerts, start, follow=False):
            progress(len(page))
            for entry_id, data in page:
                if end is not None and order(entry_id) > end:
                    break
                alert = _decoded(Alert, keys.alerts, entry_id, data)
                if alert.code in ("drift", "feature_drift"):
                    found[alert.subject] += 1
            else:
                continue
            break
    return found


def snapshots(connection: Connection, keys: Keys, limit: int) -> list[SnapshotNotice]:
    """The snapshots that were announced, newest first, at most `limit`."""
    found: Any = connection.retrying(
        lambda: connection.redis.xrevrange(keys.snapshots, "+", "-", limit)
    )
    return [
        _decoded(SnapshotNotice, keys.snapshots, entry_id.decode(), fields.get(b"e", b""))
        for entry_id, fields in found
    ]


def _decoded(model: type[Wire], key: str, entry_id: str, data: bytes) -> Wire:
    try:
        return decode_output(model, data)
    except EventError as error:
        raise StreamError(
            f"{key} has at {entry_id} what this version of closeloop can't read: {error};"
            " use the version that the worker runs"
        ) from None
