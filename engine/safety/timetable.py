"""Refits by event time: daily, and weekly in full. UTC, as all times on the wire."""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

from engine.ledger import from_micros, to_micros
from learners import Order

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = timedelta(days=1)


def time_of_day(text: str) -> time:
    """``02:00`` as a time. Raises `ValueError`."""
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time of day; write it as 02:00") from None


def time_of_week(text: str) -> tuple[int, time]:
    """``Sunday 03:00`` as days since Monday, and a time. Raises `ValueError`."""
    day, _, at = text.strip().partition(" ")
    if day.lower() not in WEEKDAYS:
        raise ValueError(f"{text!r} doesn't begin with a day of the week; write it as Sunday 03:00")
    return WEEKDAYS.index(day.lower()), time_of_day(at.strip())


class Timetable:
    """Says when a refit is due by event time.

    Parameters
    ----------
    daily_at, weekly_at
        As in ``02:00`` and ``Sunday 03:00``; None: never.
    """

    def __init__(self, daily_at: str | None, weekly_at: str | None) -> None:
        self._daily = None if daily_at is None else time_of_day(daily_at)
        self._weekly = None if weekly_at is None else time_of_week(weekly_at)
        # When each is due next; None before the first event.
        self._next: dict[str, datetime] = {}

    def due(self, now: datetime) -> list[Order]:
        """What has become due at event time `now`. However many were missed, one is due."""
        if self._daily is None and self._weekly is None:
            return []
        orders = []
        for cause, following in (("daily", self._next_daily), ("weekly", self._next_weekly)):
            due = self._next.get(cause)
            # What is further away was set by a wrong clock.
            if due is not None and now < due <= now + 7 * _DAY:
                continue
            after = following(now)
            if after is None:
                continue
            self._next[cause] = after
            if due is not None and due <= now:
                orders.append(Order(cause, full=cause == "weekly"))
        return orders

    def _next_daily(self, now: datetime) -> datetime | None:
        if self._daily is None:
            return None
        return _following(now, self._daily, _DAY)

    def _next_weekly(self, now: datetime) -> datetime | None:
        if self._weekly is None:
            return None
        day, at = self._weekly
        return _following(now + _DAY * ((day - now.weekday()) % 7), at, 7 * _DAY, now)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {cause: to_micros(due) for cause, due in self._next.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._next = {cause: from_micros(micros) for cause, micros in state.items()}


def _following(
    day: datetime, at: time, step: timedelta, after: datetime | None = None
) -> datetime | None:
    """That time of that day, or a step later when it has passed; None past the calendar's end."""
    try:
        due = datetime.combine(day.date(), at, tzinfo=UTC)
        return due if due > (after or day) else due + step
    except OverflowError:
        return None
