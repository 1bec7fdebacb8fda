"""What waits for a receiver: a bounded number of alerts one by one, the others as a sum by code."""

from collections import Counter
from dataclasses import dataclass

from engine.notify.marks import AlertStream, Mark
from engine.notify.message import TRIMMED
from engine.notify.receiver import Receiver
from streams.events import Alert, Severity

PAGE = 256
DAILY = "daily_summary"

_RANKS: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a receiver is to be told.

    Parameters
    ----------
    told
        Alerts to tell one by one, in the stream's order.
    summed
        How many others there are, by code.
    end
        Up to where all that reaches.
    """

    told: list[tuple[Mark, Alert]]
    summed: Counter[str]
    end: Mark


def gather(stream: AlertStream, begin: Mark, receiver: Receiver) -> Backlog | None:
    """What waits for `receiver` after `begin`; None when nothing does.

    When more waits than `receiver.most`, the most severe are told, and of those the latest. Raises
    `StreamError`.
    """
    told: list[tuple[Mark, Alert]] = []
    summed: Counter[str] = Counter()
    end = begin
    while page := stream.after(end, PAGE):
        first = page[0][0]
        if first.number is not None and end.number is not None:
            summed[TRIMMED] += first.number - end.number - 1
        end = page[-1][0]
        told += [entry for entry in page if _is_for(receiver, entry[1])]
        if receiver.most is None:
            break
        told, others = _most_severe(told, receiver.most)
        summed.update(alert.code for _, alert in others)
    return None if end == begin else Backlog(told, +summed, end)


def _is_for(receiver: Receiver, alert: Alert) -> bool:
    """Whether a receiver is told of an alert: of the daily summary each is."""
    return alert.code == DAILY or _RANKS[alert.severity] >= _RANKS[receiver.least]


def _most_severe(
    entries: list[tuple[Mark, Alert]], most: int
) -> tuple[list[tuple[Mark, Alert]], list[tuple[Mark, Alert]]]:
    """`most` of them, and the others, both in order."""
    places = sorted(range(len(entries)), key=lambda place: (_rank(entries[place]), place))
    chosen = set(places[-most:])
    told = [entry for place, entry in enumerate(entries) if place in chosen]
    return told, [entry for place, entry in enumerate(entries) if place not in chosen]


def _rank(entry: tuple[Mark, Alert]) -> int:
    return _RANKS[entry[1].severity]
