"""A bot in one file: four textbook rules on real bars, published through the public client.

    python examples/bot.py embedded://closeloop-data

It reads AAPL's daily bars since 1980 and two years of hourly ones (the MIT package `mintalib`
carries them, and the indicators), and publishes what a live bot would have published then, in
event-time order: a signal when a rule fires, and a close when the trade it opened has ended.

What a bot must get right, and where to see it here:

- A signal's features are known at its time, none later: `features`.
- Its name is the same each time it is sent, so sending it twice does no harm: `signals`.
- Its close says what the trade returned after costs, worst case when in doubt: `trade`.
- An event whose fate is unknown, since the connection broke, is sent again: `publish`.

It follows every signal to its end, as on paper. A bot that trades asks for the decision first,
`client.decision(receipt)`, and opens what that says.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from importlib import resources
from itertools import groupby
from pathlib import Path
from time import monotonic, sleep
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
from mintalib import core as ta
from rich.progress import track

from streams import Client, Close, ConnectionLost, Signal, StreamError, encode

EXCHANGE = ZoneInfo("America/New_York")
OPEN, CLOSE = time(9, 30), time(16)
STOP_ATR, TARGET_ATR, MAX_BARS = 1.5, 2.0, 24
COST_PCT = 0.05  # 5 basis points for the way in and out together
WARM_UP = 200  # bars, so that the slowest indicator is known


@dataclass(frozen=True)
class Bars:
    """Bars of one symbol, oldest first. A bar is known at its `ends`, not before."""

    symbol: str
    starts: list[datetime]
    ends: list[datetime]
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray


def load(frequency: str) -> Bars:
    """AAPL's bars from `mintalib`, their New York times turned into UTC."""
    path = resources.files("mintalib.samples") / f"{frequency}-prices.csv"
    _, *rows = csv.reader(path.read_text().splitlines())
    times = [datetime.fromisoformat(row[0]) for row in rows]
    if frequency == "daily":
        starts = [datetime.combine(day, OPEN, EXCHANGE) for day in times]
        ends = [datetime.combine(day, CLOSE, EXCHANGE) for day in times]
    else:
        starts = [start.astimezone(EXCHANGE) for start in times]
        # The day's last bar is half an hour long.
        ends = [min(t + timedelta(hours=1), datetime.combine(t, CLOSE, EXCHANGE)) for t in starts]
    return Bars(
        "AAPL" if frequency == "daily" else "AAPL.1h",
        [start.astimezone(UTC) for start in starts],
        [end.astimezone(UTC) for end in ends],
        *np.array([row[1:] for row in rows], float).T,
    )


def entries(bars: Bars) -> dict[tuple[str, Literal["long", "short"]], np.ndarray]:
    """Where each rule fires, each way: true at the bars at whose end it does."""
    high, low, close = bars.high, bars.low, bars.close
    upper, _, lower = ta.calc_donchian(high, low, 20)
    _, _, histogram = ta.calc_macd(close)
    rsi = ta.calc_rsi(close, 2)
    fast, slow = ta.calc_ema(close, 9), ta.calc_ema(close, 21)
    return {
        # A close beyond the range of the 20 bars before.
        ("breakout", "long"): close > ta.calc_lag(upper, 1),
        ("breakout", "short"): close < ta.calc_lag(lower, 1),
        # The MACD crosses its signal line.
        ("macd", "long"): ta.calc_crossover(histogram) > 0,
        ("macd", "short"): ta.calc_crossunder(histogram) > 0,
        # Two bars' RSI at an extreme, expected to revert.
        ("rsi", "long"): rsi < 10,
        ("rsi", "short"): rsi > 90,
        # In a trend, a touch of the fast average that holds.
        ("pullback", "long"): (fast > slow) & (low <= fast) & (close > fast),
        ("pullback", "short"): (fast < slow) & (high >= fast) & (close < fast),
    }


def features(bars: Bars) -> dict[str, np.ndarray]:
    """What the bot sees at each bar's end. Distances are in percent or in ATRs, so they keep."""
    high, low, close = bars.high, bars.low, bars.close
    atr = ta.calc_atr(high, low, close)
    adx, plus_di, minus_di = ta.calc_dmi(high, low, close)
    _, _, histogram = ta.calc_macd(close)
    upper, _, lower = ta.calc_donchian(high, low, 20)
    average = ta.calc_sma(bars.volume, 20)
    with np.errstate(divide="ignore", invalid="ignore"):  # a quiet bar has no ratio: it is missing
        return {
            "rsi": ta.calc_rsi(close),
            "rsi_2": ta.calc_rsi(close, 2),
            "macd_hist_atr": histogram / atr,
            "adx": adx,
            "plus_di": plus_di,
            "minus_di": minus_di,
            "atr_pct": 100 * atr / close,
            "atr_ratio": atr / ta.calc_sma(atr, 100),
            "volume_ratio": np.where(bars.volume > 0, bars.volume / average, np.nan),
            "ema21_dist_atr": (close - ta.calc_ema(close, 21)) / atr,
            "ema200_dist_atr": (close - ta.calc_ema(close, 200)) / atr,
            "bollinger_pos": ta.calc_bbp(close),
            "range_pos": (close - lower) / (upper - lower),
            "bar_pos": (close - low) / (high - low),
            "return_1": ta.calc_roc(close, 1),
            "return_5": ta.calc_roc(close, 5),
            "return_20": ta.calc_roc(close, 20),
            "volatility_20": ta.calc_stdev(ta.calc_roc(close, 1), 20),
        }


def session(start: datetime, end: datetime) -> str:
    """Which part of the exchange's day a bar is from: a feature that is a category."""
    hour = start.astimezone(EXCHANGE).hour
    part = "morning" if hour < 11 else "midday" if hour < 14 else "afternoon"
    return part if end - start <= timedelta(hours=1) else "day"


def signals(bars: Bars) -> Iterator[tuple[int, Signal]]:
    """Each signal with the bar at whose end it is sent, in the order of time."""
    fires, seen = entries(bars), features(bars)
    uptrend = seen["ema200_dist_atr"] > 0
    for i in range(WARM_UP, len(bars.close)):
        ts, numbers = bars.ends[i], {name: round(float(x[i]), 6) for name, x in seen.items()}
        part = session(bars.starts[i], ts)
        values = {name: x if np.isfinite(x) else None for name, x in numbers.items()}
        for strategy, side in (rule for rule, where in fires.items() if where[i]):
            signal = Signal(
                signal_id=f"{bars.symbol}-{ts:%Y%m%dT%H%M}-{strategy}-{side}",
                ts=ts,
                symbol=bars.symbol,
                side=side,
                strategy=strategy,
                price=float(bars.close[i]),
                # What this bot would do alone: only what goes with the long trend.
                baseline="take" if uptrend[i] == (side == "long") else "skip",
                features={**values, "uptrend": bool(uptrend[i]), "session": part},
            )
            yield i, signal


def trade(bars: Bars, i: int, signal: Signal, atr: float) -> Close | None:
    """The end of the trade that `signal`, sent at the end of bar `i`, opens. None: not ended yet.

    In at the next bar's open; out at the stop, the target, or the last bar's close. Where one bar
    touches both, the stop is taken to have come first; where a bar opens beyond one, its open is
    the price. Prices of a short are turned negative, so that up is good either way.
    """
    way = 1 if signal.side == "long" else -1
    after = slice(i + 1, i + 1 + MAX_BARS)
    path = way * np.stack([c[after] for c in (bars.open, bars.high, bars.low, bars.close)], 1)
    if not len(path):
        return None
    entry = best = worst = float(path[0, 0])
    stop, target = entry - STOP_ATR * atr, entry + TARGET_ATR * atr
    reason: Literal["stop", "target", "timeout"]
    for held, (start, one, other, end) in enumerate(path.tolist(), 1):
        low, high = sorted((one, other))
        if low <= stop:
            reason, price = "stop", min(stop, start)
        elif high >= target:
            reason, price = "target", max(target, start)
        else:
            best, worst = max(best, high), min(worst, low)
            if held < MAX_BARS:
                continue
            reason, price = "timeout", end
        # Of a bar with a stop or target only what surely came before it counts.
        best, worst = max(best, price), min(worst, price)
        percent = 100 / abs(entry)
        return Close(
            signal_id=signal.signal_id,
            ts=bars.ends[i + held],
            return_pct=round((price - entry) * percent - COST_PCT, 6),
            exit_price=round(abs(price), 6),
            exit_reason=reason,
            mfe_pct=round((best - entry) * percent, 6),
            mae_pct=round((entry - worst) * percent, 6),
            hold_minutes=(bars.ends[i + held] - bars.starts[i + 1]) / timedelta(minutes=1),
        )
    return None


def events(*markets: Bars) -> list[Signal | Close]:
    """All signals and closes in event-time order, closes before signals of the same time."""
    found: list[Signal | Close] = []
    for bars in markets:
        atr = ta.calc_atr(bars.high, bars.low, bars.close)
        for i, signal in signals(bars):
            close = trade(bars, i, signal, float(atr[i]))
            found += [signal] if close is None else [signal, close]
    return sorted(found, key=lambda event: (event.ts, event.type))


def publish(client: Client, batch: list[Signal | Close]) -> None:
    """Publish events, again and again until the server has said that it has them."""
    while True:
        try:
            client.publish_many(batch)
            return
        except ConnectionLost as error:
            print(f"{error}; trying again", file=sys.stderr)
            sleep(1)


def main() -> None:
    """Publish, or write a tape."""
    parser = argparse.ArgumentParser(description="Publish AAPL's signals and closes.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("address", nargs="?", help="such as embedded://DIR or redis://HOST:PORT")
    where.add_argument("--tape", type=Path, help="write them into this JSONL file instead")
    parser.add_argument("--bars", choices=("daily", "hourly", "both"), default="both")
    parser.add_argument("--speed", type=float, default=0, help="times its own pace; 0: no pause")
    options = parser.parse_args()
    wanted = ("daily", "hourly") if options.bars == "both" else (options.bars,)
    found = events(*map(load, wanted))
    if options.tape:
        options.tape.write_bytes(b"".join(encode(event) + b"\n" for event in found))
        return
    begun = monotonic()
    steps = [list(step) for _, step in groupby(found, key=lambda event: event.ts)]
    with Client(options.address) as client:
        for step in track(steps, "publishing"):
            if options.speed:
                due = begun + (step[0].ts - found[0].ts).total_seconds() / options.speed
                sleep(max(0.0, due - monotonic()))
            publish(client, step)


if __name__ == "__main__":
    try:
        main()
    except StreamError as error:
        sys.exit(f"bot: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
