"""A tape as columns: what the checks of an audit look at."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ABSENT, NULL, NUMBER, BOOL, TEXT = range(5)
"""What a signal has under a feature's name."""

MINUTE = 60_000_000
"""Microseconds."""

CLOSE_FIELDS = ("return_pct", "profit", "exit_price", "mfe_pct", "mae_pct", "hold_minutes")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One feature over the signals; arrays of shape (signals,).

    Parameters
    ----------
    values
        Numbers as they are, bools as 0 and 1, texts as their number in `categories`; NaN otherwise.
    kinds
        ABSENT, NULL, NUMBER, BOOL or TEXT.
    categories
        The texts seen, by their number.
    """

    values: Floats
    kinds: NDArray[np.int8]
    categories: list[str]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Where there is a value."""
        return self.kinds > NULL


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What a tape holds. Times are microseconds since 1970, `row` is a signal's place among them.

    Parameters
    ----------
    lines, events, invalid, invalid_examples
        Lines that aren't blank; valid events by type; the others by reason, and where some stand.
    times
        Of all signals and closes, in the tape's order.
    back, back_examples
        By how much an event is earlier than the latest before it, where it is; and where.
    opened, symbol, side, strategy, price
        Of each signal; '' and NaN where not given.
    closed, outcome
        Of each signal's first close: its time, -1 without one; and each field of `CLOSE_FIELDS`.
    stopped
        1 when the stop was hit, 0 when not, NaN when the close doesn't say.
    signals_meanwhile, closes_meanwhile
        Signals and closes between a signal and its close; -1 without one.
    most_open
        Signals open at once, at most.
    early, orphans
        Closes that stand before their signal; those whose signal never comes. Where some stand.
    repeated_signals, repeated_closes, conflicting_closes
        Sent again as they were; closes sent again with another return.
    changed, changed_again, changed_after_close
        Signals sent again otherwise: by what changed, how many, and how many once they were closed.
    features
        By name, in the order in which they first appear.
    """

    lines: int
    events: Counter[str]
    invalid: Counter[str]
    invalid_examples: list[str]
    times: Ints
    back: Ints
    back_examples: list[str]
    opened: Ints
    symbol: NDArray[np.str_]
    side: NDArray[np.str_]
    strategy: NDArray[np.str_]
    price: Floats
    closed: Ints
    outcome: dict[str, Floats]
    stopped: Floats
    signals_meanwhile: Ints
    closes_meanwhile: Ints
    most_open: int
    early: int
    early_examples: list[str]
    orphans: int
    orphan_examples: list[str]
    repeated_signals: int
    repeated_closes: int
    conflicting_closes: int
    changed: Counter[str]
    changed_again: int
    changed_after_close: int
    features: dict[str, Feature]

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Which signals have a close."""
        return self.closed >= 0

    @property
    def won(self) -> NDArray[np.bool_]:
        """Which signals' closes have a return above zero."""
        return self.outcome["return_pct"] > 0
