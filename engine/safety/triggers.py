"""What turns the kill switch: conditions over decisions, closes, drift alarms and measurements.

Each watcher is told what happened and says whether its figure is past its threshold: True, False,
or None when nothing can be said of it now; `says` puts the figure in words. Which state that leads
to is the switch's affair. After a trigger was lifted its window begins anew: what it was lifted
after isn't held against the engine twice.

Shares of the newest closes are compared beyond doubt: see `drift.shares`. How often a healthy
engine is stopped all the same stands in ``docs/kill-switch.md``.
"""

from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from drift.shares import ACCURACY, BEHIND, MISCALIBRATION, Figure, ShareMonitors
from engine.ledger import OpenSignal, from_micros, to_micros
from engine.safety.equity import Equity
from engine.safety.settings import TriggerConfig, TriggersConfig
from streams.events import Close

LEARNED = 100
"""Closes before which nobody knows what is usual."""
DELAYS = 200
"""Newest closes by which the usual delay goes."""
REFERENCE = 1_000
"""Decisions before the window by which the usual range of probabilities goes."""
CHECK_EVERY = 200
"""Decisions between two looks at the range of probabilities."""


class Trade(NamedTuple):
    """A close as triggers see it."""

    ts: datetime
    delay_s: float
    probability: float
    won: bool
    taken: bool
    """By the model, and really."""
    baseline_takes: bool
    gain_pct: float
    """Percent of equity it brought, 0 when not taken."""
    sizes: float
    """How many usual sizes its return has, without its sign; 0 while none is known."""


def trade(opened: OpenSignal, close: Close, baseline_takes: bool, position_pct: float) -> Trade:
    """The close of a signal, as triggers see it.

    `position_pct` is the position that a size of 1 stands for where only the bot knows it.
    """
    taken = opened.arm == "model" and opened.action != "skip"
    share = opened.position
    if share is None:
        share = opened.size_multiplier * position_pct / 100.0
    return Trade(
        close.ts,
        (close.ts - opened.ts).total_seconds(),
        opened.outlook.probability,
        close.return_pct > 0,
        taken,
        baseline_takes,
        share * close.return_pct if taken else 0.0,
        abs(close.return_pct) / opened.frozen.scale if opened.update >= LEARNED else 0.0,
    )


class ConsecutiveLosses:
    """Losses of taken trades in a row."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._losses = 0

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        if not trade.taken:
            return None
        self._losses = 0 if trade.won else self._losses + 1
        return self._losses >= self._config.threshold

    def says(self) -> str:
        """The figure in words."""
        return f"{self._losses} losses of taken trades in a row"

    def clear(self) -> None:
        """Begin to count anew."""
        self._losses = 0

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"losses": self._losses}

    def restore(self, losses: int) -> None:
        """Go on from what `state` gave."""
        self._losses = losses


class AbsurdReturns:
    """Returns that no trade has, in a row."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._count = 0

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        if trade.sizes <= self._config.threshold:
            self._count = 0
            return False
        self._count += 1
        return self._count >= self._config.window

    def says(self) -> str:
        """The figure in words."""
        sizes = self._config.threshold
        return f"{self._count} closes in a row had more than {sizes:g} times the usual return"

    def clear(self) -> None:
        """Begin to count anew."""
        self._count = 0

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"count": self._count}

    def restore(self, count: int) -> None:
        """Go on from what `state` gave."""
        self._count = count


class Drawdown:
    """Equity below its highest point."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._equity = Equity(config.window)

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        if not trade.taken:
            return None
        self._equity.add(trade.gain_pct)
        return self._equity.drawdown > self._config.threshold

    def says(self) -> str:
        """The figure in words."""
        down, trades = self._equity.drawdown, self._config.window
        return (
            f"equity is {down:.2f} % below its highest point of the newest {trades:,} taken trades"
        )

    def clear(self) -> None:
        """The highest point is now."""
        self._equity.clear()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return self._equity.state()

    def restore(self, **state: Any) -> None:
        """Go on from what `state` gave."""
        self._equity.restore(**state)


class Share:
    """One of the figures that `ShareMonitors` watches, in words."""

    def __init__(self, monitors: ShareMonitors, figure: int, kind: int, window: int) -> None:
        self._monitors = monitors
        self._figure = figure
        self._kind = kind
        self._window = window

    def says(self) -> str:
        """The figure in words."""
        a, b, c, d = self._monitors.sums(self._figure)
        count = self._window
        if self._kind == ACCURACY:
            return f"{a / count:.1%} of the newest {count:,} closes were called right"
        if self._kind == BEHIND:
            return (
                f"taken trades win {b / max(a, 1):.1%} of the time, those the baseline takes"
                f" {d / max(c, 1):.1%}"
            )
        return (
            f"{a / count:.1%} of the newest {count:,} closes should have won,"
            f" but {b / count:.1%} did"
        )

    def clear(self) -> None:
        """Begin the window anew."""
        self._monitors.clear(self._figure)

    def state(self) -> dict[str, object]:
        """Nothing: the monitors have it."""
        return {}

    def restore(self) -> None:
        """Nothing."""


KINDS = {
    "accuracy": ACCURACY,
    "accuracy_low": ACCURACY,
    "win_rate": BEHIND,
    "win_rate_low": BEHIND,
    "calibration": MISCALIBRATION,
}
"""The triggers that look at shares of the newest closes."""


def share_monitors(config: TriggersConfig) -> tuple[list[str], ShareMonitors]:
    """Those of `KINDS` that are enabled, in the order of their figures."""
    names = [name for name in KINDS if getattr(config, name).enabled]
    settings = {name: getattr(config, name) for name in names}
    figures = [Figure(KINDS[n], settings[n].window, settings[n].threshold) for n in names]
    return names, ShareMonitors(figures)


class RepeatedDrift:
    """Alarms of the mixture's drift detector within the newest closes."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._alarms: list[int] = []

    def drifted(self, closes: int) -> bool:
        """The detector alarmed at that close."""
        since = closes - self._config.window
        self._alarms = [at for at in self._alarms if at > since] + [closes]
        return len(self._alarms) >= self._config.threshold

    def says(self) -> str:
        """The figure in words."""
        return f"the log loss rose {len(self._alarms)} times within {self._config.window:,} closes"

    def clear(self) -> None:
        """Begin to count anew."""
        self._alarms = []

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"alarms": list(self._alarms)}

    def restore(self, alarms: list[int]) -> None:
        """Go on from what `state` gave."""
        self._alarms = list(alarms)


class LateLabels:
    """No close at all for a multiple of the usual delay, though signals come."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._delays = [0.0] * DELAYS
        self._count = 0
        self._usual_s = 0.0
        self._last: datetime | None = None
        self._signals = 0
        self._times = 0.0

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        self._delays[self._count % DELAYS] = max(trade.delay_s, 0.0)
        self._count += 1
        if self._count % DELAYS == 0:
            self._usual_s = float(np.quantile(self._delays, 0.9))
        late = self._signals >= self._config.window
        self._last, self._signals = trade.ts, 0
        return False if late else None

    def decided(self, probability: float, now: datetime) -> bool | None:
        """A signal was decided at event time `now`."""
        self._signals += 1
        if self._signals < self._config.window or self._last is None or not self._usual_s:
            return None
        self._times = (now - self._last).total_seconds() / self._usual_s
        return self._times > self._config.threshold

    def says(self) -> str:
        """The figure in words."""
        return (
            f"no close for {self._times:.1f} times the usual delay of"
            f" {self._usual_s / 60.0:,.0f} minutes, while {self._signals:,} signals came"
        )

    def clear(self) -> None:
        """Begin to count anew."""
        self._signals = 0

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "delays": np.array(self._delays),
            "count": self._count,
            "usual_s": self._usual_s,
            "last": None if self._last is None else to_micros(self._last),
            "signals": self._signals,
        }

    def restore(
        self, delays: Any, count: int, usual_s: float, last: int | None, signals: int
    ) -> None:
        """Go on from what `state` gave."""
        self._delays = delays.tolist()
        self._count, self._usual_s, self._signals = count, usual_s, signals
        self._last = None if last is None else from_micros(last)


class ProbabilityRange:
    """Newest decisions whose probability lies outside of the usual range of those before."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._capacity = REFERENCE + config.window
        # A list: numpy takes longer to put in one number than the rest of this.
        self._ring = [0.0] * self._capacity
        self._count = 0
        self._found = (0.0, 0.0, 1.0)

    def decided(self, probability: float, now: datetime) -> bool | None:
        """A signal was decided."""
        self._ring[self._count % self._capacity] = probability
        self._count += 1
        if self._count < self._capacity or self._count % CHECK_EVERY:
            return None
        at = self._count % self._capacity
        ordered = np.array(self._ring[at:] + self._ring[:at])
        low, high = np.quantile(ordered[:REFERENCE], (0.01, 0.99)).tolist()
        newest = ordered[REFERENCE:]
        share = float(((newest < low) | (newest > high)).mean())
        self._found = (share, low, high)
        return share > self._config.threshold

    def says(self) -> str:
        """The figure in words."""
        share, low, high = self._found
        return (
            f"{share:.0%} of the newest {self._config.window:,} probabilities lie outside of the"
            f" usual {low:.3f} to {high:.3f}"
        )

    def clear(self) -> None:
        """Begin the window anew."""
        self._count = 0

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"ring": np.array(self._ring), "count": self._count}

    def restore(self, ring: Any, count: int) -> None:
        """Go on from what `state` gave."""
        self._ring = ring.tolist()
        self._count = count


class Measured:
    """What a worker's clock says, sent as a signed command."""

    def __init__(self, config: TriggerConfig, what: str) -> None:
        self._config = config
        self._what = what
        self._value = 0.0

    def measured(self, value: float) -> bool:
        """A worker says so."""
        self._value = value
        return value > self._config.threshold

    def says(self) -> str:
        """The figure in words."""
        return self._what.format(self._value)

    def clear(self) -> None:
        """Nothing: a measurement has no window here."""

    def state(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def restore(self) -> None:
        """Nothing."""


Watcher = (
    ConsecutiveLosses
    | AbsurdReturns
    | Drawdown
    | Share
    | RepeatedDrift
    | LateLabels
    | ProbabilityRange
    | Measured
)


def watchers(
    config: TriggersConfig, shares: list[str], monitors: ShareMonitors
) -> dict[str, Watcher]:
    """Those that are enabled, by the names of their settings; `shares` as `share_monitors` says."""
    made: dict[str, Watcher] = {
        "consecutive_losses": ConsecutiveLosses(config.consecutive_losses),
        "absurd_returns": AbsurdReturns(config.absurd_returns),
        "drawdown": Drawdown(config.drawdown),
        "latency": Measured(config.latency, "a decision takes {:,.0f} ms, one time in a hundred"),
        "late_labels": LateLabels(config.late_labels),
        "probability_range": ProbabilityRange(config.probability_range),
        "repeated_drift": RepeatedDrift(config.repeated_drift),
        "snapshot_age": Measured(config.snapshot_age, "the newest snapshot is {:,.0f} minutes old"),
    }
    for figure, name in enumerate(shares):
        made[name] = Share(monitors, figure, KINDS[name], getattr(config, name).window)
    return {name: watcher for name, watcher in made.items() if getattr(config, name).enabled}
