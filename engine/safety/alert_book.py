"""Which alerts are said: the same isn't said twice, and a flood is summed up.

- What happens (a refit, an expired signal) is said once in `repeat_minutes` for each code and
  subject; what is held back meanwhile is counted, and the next one says how many: `unsaid`.
- A condition is said when it begins (``firing``) and when it is over (``resolved``), not between.
- Past `max_per_hour` alerts that aren't critical are held back, too, and counted by code.

Time is event time. Answers to a person's command, and the
daily summary, are always said.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from engine.finding import Finding
from engine.ledger import from_micros, to_micros
from engine.safety.settings import AlertsConfig
from streams.events import Alert

REMEMBERED = 1_000
"""Codes with subjects that are remembered; past it the one said longest ago is forgotten."""
_HOUR = timedelta(hours=1)


class AlertBook:
    """Remembers what was said.

    Parameters
    ----------
    config
        How often the same may be said.
    """

    def __init__(self, config: AlertsConfig) -> None:
        self._repeat = timedelta(minutes=config.repeat_minutes)
        self._max_per_hour = config.max_per_hour
        # When each was said last, and how many were held back since.
        self._said: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._unsaid: dict[tuple[str, str], int] = {}
        self._firing: dict[tuple[str, str], None] = {}
        self._hour: deque[datetime] = deque()
        self.held_back = 0
        """Alerts that were not said, since the beginning."""

    def say(self, finding: Finding, ts: datetime, now: datetime) -> Alert | None:
        """The alert to publish for what was found; None when it is held back.

        Parameters
        ----------
        finding
            What there is to say.
        ts
            When it happened: stands in the alert.
        now
            Event time, which goes on evenly.
        """
        key = (finding.code, finding.subject)
        if not finding.always and not self._may(finding, key, now):
            self.held_back += 1
            # By subject where that is what repeats, else by code alone.
            counted = key if key in self._said else (finding.code, "")
            self._unsaid[counted] = self._unsaid.get(counted, 0) + 1
            return None
        self._remember(finding, key, now)
        unsaid = self._unsaid.pop(key, 0) + self._unsaid.pop((finding.code, ""), 0)
        return Alert(
            ts=ts,
            severity=finding.severity,
            code=finding.code,
            subject=finding.subject,
            message=finding.message,
            state=finding.state,
            unsaid=unsaid or None,
        )

    def _may(self, finding: Finding, key: tuple[str, str], now: datetime) -> bool:
        if finding.state == "firing":
            return key not in self._firing
        if finding.state == "resolved":
            return key in self._firing
        said = self._said.get(key)
        if said is not None and abs(now - said) < self._repeat:
            return False
        if finding.severity == "critical":
            return True
        hour = self._hour
        # Event time may go back, by a wrong clock that was found out: that hour never ends else.
        while hour and not timedelta(0) <= now - hour[0] < _HOUR:
            hour.popleft()
        return len(hour) < self._max_per_hour

    def _remember(self, finding: Finding, key: tuple[str, str], now: datetime) -> None:
        if finding.state == "firing":
            self._firing[key] = None
        elif finding.state == "resolved":
            self._firing.pop(key, None)
        else:
            self._said[key] = now
            self._said.move_to_end(key)
            if len(self._said) > REMEMBERED:
                forgotten, _ = self._said.popitem(last=False)
                left = self._unsaid.pop(forgotten, 0)
                if left:
                    by_code = (forgotten[0], "")
                    self._unsaid[by_code] = self._unsaid.get(by_code, 0) + left
            self._hour.append(now)
            if len(self._hour) > self._max_per_hour:
                self._hour.popleft()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "said": [[*key, to_micros(at)] for key, at in self._said.items()],
            "unsaid": [[*key, count] for key, count in self._unsaid.items()],
            "firing": [list(key) for key in self._firing],
            "hour": [to_micros(at) for at in self._hour],
            "held_back": self.held_back,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._said = OrderedDict(((c, s), from_micros(at)) for c, s, at in state["said"])
        self._unsaid = {(code, subject): count for code, subject, count in state["unsaid"]}
        self._firing = dict.fromkeys((code, subject) for code, subject in state["firing"])
        self._hour = deque(from_micros(at) for at in state["hour"])
        self.held_back = state["held_back"]
