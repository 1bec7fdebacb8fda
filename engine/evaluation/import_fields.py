"""One record's fields: texts, numbers, times, and what follows from them."""

from collections import Counter
from collections.abc import Mapping as AnyMapping
from datetime import UTC, datetime, timedelta
from typing import Literal, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.evaluation.import_mapping import Mapping, MappingError, Source
from engine.evaluation.import_records import Flat, Scalar
from streams import Close

Side = Literal["long", "short"]
Baseline = Literal["take", "skip"]
Status = Literal["open", "closed"]
ExitReason = Literal["target", "stop", "timeout", "manual"]

SIDES = {
    "long": "long", "buy": "long", "b": "long", "1": "long",
    "short": "short", "sell": "short", "s": "short", "-1": "short",
}  # fmt: skip
BASELINES = {"take": "take", "true": "take", "1": "take", "skip": "skip", "false": "skip",
             "0": "skip"}  # fmt: skip
STATUSES = {
    "open": "open", "opened": "open", "pending": "open", "active": "open", "running": "open",
    "cancelled": "void", "canceled": "void", "rejected": "void", "void": "void",
}  # fmt: skip
EXIT_REASONS = {
    "target": "target", "tp": "target", "take_profit": "target",
    "stop": "stop", "sl": "stop", "stop_loss": "stop", "trailing_stop": "stop",
    "timeout": "timeout", "manual": "manual",
}  # fmt: skip

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many of an epoch's units are a second."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Up to which size a number is taken for seconds, milliseconds, ... since 1970, without a format:
# each unit then reaches from 1973 to 5138.
_LARGEST = (("s", 1e11), ("ms", 1e14), ("us", 1e17))


class Unusable(Exception):
    """A record that can't become a signal; the message is the reason."""


class Fields:
    """Reads the fields of records by a mapping, and counts what was derived.

    Raises `MappingError` for a time zone that doesn't exist.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        name = mapping.times.timezone
        try:
            self._zone = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise MappingError(
                f"times.timezone: no time zone {name!r}; write UTC or, say, Europe/London"
            ) from error
        self.returns_from: Counter[str] = Counter()
        self.times_from: Counter[str] = Counter()
        self.unmapped: Counter[str] = Counter()

    def text(self, entry: str, source: Source | None, flat: Flat) -> str | None:
        """A name; numbers are written without a needless `.0`."""
        value = self._value(entry, source, flat)
        if value is None:
            return None
        word = _word(value)
        return word if source is None else source.map.get(word.lower(), word)

    def needed(self, entry: str, source: Source | None, flat: Flat) -> str:
        """A name that must be there."""
        value = self.text(entry, source, flat)
        if value is None:
            raise Unusable(f"{entry}: no value")
        return value

    def number(self, entry: str, source: Source | None, flat: Flat) -> float | None:
        """A number, scaled."""
        value = self._value(entry, source, flat)
        if value is None or source is None:
            return None
        try:
            if isinstance(value, bool | datetime):
                raise ValueError
            number = float(value)
        except ValueError:
            raise Unusable(f"{entry}: not a number; got {value!r}") from None
        if number != number:
            return None
        return number * source.scale if source.scale != 1.0 else number

    def time(self, entry: str, source: Source | None, flat: Flat) -> datetime | None:
        """A time in UTC."""
        value = self._value(entry, source, flat)
        if value is None:
            return None
        for form in self._mapping.times.format:
            try:
                found = self._time(value, form)
                return (
                    found.replace(tzinfo=self._zone).astimezone(UTC)
                    if (found.tzinfo is None)
                    else found.astimezone(UTC)
                )
            except (ValueError, OverflowError):
                continue
        forms = " or ".join(self._mapping.times.format)
        raise Unusable(f"{entry}: not a time as {forms}; got {value!r}")

    @staticmethod
    def _time(value: Scalar, form: str) -> datetime:
        if isinstance(value, datetime):
            return value
        if form == "auto":
            try:
                number = float(value)  # type: ignore[arg-type] # None was handled, bools aren't times
            except (TypeError, ValueError):
                return datetime.fromisoformat(str(value).strip())
            form = next((unit for unit, most in _LARGEST if abs(number) < most), "ns")
        if form in UNITS:
            # By whole microseconds: a float of seconds has too few digits for nanoseconds.
            micros = round(float(str(value)) * (1_000_000 / UNITS[form]))
            return _EPOCH + timedelta(microseconds=micros)
        return datetime.strptime(str(value).strip(), form)

    def side(self, flat: Flat) -> Side:
        """long or short."""
        return cast(Side, self._mapped("signal.side", self._mapping.signal.side, flat, SIDES))

    def baseline(self, flat: Flat) -> Baseline | None:
        """What the bot's own rules did."""
        source = self._mapping.signal.baseline
        if self._value("signal.baseline", source, flat) is None:
            return None
        return cast(Baseline, self._mapped("signal.baseline", source, flat, BASELINES))

    def status(self, flat: Flat) -> Status:
        """Whether the trade is over: by its word, or without one by having an outcome.

        Any word that isn't known for open means closed. Raises `Unusable` for a void one.
        """
        word = self.text("close.status", self._mapping.close.status, flat)
        if word is None:
            return "closed" if self._has_ended(flat) else "open"
        known = STATUSES.get(word.lower())
        if known == "void":
            raise Unusable(f"close.status: never a trade; got {word!r}")
        return "open" if known == "open" else "closed"

    def _has_ended(self, flat: Flat) -> bool:
        close = self._mapping.close
        return any(
            self._value("close", source, flat) is not None
            for source in (close.time, close.return_pct, close.exit_price, close.profit)
        )

    def close(self, flat: Flat, opened: datetime, side: Side, price: float | None) -> Close:
        """The close of a trade that has ended, not yet named."""
        given = self._mapping.close
        held = self.number("close.hold_minutes", given.hold_minutes, flat)
        closed = self._closed(flat, opened, held)
        if closed < opened:
            raise Unusable("it ends before it begins")
        profit = self.number("close.profit", given.profit, flat)
        exit_price = self.number("close.exit_price", given.exit_price, flat)
        executed = self.text("close.executed", given.executed, flat)
        return Close(
            signal_id="",
            ts=closed,
            return_pct=self._return(flat, side, price, exit_price, profit),
            profit=profit,
            exit_price=exit_price,
            exit_reason=self._exit_reason(flat),
            mfe_pct=self.number("close.mfe_pct", given.mfe_pct, flat),
            mae_pct=self.number("close.mae_pct", given.mae_pct, flat),
            hold_minutes=held,
            executed=None if executed is None else executed.lower() in ("true", "1", "yes"),
        )

    def _closed(self, flat: Flat, opened: datetime, held: float | None) -> datetime:
        given = self._mapping.close
        found = self.time("close.time", given.time, flat)
        if found is not None:
            self.times_from["close.time"] += 1
            return found
        minutes, name = (held, "close.hold_minutes")
        if minutes is None:
            minutes, name = given.assume_hold_minutes, "close.assume_hold_minutes"
        if minutes is None:
            raise Unusable(
                "close.time: no value; map it, or hold_minutes, or set close.assume_hold_minutes"
            )
        self.times_from[name] += 1
        return opened + timedelta(minutes=minutes)

    def _return(
        self,
        flat: Flat,
        side: Side,
        price: float | None,
        exit_price: float | None,
        profit: float | None,
    ) -> float:
        """Percent of the entry, net of costs: as given, else from the prices, else of the stake."""
        given = self._mapping.close
        found = self.number("close.return_pct", given.return_pct, flat)
        if found is not None:
            self.returns_from["close.return_pct"] += 1
            return found
        if price and exit_price is not None:
            self.returns_from["prices"] += 1
            move = 100.0 * (exit_price - price) / price
            fee = self.number("close.fee_pct", given.fee_pct, flat) or 0.0
            return (move if side == "long" else -move) - fee
        stake = self.number("close.stake", given.stake, flat)
        if profit is not None and stake:
            self.returns_from["profit of stake"] += 1
            return 100.0 * profit / abs(stake)
        raise Unusable(
            "close.return_pct: no value, nor prices of entry and exit, nor profit and stake"
        )

    def _exit_reason(self, flat: Flat) -> ExitReason | None:
        given = self.text("close.exit_reason", self._mapping.close.exit_reason, flat)
        if given is None:
            return None
        found = EXIT_REASONS.get(given.lower().replace(" ", "_"))
        if found is None:
            self.unmapped[given] += 1
        return cast(ExitReason | None, found)

    def _mapped(
        self, entry: str, source: Source | None, flat: Flat, known: AnyMapping[str, str]
    ) -> str:
        word = self.needed(entry, source, flat)
        found = known.get(word.lower())
        if found is None:
            ours = " or ".join(dict.fromkeys(known.values()))
            raise Unusable(f"{entry}: neither {ours} by its map; got {word!r}")
        return found

    @staticmethod
    def _value(entry: str, source: Source | None, flat: Flat) -> Scalar:
        if source is None:
            return None
        for path in source.names:
            value = flat.get(path)
            if isinstance(value, list):
                raise Unusable(f"{entry}: a list; got {value!r}")
            if value is not None:
                return value
        return source.default


def _word(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
