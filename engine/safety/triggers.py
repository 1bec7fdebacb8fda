"""What turns the kill switch: conditions over decisions, closes, drift alarms and measurements.

Each watcher is told what happened and says whether its figure is past its threshold: True, False,
or None when nothing can be said of it now; `says` puts the figure in words. Which state that leads
to is the switch's affair. After a trigger was lifted its window begins anew: what it was lifted
after isn't held against the engine twice.

Shares of a window are compared *beyond doubt*: by `DOUBT` standard errors more than the threshold.
They are over when the plain figure is back at it; between the two nothing changes. How often a
healthy engine is stopped all the same stands in ``docs/kill-switch.md``.
"""

from datetime import datetime
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from engine.ledger import OpenSignal, from_micros, to_micros
from engine.safety.settings import TriggerConfig, TriggersConfig
from engine.safety.windows import Equity, Sums
from streams.events import Close

DOUBT = 3.0
"""Standard errors past a threshold at which nobody calls it luck. (Trades that overlap win and lose
together; a normal deviate of 3 is passed by luck alone once in 741 independent windows.)"""
LEAST_TRADES = 50
"""Taken trades of a window below which their win rate says nothing."""
DELAYS = 200
"""Newest closes by which the usual delay goes."""
REFERENCE = 1_000
"""Decisions before the window by which the usual range of probabilities goes."""
CHECK_EVERY = 50
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


class Accuracy:
    """The share of closes that the probability called: above a half for a win, else for a loss."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._sums = Sums(config.window, 1)

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        self._sums.add((float((trade.probability > 0.5) == trade.won),))
        if not self._sums.full:
            return None
        count = self._sums.window
        share = self._sums.sums[0] / count
        high = share + DOUBT * sqrt(share * (1.0 - share) / count)
        if high < self._config.threshold:
            return True
        return False if share >= self._config.threshold else None

    def says(self) -> str:
        """The figure in words."""
        count = self._sums.window
        return f"{self._sums.sums[0] / count:.1%} of the newest {count:,} closes were called right"

    def clear(self) -> None:
        """Begin the window anew."""
        self._sums.clear()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return self._sums.state()

    def restore(self, **state: Any) -> None:
        """Go on from what `state` gave."""
        self._sums.restore(**state)


class WinRate:
    """How much more rarely taken trades win than those the bots' baseline takes."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._sums = Sums(config.window, 4)

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        taken, echoed, won = trade.taken, trade.baseline_takes, trade.won
        self._sums.add((float(taken), float(taken and won), float(echoed), float(echoed and won)))
        n, wins, base_n, base_wins = self._sums.sums
        if not self._sums.full or min(n, base_n) < LEAST_TRADES:
            return None
        rate, base = wins / n, base_wins / base_n
        behind = 100.0 * (base - rate)
        error = 100.0 * sqrt(rate * (1.0 - rate) / n + base * (1.0 - base) / base_n)
        if behind - DOUBT * error > self._config.threshold:
            return True
        return False if behind <= self._config.threshold else None

    def says(self) -> str:
        """The figure in words."""
        n, wins, base_n, base_wins = self._sums.sums
        return (
            f"taken trades win {wins / max(n, 1):.1%} of the time, those the baseline takes"
            f" {base_wins / max(base_n, 1):.1%}"
        )

    def clear(self) -> None:
        """Begin the window anew."""
        self._sums.clear()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return self._sums.state()

    def restore(self, **state: Any) -> None:
        """Go on from what `state` gave."""
        self._sums.restore(**state)


class Calibration:
    """How far the mean probability is from the share that won."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._sums = Sums(config.window, 3)

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        p = trade.probability
        self._sums.add((p, float(trade.won), p * (1.0 - p)))
        if not self._sums.full:
            return None
        count = self._sums.window
        expected, won, variance = self._sums.sums
        off = 100.0 * abs(expected - won) / count
        error = 100.0 * sqrt(max(variance, 0.0)) / count
        if off - DOUBT * error > self._config.threshold:
            return True
        return False if off <= self._config.threshold else None

    def says(self) -> str:
        """The figure in words."""
        count, (expected, won, _) = self._sums.window, self._sums.sums
        return (
            f"{expected / count:.1%} of the newest {count:,} closes should have won,"
            f" but {won / count:.1%} did"
        )

    def clear(self) -> None:
        """Begin the window anew."""
        self._sums.clear()

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return self._sums.state()

    def restore(self, **state: Any) -> None:
        """Go on from what `state` gave."""
        self._sums.restore(**state)


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
        self._delays = np.zeros(DELAYS)
        self._count = 0
        self._usual_s = 0.0
        self._last: datetime | None = None
        self._signals = 0
        self._times = 0.0

    def closed(self, trade: Trade) -> bool | None:
        """A close came."""
        self._delays[self._count % DELAYS] = max(trade.delay_s, 0.0)
        self._count += 1
        if self._count % 20 == 0 and self._count >= DELAYS:
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
            "delays": self._delays,
            "count": self._count,
            "usual_s": self._usual_s,
            "last": None if self._last is None else to_micros(self._last),
            "signals": self._signals,
        }

    def restore(
        self, delays: Any, count: int, usual_s: float, last: int | None, signals: int
    ) -> None:
        """Go on from what `state` gave."""
        self._delays = np.array(delays)
        self._count, self._usual_s, self._signals = count, usual_s, signals
        self._last = None if last is None else from_micros(last)


class ProbabilityRange:
    """Newest decisions whose probability lies outside of the usual range of those before."""

    def __init__(self, config: TriggerConfig) -> None:
        self._config = config
        self._capacity = REFERENCE + config.window
        self._ring = np.zeros(self._capacity)
        self._count = 0
        self._found = (0.0, 0.0, 1.0)

    def decided(self, probability: float, now: datetime) -> bool | None:
        """A signal was decided."""
        self._ring[self._count % self._capacity] = probability
        self._count += 1
        if self._count < self._capacity or self._count % CHECK_EVERY:
            return None
        at = self._count % self._capacity
        ordered = np.concatenate((self._ring[at:], self._ring[:at]))
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
        return {"ring": self._ring, "count": self._count}

    def restore(self, ring: Any, count: int) -> None:
        """Go on from what `state` gave."""
        self._ring = np.array(ring)
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
    | Drawdown
    | Accuracy
    | WinRate
    | Calibration
    | RepeatedDrift
    | LateLabels
    | ProbabilityRange
    | Measured
)


def watchers(config: TriggersConfig) -> dict[str, Watcher]:
    """Those that are enabled, by the names of their settings."""
    made: dict[str, Watcher] = {
        "consecutive_losses": ConsecutiveLosses(config.consecutive_losses),
        "drawdown": Drawdown(config.drawdown),
        "accuracy": Accuracy(config.accuracy),
        "accuracy_low": Accuracy(config.accuracy_low),
        "win_rate": WinRate(config.win_rate),
        "win_rate_low": WinRate(config.win_rate_low),
        "latency": Measured(config.latency, "a decision takes {:,.0f} ms, one time in a hundred"),
        "late_labels": LateLabels(config.late_labels),
        "probability_range": ProbabilityRange(config.probability_range),
        "repeated_drift": RepeatedDrift(config.repeated_drift),
        "snapshot_age": Measured(config.snapshot_age, "the newest snapshot is {:,.0f} minutes old"),
        "calibration": Calibration(config.calibration),
    }
    return {name: watcher for name, watcher in made.items() if getattr(config, name).enabled}
