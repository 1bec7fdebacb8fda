"""The market's regime at each signal, per symbol: trending, ranging or volatile.

Two switches per symbol, each with hysteresis, and one regime of them: `volatile` when volatility is
high, else `trending` when there is a trend, else `ranging`.

- **Trend**: on from an ADX of 25, off below 20 (Wilder 1978); in between it stays as it is. Without
  an ADX among the features nothing is known of trends, and what isn't volatile is ranging.
- **Volatility**: the first of `VOLATILITY_NAMES` that the signal has; else that of the symbol's
  returns, ``sqrt(s)`` of the running ``s ← 0.94 s + 0.06 r²`` over its closes (RiskMetrics 1996).
  Volatility is close to lognormal (Andersen, Bollerslev, Diebold and Labys 2001), so what is usual
  are the running mean and standard deviation of its logarithm, per symbol and measure.
  The switch is on above the 84 % quantile (one deviation), off below the 69 % one (half of one).

A regime changes only once `patience` signals in a row have said the same new one.
"""

from collections import OrderedDict
from collections.abc import Mapping
from math import exp, log, sqrt
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Regime: TypeAlias = Literal["trending", "ranging", "volatile"]
REGIMES: tuple[Regime, ...] = ("trending", "ranging", "volatile")

ADX_NAMES = ("adx", "adx_14", "trend_filter.adx")
"""Features that hold Wilder's average directional index, in [0, 100]; the first there counts."""
VOLATILITY_NAMES = (
    "atr_pct", "atr_percent", "natr", "atr_ratio", "vol_24", "volatility", "realized_vol", "atr",
)  # fmt: skip
"""Features that measure volatility, in any unit; the first one there that is above 0 counts."""

TREND_ON, TREND_OFF = 25.0, 20.0
VOLATILE_ON, VOLATILE_OFF = 1.0, 0.5
"""In standard deviations of the logarithm above its mean."""
RETURNS_DECAY = 0.94
USUAL_RATE = 1 / 250
"""The weight of the newest signal in what is usual, once there are as many."""
KNOWN = 20
"""Signals (for returns, closes too) before volatility can be called high."""
LEAST_SPREAD = 0.05
"""Standard deviation of the logarithm at least: steady volatility's jitter is nothing unusual."""

_MOST = 1e18
_RETURNS = len(VOLATILITY_NAMES)  # the measure after the named ones
_MEASURES = _RETURNS + 1
# A symbol in a state: switches, regime, candidate and its signals, newest relative volatility,
# closes and their variance, then per measure the signals, mean and variance.
_HEAD = 8
_FIELDS = _HEAD + 3 * _MEASURES


class _Symbol:
    """What is known of one symbol."""

    __slots__ = (
        "candidate", "closes", "regime", "relative", "seen", "trend", "usual", "variance",
        "volatile",
    )  # fmt: skip

    def __init__(self) -> None:
        self.trend = False
        self.volatile = False
        self.regime = 1
        self.candidate = 1
        self.seen = 0
        """Signals in a row that said `candidate`."""
        self.relative = 0.0
        """The newest volatility over its usual; 0 while there is none."""
        self.closes = 0
        self.variance = 0.0
        """Of returns around 0."""
        self.usual: dict[int, list[float]] = {}
        """By measure: signals, mean and variance of the logarithm."""


class Regimes:
    """The regime at each signal, from its features and from how the closes before it went.

    Parameters
    ----------
    patience
        Signals of a symbol in a row that must say the same new regime before it is believed.
    max_symbols
        How many symbols are remembered; the one without signal and close for the longest goes
        first.
    """

    def __init__(self, patience: int = 3, max_symbols: int = 1024) -> None:
        self.patience = patience
        self.max_symbols = max_symbols
        self._symbols: OrderedDict[str, _Symbol] = OrderedDict()  # by their last use

    def observe(self, symbol: str, features: Mapping[str, float | bool | str | None]) -> Regime:
        """Take in one signal; returns the regime it was made in. Costs the same each time."""
        known = self._symbol(symbol)
        adx = _first(features, ADX_NAMES, 0.0)[1]
        if adx is not None:
            known.trend = adx >= (TREND_OFF if known.trend else TREND_ON)
        measure, volatility = _first(features, VOLATILITY_NAMES, 5e-324)
        if volatility is None and known.closes >= KNOWN and known.variance > 0.0:
            measure, volatility = _RETURNS, sqrt(known.variance)
        if volatility is not None:
            self._compare(known, measure, log(volatility))
        wanted = 2 if known.volatile else 0 if known.trend else 1
        if wanted == known.regime:
            known.candidate = wanted
            known.seen = 0
        else:
            known.seen = known.seen + 1 if wanted == known.candidate else 1
            known.candidate = wanted
            if known.seen >= self.patience:
                known.regime = wanted
                known.seen = 0
        return REGIMES[known.regime]

    def relative_volatility(self, symbol: str) -> float | None:
        """The symbol's volatility at its newest signal over its usual (its geometric mean).

        1 is usual; None while too little is known.
        """
        known = self._symbols.get(symbol)
        return known.relative if known is not None and known.relative > 0.0 else None

    def learn(self, symbol: str, return_pct: float) -> None:
        """Take in one close."""
        known = self._symbol(symbol)
        known.closes += 1
        rate = max(1.0 - RETURNS_DECAY, 1.0 / known.closes)
        known.variance += rate * (min(return_pct * return_pct, 1e12) - known.variance)

    def state(self) -> dict[str, object]:
        """All that `restore` needs; `values` has shape (symbols, numbers of one)."""
        values = np.zeros((len(self._symbols), _FIELDS))
        for row, known in zip(values, self._symbols.values(), strict=True):
            row[:_HEAD] = (
                known.trend, known.volatile, known.regime, known.candidate, known.seen,
                known.relative, known.closes, known.variance,
            )  # fmt: skip
            for measure, usual in known.usual.items():
                row[_HEAD + 3 * measure : _HEAD + 3 * measure + 3] = usual
        return {"symbols": list(self._symbols), "values": values}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the one whose `state` this is."""
        self._symbols.clear()
        values = cast(NDArray[np.float64], state["values"]).tolist()
        for name, row in zip(cast(list[str], state["symbols"]), values, strict=True):
            known = self._symbols[name] = _Symbol()
            known.trend, known.volatile = bool(row[0]), bool(row[1])
            known.regime, known.candidate, known.seen = int(row[2]), int(row[3]), int(row[4])
            known.relative, known.closes, known.variance = row[5], int(row[6]), row[7]
            for measure in range(_MEASURES):
                usual = row[_HEAD + 3 * measure : _HEAD + 3 * measure + 3]
                if usual[0] > 0.0:
                    known.usual[measure] = usual

    def _symbol(self, name: str) -> _Symbol:
        known = self._symbols.get(name)
        if known is not None:
            self._symbols.move_to_end(name)
            return known
        known = self._symbols[name] = _Symbol()
        if len(self._symbols) > self.max_symbols:
            self._symbols.popitem(last=False)
        return known

    def _compare(self, known: _Symbol, measure: int, value: float) -> None:
        """Hold a volatility's logarithm against its usual, then take it in."""
        usual = known.usual.get(measure)
        if usual is None:
            usual = known.usual[measure] = [0.0, 0.0, 0.0]
        n, mean, variance = usual
        apart = value - mean
        if n >= KNOWN:
            spread = max(sqrt(variance), LEAST_SPREAD)
            known.volatile = apart > spread * (VOLATILE_OFF if known.volatile else VOLATILE_ON)
            known.relative = exp(min(max(apart, -50.0), 50.0))
        rate = max(USUAL_RATE, 1.0 / (n + 1.0))
        usual[0] = n + 1.0
        usual[1] = mean + rate * apart
        # Exponentially weighted variance (West 1979).
        usual[2] = (1.0 - rate) * (variance + rate * apart * apart)


def _first(
    features: Mapping[str, float | bool | str | None], names: tuple[str, ...], least: float
) -> tuple[int, float | None]:
    """The first of these features that is a number in [least, 1e18), and which it is."""
    for i, name in enumerate(names):
        value = features.get(name)
        if (
            isinstance(value, float | int)
            and not isinstance(value, bool)
            and least <= value < _MOST
        ):
            return i, float(value)
    return 0, None
