"""The rollout: which share of the signals the model decides, and what proves that it may have more.

In shadow and advisory the bot's baseline is done and the model's answer is noted beside it. In
canary a hash of the signal's ID deals signals to the arms. Live, the model decides. At each close
the arms' trades are compared by confidence sequences, which allow looking at every close:

- The next stage is due when the stage has had its closes and days, and the mean return of the
  model's trades lies above the baseline's beyond doubt.
- Going back to shadow is due, in canary, when it lies below beyond doubt; or when the model's
  trades win more rarely beyond doubt, and their mean return isn't higher.

So there are three wrong steps that equal arms could be led to, and each gets a third of
`error_rate`. One sequence runs through all stages of a rollout: what proved the model in one stage
counts in the next. A way back, or a person's starting again, begins a new rollout that knows
nothing of the one before.

Live there is no baseline's arm, so nothing is compared: the kill switch watches there. Whoever
wants a comparison for ever ends the stages below 100 percent.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import Any, Literal

from engine.ledger import to_micros
from engine.safety.sequences import Difference
from engine.safety.settings import RolloutConfig
from streams.events import Action, Arm, Mode

MOST_PCT = 1e6
"""A return of more percent, either way, is somebody's mistake; it is counted as this."""
DAY = 86_400_000_000
"""Microseconds."""


@dataclass(slots=True)
class ClosedTrade:
    """A signal that was decided, and what came of it."""

    arm: Arm
    """Who decided it."""
    mode: Mode
    """Of the rollout when it was decided."""
    update: int
    """Closes learned when it was decided."""
    ts: datetime
    """Event time of the close."""
    action: Action
    """What was done."""
    advised: Action
    """What the model would have done; in its own arm the same."""
    return_pct: float


@dataclass(frozen=True, slots=True)
class Step:
    """A change of mode or stage that the evidence says is due."""

    kind: Literal["promotion", "demotion"]
    mode: Mode
    percent: float
    reason: str


class Trades:
    """The figures of an arm's trades since the rollout began, each trade at the same size."""

    __slots__ = ("_drawdown", "_equity", "_gained", "_lost", "_peak", "_squares", "count", "won")

    def __init__(self) -> None:
        self.count = 0
        self.won = 0
        self._gained = 0.0
        self._lost = 0.0
        self._squares = 0.0
        self._equity = 0.0
        self._peak = 0.0
        self._drawdown = 0.0

    def add(self, return_pct: float) -> None:
        """A trade brought so many percent."""
        self.count += 1
        if return_pct > 0.0:
            self.won += 1
            self._gained += return_pct
        else:
            self._lost -= return_pct
        self._squares += return_pct * return_pct
        equity = self._equity + return_pct
        self._equity = equity
        if equity > self._peak:
            self._peak = equity
        elif self._peak - equity > self._drawdown:
            self._drawdown = self._peak - equity

    def figures(self) -> dict[str, int | float | None]:
        """As `engine.evaluation.scores` has them; None where the trades don't define one."""
        n = self.count
        mean = self._equity / n if n else None
        deviation = 0.0
        if n > 1 and mean is not None:
            deviation = sqrt(max(0.0, self._squares - n * mean * mean) / (n - 1))
        doubtful = deviation <= 1e-6 * sqrt(self._squares)
        return {
            "trades": n,
            "win_rate": self.won / n if n else None,
            "mean_return_pct": mean,
            "profit_factor": self._gained / self._lost if self._lost > 0.0 else None,
            "sharpe": None if mean is None or doubtful else mean / deviation,
            "max_drawdown_pct": self._drawdown if n else None,
        }

    def state(self) -> list[float]:
        """All that `restore` needs."""
        return [
            self.count, self.won, self._gained, self._lost,
            self._squares, self._equity, self._peak, self._drawdown,
        ]  # fmt: skip

    def restore(self, state: list[Any]) -> None:
        """Go on from what `state` gave."""
        self.count, self.won, self._gained, self._lost = state[:4]
        self._squares, self._equity, self._peak, self._drawdown = state[4:]


class Rollout:
    """Deals signals to the arms, and says when the evidence asks for a step.

    It takes none by itself: whoever owns it calls `move`.

    Parameters
    ----------
    config
        What a new one begins with, its stages, and how sure it must be.
    seed
        Of the deal.

    Attributes
    ----------
    mode, percent
        Where it stands. In shadow and advisory 0 percent of the signals are the model's, live 100.
    """

    def __init__(self, config: RolloutConfig, seed: int) -> None:
        self.config = config
        self._key = seed.to_bytes(8, "big")
        self.mode: Mode = config.mode
        self.percent = _percent(config.mode, min(config.stages))
        # Equal arms could be led to three wrong steps. A sequence at `alpha` is left on one side
        # with a chance of half of it, so each of the three sides in use gets a third.
        self._alpha = 2.0 * config.error_rate / 3.0
        self._begin(0, None)

    def _begin(self, update: int, since: int | None) -> None:
        """A new rollout, in the mode and at the percentage that are set."""
        self._arms = {"model": Trades(), "baseline": Trades()}
        self._returns = Difference(self._alpha)
        self._wins = Difference(self._alpha)
        self._stage(update, since)

    def _stage(self, update: int, since: int | None) -> None:
        self._began = update
        self._since = since
        self._now = since
        self._closes = 0
        self._said: str | None = None

    @property
    def share(self) -> float:
        """The chance that a signal is the model's to decide."""
        if self.mode == "live":
            return 1.0
        return self.percent / 100.0 if self.mode == "canary" else 0.0

    def arm(self, signal_id: str) -> Arm:
        """Who decides this signal.

        In canary a hash of its ID says so, so nothing known of the signal does, and a replay deals
        the same. A larger share moves signals from the baseline to the model, never back.
        """
        share = self.share
        if share in (0.0, 1.0):
            return "model" if share else "baseline"
        hashed = hashlib.blake2b(
            signal_id.encode(), digest_size=8, key=self._key, person=b"rollout"
        ).digest()
        return "model" if int.from_bytes(hashed, "big") < share * 2.0**64 else "baseline"

    def learn(self, trade: ClosedTrade) -> Step | None:
        """Take in a closed trade. A step that this makes due is told once.

        It is told again after `move`, or when the evidence for it had been lost meanwhile: when
        the difference itself, not its bound alone, had gone to the other side. Trades that were
        decided before the stage began count for nothing.
        """
        if trade.update < self._began or trade.mode != self.mode:
            return None
        done = trade.action != "skip"
        if self.mode == "canary" or self.mode == "live":
            model = done and trade.arm == "model"
            baseline = done and not model
        else:
            model = trade.advised != "skip"
            baseline = done
        if not (model or baseline):
            return None
        value = min(max(trade.return_pct, -MOST_PCT), MOST_PCT)
        if model:
            self._arms["model"].add(value)
        if baseline:
            self._arms["baseline"].add(value)
        self._closes += 1
        self._now = to_micros(trade.ts)
        # Event time may go back.
        if self._since is None or self._now < self._since:
            self._since = self._now
        if self.mode == "live":
            return None
        day = trade.ts.toordinal()
        self._returns.add(day, model, baseline, value)
        self._wins.add(day, model, baseline, 1.0 if value > 0.0 else 0.0)
        kind = self._due()
        if kind == self._said:
            return None
        self._said = kind
        return None if kind is None else self._step(kind)

    def _due(self) -> Literal["promotion", "demotion"] | None:
        if self._returns.bounds is None:
            return None
        difference, low, high = self._returns.bounds
        if self._said == "promotion" and difference > 0.0:
            return "promotion"
        if low > 0.0:
            ready = self._closes >= self._min_closes and self._days >= self.config.min_days
            return "promotion" if ready and self._next() is not None else None
        if self.mode != "canary" or difference > 0.0:
            return None
        wins = self._wins.bounds
        if high < 0.0 or (wins is not None and wins[2] < 0.0) or self._said == "demotion":
            return "demotion"
        return None

    def _step(self, kind: Literal["promotion", "demotion"]) -> Step:
        assert self._returns.bounds is not None
        difference, low, high = self._returns.bounds
        if kind == "promotion":
            percent = self._next()
            assert percent is not None
            reason = (
                f"a trade of the model brings {difference:.4f} percent more than one of the"
                f" baseline; at least {low:.4f}"
            )
            return Step(kind, "live" if percent == 100.0 else "canary", percent, reason)
        if high < 0.0:
            reason = (
                f"a trade of the model brings {-difference:.4f} percent less than one of the"
                f" baseline; at least {-high:.4f}"
            )
        else:
            assert self._wins.bounds is not None
            wins, _, wins_high = self._wins.bounds
            reason = (
                f"trades of the model win {-100.0 * wins:.2f} points more rarely than those of the"
                f" baseline, at least {-100.0 * wins_high:.2f}, and bring no more"
            )
        return Step(kind, "shadow", 0.0, reason)

    def _next(self) -> float | None:
        """The percentage of the next stage; None: this is the last."""
        later = (stage for stage in self.config.stages if stage > self.percent)
        return min(later, default=None)

    @property
    def _min_closes(self) -> int:
        config = self.config
        return config.min_closes if self.mode == "canary" else config.shadow_min_closes

    @property
    def _days(self) -> float:
        """Of event time in this stage."""
        if self._now is None or self._since is None:
            return 0.0
        return (self._now - self._since) / DAY

    def move(self, mode: Mode, percent: float, update: int, ts: datetime) -> None:
        """Go to another mode or stage, or begin the same one again.

        Going up keeps the evidence; anything else begins a new rollout.

        Parameters
        ----------
        mode, percent
            Where to; the percentage counts in canary alone.
        update
            Closes learned until now: what was decided before is not counted from here on.
        ts
            Event time.
        """
        before = self.share
        self.mode, self.percent = mode, _percent(mode, percent)
        since = to_micros(ts)
        if self.share > before:
            self._returns.next_stage()
            self._wins.next_stage()
            self._stage(update, since)
        else:
            self._begin(update, since)

    def figures(self) -> dict[str, object]:
        """Where it stands, for people: the arms, the bounds, and what the next stage lacks.

        Returns in percent, win rates and their difference in [0, 1], `percent` of signals.
        """
        percent = None if self.mode == "live" else self._next()
        return {
            "mode": self.mode,
            "percent": self.percent,
            "closes": self._closes,
            "days": self._days,
            "arms": {name: trades.figures() for name, trades in self._arms.items()},
            "confidence": 1.0 - self._alpha,
            "mean_return_difference_pct": _bounds(self._returns),
            "win_rate_difference": _bounds(self._wins),
            "next": percent,
            "missing": [] if percent is None else self._missing(),
            "due": self._said,
        }

    def _missing(self) -> list[str]:
        missing = []
        if self._closes < self._min_closes:
            missing.append(f"{self._min_closes - self._closes} closes")
        if self._days < self.config.min_days:
            missing.append(f"{self.config.min_days - self._days:.2f} days")
        bounds = self._returns.bounds
        if bounds is None:
            missing.append("trades in which the arms differ, enough to compare them")
        elif bounds[1] <= 0.0 and self._said != "promotion":
            missing.append("proof that the model's mean return is above the baseline's")
        return missing

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "mode": self.mode,
            "percent": self.percent,
            "began": self._began,
            "since": self._since,
            "now": self._now,
            "closes": self._closes,
            "said": self._said,
            "arms": {name: trades.state() for name, trades in self._arms.items()},
            "returns": self._returns.state(),
            "wins": self._wins.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.mode, self.percent = state["mode"], state["percent"]
        self._began, self._closes, self._said = state["began"], state["closes"], state["said"]
        self._since, self._now = state["since"], state["now"]
        for name, trades in self._arms.items():
            trades.restore(state["arms"][name])
        self._returns.restore(state["returns"])
        self._wins.restore(state["wins"])


def _percent(mode: Mode, percent: float) -> float:
    """What a mode means as a percentage of signals."""
    return {"live": 100.0, "canary": percent}.get(mode, 0.0)


def _bounds(difference: Difference) -> dict[str, float | None]:
    value, low, high = difference.bounds or (None, None, None)
    return {"value": value, "low": low, "high": high}
