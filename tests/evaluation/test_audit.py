"""`closeloop audit`: a healthy tape is left in peace, a bad one is flagged for what it has."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.core_config import LedgerConfig
from engine.evaluation.audit import audit
from streams import Close, Signal, encode
from streams.tape import Tape
from tests.engine.conftest import Command

START = datetime(2026, 1, 5, tzinfo=UTC)
SIGNALS = 2_000

Event = Signal | Close
Lines = list[Event | bytes]


def healthy(seed: int = 1) -> list[Event]:
    """Two symbols' trades with what real ones have: weak features, gaps, delays, ties in time."""
    rng = random.Random(seed)
    now = START
    dated: list[tuple[datetime, int, Event]] = []
    for number in range(SIGNALS):
        # Friday's last bar and Monday's first are two days apart.
        now += timedelta(minutes=rng.choice([0, 5, 10, 60] if rng.random() > 0.01 else [2_880]))
        trend = rng.gauss(0, 1)
        move = rng.gauss(0.05 * trend, 1)
        held = rng.choice([30, 60, 240, 1_440])
        side = rng.choice(["long", "short"])
        price = round(rng.uniform(50, 150), 2)
        exit_price = price * (1 + (move + 0.02) / 100 * (1 if side == "long" else -1))
        signal = Signal(
            signal_id=f"t{number}",
            ts=now,
            symbol=rng.choice(["EURUSD", "XAUUSD"]),
            side=side,
            strategy=rng.choice(["orb", "macd"]),
            price=price,
            features={
                "rsi": round(50 + 10 * trend, 2) if rng.random() > 0.02 else None,
                "adx": round(rng.uniform(5, 50), 1),
                "poc": round(price * (1 + rng.gauss(0, 0.001)), 4),
                "hour": now.hour,
                "session": ["Tokyo", "London", "NY"][now.hour // 8],
                "news": rng.random() < 0.1,
            },
        )
        close = Close(
            signal_id=f"t{number}",
            ts=now + timedelta(minutes=held),
            return_pct=round(move, 4),
            profit=round(100 * move, 2),
            exit_price=exit_price,
            exit_reason="target" if move > 0 else "stop",
            mfe_pct=abs(rng.gauss(0, 1)) + max(move, 0),
            mae_pct=abs(rng.gauss(0, 1)) + max(-move, 0),
            hold_minutes=held,
        )
        dated += [(signal.ts, 1, signal), (close.ts, 0, close)]
    return [event for *_, event in sorted(dated, key=lambda one: one[:2])]


HEALTHY = healthy()
RETURNS = {e.signal_id: e for e in HEALTHY if isinstance(e, Close)}


def found(tmp_path: Path, lines: Lines, ledger: LedgerConfig | None = None) -> dict[str, object]:
    path = tmp_path / "t.jsonl"
    written = [line if isinstance(line, bytes) else encode(line) for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in written))
    return dict(audit(Tape(path), ledger).figures)


def verdicts(figures: dict[str, object]) -> dict[str, str]:
    """The checks that flagged something."""
    checks = figures["checks"]
    assert isinstance(checks, dict)
    return {n: c["verdict"] for n, c in checks.items() if c["verdict"] != "ok"}


def of_signals(change: Callable[[int, Signal], Signal | None]) -> Lines:
    """The healthy tape with each signal changed, or left out."""
    count, lines = 0, Lines()
    for event in HEALTHY:
        if isinstance(event, Signal):
            changed = change(count, event)
            count += 1
            if changed is not None:
                lines.append(changed)
        else:
            lines.append(event)
    return lines


def with_feature(name: str, value: Callable[[int, Signal], object]) -> Lines:
    """The healthy tape with one more feature, or one feature otherwise; absent where `...`."""

    def change(number: int, signal: Signal) -> Signal:
        given = value(number, signal)
        kept = {n: v for n, v in signal.features.items() if n != name}
        return replace(signal, features=kept if given is ... else kept | {name: given})

    return of_signals(change)


def of_closes(change: Callable[[Close], list[Event]]) -> Lines:
    return [
        new for event in HEALTHY for new in (change(event) if isinstance(event, Close) else [event])
    ]


def in_order(lines: Lines) -> Lines:
    return sorted(lines, key=lambda e: (e.ts, isinstance(e, Signal)))  # type: ignore[union-attr]


def gap() -> Lines:
    later = timedelta(days=45)
    half = HEALTHY[len(HEALTHY) // 2].ts
    return [replace(e, ts=e.ts + later) if e.ts > half else e for e in HEALTHY]


def own_closes_first() -> Lines:
    """One trade that ends as it begins, its close before it."""
    at = next(i for i, e in enumerate(HEALTHY) if isinstance(e, Signal) and i > 500)
    signal = HEALTHY[at]
    close = replace(RETURNS[signal.signal_id], ts=signal.ts, hold_minutes=None)
    rest = [e for e in HEALTHY if e is not RETURNS[signal.signal_id]]
    return [*rest[:at], close, *rest[at:]]


def resent_after_close() -> Lines:
    """Every tenth trade's signal once more, a moment after its close, with what the end showed."""
    lines = Lines()
    signals = {e.signal_id: e for e in HEALTHY if isinstance(e, Signal)}
    for event in HEALTHY:
        lines.append(event)
        if isinstance(event, Close) and int(event.signal_id[1:]) % 10 == 0:
            signal = signals[event.signal_id]
            changed = signal.features | {"rsi": 99.0 if event.return_pct > 0 else 1.0}
            lines.append(replace(signal, ts=event.ts, features=changed))
    return lines


def later_of(signal: Signal, name: str) -> float:
    return float(getattr(RETURNS[signal.signal_id], name))


DEFECTS: dict[str, tuple[Callable[[], Lines], dict[str, str]]] = {
    "a line cut short": (
        lambda: [*HEALTHY[:900], encode(HEALTHY[900])[:-20], *HEALTHY[900:]],
        {"rows": "problem"},
    ),
    "a signal lost": (
        lambda: of_signals(lambda n, s: None if n == 700 else s),
        {"joins": "warning"},
    ),
    "a tenth of the signals lost": (
        lambda: of_signals(lambda n, s: None if n % 10 == 0 else s),
        {"joins": "problem"},
    ),
    "a fifth of the closes lost": (
        lambda: of_closes(lambda c: [] if int(c.signal_id[1:]) % 5 == 0 else [c]),
        {"joins": "warning"},
    ),
    "a close before its signal": (own_closes_first, {"joins": "warning"}),
    "a close sent twice": (
        lambda: of_closes(lambda c: [c, c] if c.signal_id == "t500" else [c]),
        {"duplicates": "warning"},
    ),
    "a close sent twice with another return": (
        lambda: of_closes(
            lambda c: [c, replace(c, return_pct=9.0)] if c.signal_id == "t500" else [c]
        ),
        {"duplicates": "problem"},
    ),
    "ten closes at the end of the file": (
        lambda: sorted(HEALTHY, key=lambda e: e in list(RETURNS.values())[500:510]),
        {"time_order": "problem"},
    ),
    "weeks without events": (gap, {"time_order": "warning"}),
    "closes at the time of their signal": (
        lambda: in_order_of_own(
            of_closes(lambda c: [replace(c, ts=c.ts - held(c), hold_minutes=None)])
        ),
        {"label_delay": "warning"},
    ),
    "closes known too soon": (
        lambda: in_order(of_closes(lambda c: [replace(c, ts=c.ts - held(c) / 2)])),
        {"label_delay": "warning"},
    ),
    "no loss logged": (
        lambda: of_closes(
            lambda c: [
                replace(c, return_pct=abs(c.return_pct) + 0.1, profit=None, exit_reason=None)
            ]
        ),
        {"balance": "problem"},
    ),
    "a symbol whose losses were not logged": (
        lambda: one_sided("XAUUSD"),
        {"balance": "warning"},
    ),
    "a feature half missing": (
        lambda: with_feature("adx", lambda n, s: None if n % 2 else s.features["adx"]),
        {"missing": "warning"},
    ),
    "a feature that appears": (
        lambda: with_feature("vol", lambda n, s: ... if n < 900 else (n * 7919 % 1000) / 10),
        {"changing": "warning"},
    ),
    "a feature that disappears": (
        lambda: with_feature("adx", lambda n, s: s.features["adx"] if n < 900 else ...),
        {"changing": "warning"},
    ),
    "a constant feature": (
        lambda: with_feature("k", lambda n, s: 0.0),
        {"constant": "warning"},
    ),
    "a number that is a text at times": (
        lambda: with_feature("adx", lambda n, s: "n/a" if n % 50 == 0 else s.features["adx"]),
        {"types": "problem"},
    ),
    "a frozen feed": (
        lambda: with_feature("adx", lambda n, s: 21.5 if 600 < n < 1_100 else s.features["adx"]),
        {"stale": "warning"},
    ),
    "a feature that is the return": (
        lambda: with_feature("edge", lambda n, s: 3 * later_of(s, "return_pct") + 1),
        {"leaks": "problem"},
    ),
    "a feature that nearly tells the winner": (
        lambda: with_feature(
            "edge", lambda n, s: (later_of(s, "return_pct") > 0) + (n * 7919 % 1000) / 700
        ),
        {"leaks": "problem"},
    ),
    "a text that tells the winner": (
        lambda: with_feature("state", lambda n, s: RETURNS[s.signal_id].exit_reason),
        {"leaks": "problem"},
    ),
    "a feature that is the exit price": (
        lambda: with_feature("level", lambda n, s: later_of(s, "exit_price")),
        {"leaks": "problem"},
    ),
    "a feature that is the time held": (
        lambda: with_feature("bars", lambda n, s: later_of(s, "hold_minutes") / 5),
        {"leaks": "problem"},
    ),
    "a feature that is the time to a close that does not tell it": (
        lambda: [
            replace(e, hold_minutes=None) if isinstance(e, Close) else e
            for e in with_feature("bars", lambda n, s: later_of(s, "hold_minutes") / 5)
        ],
        {"leaks": "problem"},
    ),
    "a feature that is the best price on the way": (
        lambda: with_feature("excursion", lambda n, s: later_of(s, "mfe_pct")),
        {"leaks": "problem"},
    ),
    "signals sent again after their close": (resent_after_close, {"leaks": "problem"}),
}  # fmt: skip


def held(close: Close) -> timedelta:
    return timedelta(minutes=close.hold_minutes or 0)


def in_order_of_own(lines: Lines) -> Lines:
    """By time, each close right after its own signal when both are at once."""
    return sorted(lines, key=lambda e: (e.ts, int(e.signal_id[1:]), isinstance(e, Close)))  # type: ignore[union-attr]


def one_sided(symbol: str) -> Lines:
    of = {e.signal_id for e in HEALTHY if isinstance(e, Signal) and e.symbol == symbol}
    return of_closes(
        lambda c: [replace(c, return_pct=abs(c.return_pct) + 0.1) if c.signal_id in of else c]
    )


def a_signal(name: str, minutes: float) -> Signal:
    return Signal(
        signal_id=name, ts=START + timedelta(minutes=minutes), symbol="S", side="long", features={}
    )


def test_a_healthy_tape_is_left_in_peace(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        figures = found(tmp_path, [*healthy(seed)])
        assert verdicts(figures) == {}
        assert figures["verdict"] == "ok"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_tape_made_bad_in_one_way_is_flagged_for_exactly_that(
    tmp_path: Path, defect: str
) -> None:
    make, expected = DEFECTS[defect]
    assert verdicts(found(tmp_path, make())) == expected


def test_closes_that_the_engine_would_not_wait_for_are_a_problem(tmp_path: Path) -> None:
    for ledger in (LedgerConfig(expire_days=0.5), LedgerConfig(max_open=3)):
        assert verdicts(found(tmp_path, [*HEALTHY], ledger)) == {"label_delay": "problem"}


def test_a_price_level_is_no_leak_of_the_exit_price(tmp_path: Path) -> None:
    figures = found(tmp_path, [*HEALTHY])
    assert "poc" in figures["features"]  # type: ignore[operator]
    assert figures["likenesses"] == []


def test_delays_are_told_in_minutes_and_in_what_came_meanwhile(tmp_path: Path) -> None:
    def closed(name: str, minutes: float) -> Close:
        return Close(signal_id=name, ts=START + timedelta(minutes=minutes), return_pct=1.0)

    one, two, three = a_signal("a", 0), a_signal("b", 1), a_signal("c", 4)
    lines: Lines = [one, two, closed("b", 3), three, closed("c", 5), closed("a", 10)]
    delays = found(tmp_path, lines)["label_delay"]
    assert isinstance(delays, dict)
    told = {name: [of["0"], of["0.5"], of["1"]] for name, of in delays.items()}
    assert told == {
        "minutes": [1.0, 2.0, 10.0],
        "signals_meanwhile": [0.0, 0.0, 2.0],
        "closes_meanwhile": [0.0, 0.0, 2.0],
    }


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [([], "problem"), ([b"nonsense"], "problem"), ([a_signal("a", 0)], "ok")],
)
def test_a_tape_of_next_to_nothing_gets_its_verdict_too(
    tmp_path: Path, lines: Lines, verdict: str
) -> None:
    assert found(tmp_path, lines)["verdict"] == verdict


def test_the_command_prints_tables_or_json_and_its_status_says_whether_there_is_a_problem(
    closeloop: Command,
    tmp_path: Path,
) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_bytes(b"".join(encode(e) + b"\n" for e in HEALTHY))
    bad.write_bytes(good.read_bytes() + b"{}\n")
    ran = closeloop("audit", good, "--html", "page.html")
    assert ran.status == 0
    assert "No check found anything." in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 3 and "label_delay" in page
    ran = closeloop("audit", bad, "--json")
    assert ran.status == 1
    assert ran.json["checks"]["rows"]["where"][0].startswith(f"{bad}:4001: field `type`")  # type: ignore[index]
    both = closeloop("audit", good, good, "--json")
    assert both.json["joins"]["signals_sent_again"] == SIGNALS  # type: ignore[index]
