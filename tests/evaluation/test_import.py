"""`closeloop import`: other programs' trade logs become tapes that the engine and an audit take."""

import csv
import json
import random
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from engine.evaluation.audit import audit
from engine.evaluation.import_mapping import PRESETS, MappingError, parse_mapping, preset_text
from engine.evaluation.importing import import_logs, rejected_path
from streams import Close, Signal, TapeError
from streams.tape import Tape
from tests.engine.conftest import Command

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def nested(number: int, **fields: object) -> dict[str, object]:
    """A record of a bot that logs what it saw and, once closed, the outcome."""
    rng = random.Random(number)
    entry = START + timedelta(minutes=7 * number)
    return {
        "ticket": 54_572_000_000 + number,
        "symbol": "EURUSD",
        "entry_time": f"{entry:%Y-%m-%dT%H:%M:%S}",
        "entry_price": 1.1692,
        "direction": "BUY" if number % 2 else "SELL",
        "volume": 0.04,
        "strategy_type": "vwap",
        "confluence_score": rng.randrange(4, 20),
        "vwap": {
            "value": 1.1689,
            "distance_pct": round(rng.gauss(0, 0.1), 4),
            "direction": rng.choice(["above", "below"]),
            "in_band_1": rng.random() < 0.5,
        },
        "volume_profile": {"at_poc": rng.random() < 0.3},
        "htf_levels": {
            "factors_matched": rng.sample(["Daily POC", "Weekly HVN", "Prev Day VAH"], 2)
        },
        "trend_filter": {
            "adx": round(rng.uniform(5, 50), 1),
            "plus_di": round(rng.uniform(5, 50), 1),
            "minus_di": round(rng.uniform(5, 50), 1),
        },
        "market_context": {"session": rng.choice(["Tokyo", "London", "NY"])},
        "outcome": {
            "status": "closed",
            "exit_time": f"{entry + timedelta(minutes=45):%Y-%m-%dT%H:%M:%S}",
            "exit_price": 1.1692 + rng.choice([0.002, -0.0015]),
            "profit": 1.5,
            "exit_strategy": {"exit_method": "trailing_stop"},
        },
    } | fields


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def imported(
    tmp_path: Path, log: Path, mapping: str, out: str = "out.jsonl"
) -> tuple[dict[str, object], list[Signal | Close]]:
    """The figures, and the events of the tape."""
    tape = tmp_path / out
    text = preset_text(mapping) if mapping in PRESETS else mapping
    findings = import_logs([log], tape, parse_mapping(text, "mapping.toml"))
    return dict(findings.figures), [line.entry().event for line in Tape(tape)]  # type: ignore[misc]


def rejected(tmp_path: Path) -> list[tuple[int, str]]:
    found = rejected_path(tmp_path / "out.jsonl").read_text().splitlines()
    return [(one["number"], one["reason"]) for one in map(json.loads, found)]


MINIMAL = """
[signal]
id = "id"
time = "opened"
symbol = { default = "S" }
side = { default = "long" }
features = ["x"]
[close]
time = "closed"
return_pct = "ret"
"""


def row(name: str, opened: str = "2026-01-05T10:00:00Z", **fields: object) -> dict[str, object]:
    return {
        "id": name, "opened": opened, "closed": "2026-01-05T11:00:00Z", "ret": 1.0, "x": 0.5,
    } | fields  # fmt: skip


def test_a_nested_log_becomes_signals_with_what_was_seen_and_closes_with_the_outcome(
    tmp_path: Path,
) -> None:
    figures, events = imported(tmp_path, lines(tmp_path / "l.jsonl", nested(1)), "confluence")
    signal, close = events
    record = nested(1)
    assert isinstance(signal, Signal) and isinstance(close, Close)
    assert (signal.signal_id, signal.side, signal.price) == ("54572000001", "long", 1.1692)
    assert signal.ts == START + timedelta(minutes=7)
    assert signal.features["confluence_score"] == record["confluence_score"]
    assert signal.features["trend_filter.adx"] == record["trend_filter"]["adx"]  # type: ignore[index]
    assert signal.features["vwap.in_band_1"] is record["vwap"]["in_band_1"]  # type: ignore[index]
    assert signal.features["market_context.session"] in ("Tokyo", "London", "NY")
    assert not any("outcome" in name or "value" in name for name in signal.features)
    exit_price = record["outcome"]["exit_price"]  # type: ignore[index]
    assert close.return_pct == pytest.approx(100 * (exit_price / 1.1692 - 1))
    assert (close.profit, close.exit_reason) == (1.5, "stop")
    assert figures["rejected"] == 0


def test_a_list_of_names_becomes_a_bool_a_name_in_every_signal(tmp_path: Path) -> None:
    log = lines(
        tmp_path / "l.jsonl",
        nested(1, htf_levels={"factors_matched": ["Daily POC", "Weekly HVN"]}),
        nested(2, htf_levels={"factors_matched": ["Weekly HVN"]}),
        nested(3, htf_levels={}, outcome=None),
    )
    _, events = imported(tmp_path, log, "confluence")
    signals = [event for event in events if isinstance(event, Signal)]
    name = "htf_levels.factors_matched."
    of = [{n: v for n, v in s.features.items() if n.startswith(name)} for s in signals]
    assert of == [
        {f"{name}Daily POC": True, f"{name}Weekly HVN": True},
        {f"{name}Daily POC": False, f"{name}Weekly HVN": True},
        {f"{name}Daily POC": None, f"{name}Weekly HVN": None},
    ]


def test_a_trade_logged_at_entry_and_again_at_exit_keeps_what_was_known_at_entry(
    tmp_path: Path,
) -> None:
    opened = nested(1, outcome={"status": "open"}, confluence_score=7)
    closed = nested(1, confluence_score=19)
    ended_before = nested(1, entry_time="2026-01-05T08:00:00")
    ended_before["outcome"] = {"exit_time": "2026-01-05T08:30:00", "profit": 1.0}
    records = [opened, nested(2, outcome={}), ended_before, closed, closed]
    log = lines(tmp_path / "l.jsonl", *records)
    figures, events = imported(tmp_path, log, "confluence")
    assert [type(event).__name__ for event in events] == ["Signal", "Signal", "Close"]
    assert events[0].features["confluence_score"] == 7  # type: ignore[union-attr]
    assert (figures["completed_by_a_later_record"], figures["open"]) == (1, 1)
    assert rejected(tmp_path) == [
        (3, "it ends before it begins"),
        (5, "another record of a trade that is there; got '54572000001'"),
    ]


def test_a_cancelled_order_was_never_a_trade(tmp_path: Path) -> None:
    outcome = {"status": "Cancelled", "exit_time": "2026-01-05T10:00:00", "profit": 0.0}
    log = lines(tmp_path / "l.jsonl", nested(1), nested(2, outcome=outcome))
    figures, _ = imported(tmp_path, log, "confluence")
    assert (figures["signals"], figures["rejected"]) == (1, 1)
    assert rejected(tmp_path) == [(2, "close.status: never a trade; got 'Cancelled'")]


def test_what_the_log_lacks_is_derived_and_counted(tmp_path: Path) -> None:
    log = lines(
        tmp_path / "l.jsonl",
        nested(1, outcome={"status": "closed", "profit": -5.0, "hold_hours": 2}),
        nested(2, outcome={"status": "win", "profit": 5.0}),
    )
    figures, events = imported(tmp_path, log, "confluence")
    closes = [event for event in events if isinstance(event, Close)]
    assert [close.return_pct for close in closes] == [-0.5, 0.5]
    assert closes[0].ts == START + timedelta(minutes=7 + 120)
    assert closes[1].ts == START + timedelta(minutes=14 + 1_440)
    assert figures["returns_from"] == {"profit of stake": 2}
    assert figures["exit_times_from"] == {
        "close.hold_minutes": 1, "close.assume_hold_minutes": 1,
    }  # fmt: skip


TRADE = {
    "pair": "TRX/BTC", "stake_amount": 0.001, "amount": 10.37, "is_open": False,
    "open_date": "2018-01-10 07:15:00+00:00", "close_date": "2018-01-10 07:20:00+00:00",
    "open_rate": 9.64e-05, "close_rate": 1.0074e-04, "fee_open": 0.0025, "fee_close": 0.0025,
    "trade_duration": 5, "profit_ratio": 0.0399, "profit_abs": 4.3e-06, "exit_reason": "roi",
    "initial_stop_loss_ratio": -0.1, "stop_loss_ratio": -0.02, "min_rate": 9.64e-05,
    "max_rate": 1.0074e-04, "enter_tag": "dip", "leverage": 1.0, "is_short": False,
    "open_timestamp": 1515568500000, "close_timestamp": 1515568800000,
    "orders": [{"amount": 10.37, "ft_order_side": "buy"}],
}  # fmt: skip


def backtest(*trades: dict[str, object]) -> str:
    return json.dumps({"strategy": {"Dip": {"trades": trades}}, "strategy_comparison": []})


def test_a_freqtrade_backtest_becomes_a_tape(tmp_path: Path) -> None:
    log = tmp_path / "backtest-result-2018-02-01_00-00-00.json"
    old = {k: v for k, v in TRADE.items() if k not in ("is_short", "enter_tag", "exit_reason")}
    short = TRADE | {"is_short": True, "exit_reason": "my_own", "pair": "ETH/BTC"}
    log.write_text(backtest(TRADE, short, old | {"sell_reason": "stop_loss", "pair": "ADA/BTC"}))
    figures, events = imported(tmp_path, log, "freqtrade")
    signals = [event for event in events if isinstance(event, Signal)]
    closes = [event for event in events if isinstance(event, Close)]
    assert signals[0].ts == datetime(2018, 1, 10, 7, 15, tzinfo=UTC)
    assert [(s.symbol, s.side, s.strategy) for s in signals] == [
        ("TRX/BTC", "long", "Dip"), ("ETH/BTC", "short", "Dip"), ("ADA/BTC", "long", "Dip"),
    ]  # fmt: skip
    assert signals[0].features == {
        "enter_tag": "dip", "leverage": 1.0, "initial_stop_loss_ratio": -0.1,
    }  # fmt: skip
    assert closes[0].return_pct == pytest.approx(3.99)
    assert [close.exit_reason for close in closes] == ["target", None, "stop"]
    assert figures["exit_reasons_without_a_meaning"] == {"my_own": 1}


def test_the_zip_that_freqtrade_writes_reads_like_its_document(tmp_path: Path) -> None:
    plain, packed = tmp_path / "backtest-result-1.json", tmp_path / "backtest-result-1.zip"
    plain.write_text(backtest(TRADE))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("backtest-result-1_config.json", "{}")
        archive.writestr("backtest-result-1.json", backtest(TRADE))
    assert imported(tmp_path, plain, "freqtrade")[1] == imported(tmp_path, packed, "freqtrade")[1]


COLUMNS = {
    "trade_id": [1, 2],
    "symbol": ["EURUSD", "XAUUSD"],
    "direction": ["buy", "sell"],
    "entry_time": ["2026-01-05 10:00", "2026-01-05 10:30"],
    "exit_time": ["2026-01-05 11:00", "2026-01-05 11:15"],
    "entry_price": [1.0, 200.0],
    "exit_price": [1.01, 201.0],
    "rsi": [55.5, None],
    "news": [True, False],
    "session": ["London", "NY"],
    "mfe": [1.2, 0.1],
}


def test_csv_and_parquet_with_a_row_a_trade_read_alike(tmp_path: Path) -> None:
    table = tmp_path / "trades.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(COLUMNS)
        writer.writerows(zip(*COLUMNS.values(), strict=True))
    packed = tmp_path / "trades.parquet"
    parquet.write_table(pa.table(COLUMNS), packed)
    figures, events = imported(tmp_path, table, "csv")
    assert imported(tmp_path, packed, "parquet") == (figures, events)
    first, second, later, last = events
    assert isinstance(first, Signal) and isinstance(second, Signal)
    assert first.features == {"rsi": 55.5, "news": True, "session": "London"}
    assert second.features == {"rsi": None, "news": False, "session": "NY"}
    assert (first.side, second.side) == ("long", "short")
    assert [event.signal_id for event in (later, last)] == ["1", "2"]
    assert later.return_pct == pytest.approx(1.0)  # type: ignore[union-attr]
    assert last.return_pct == pytest.approx(-0.5)  # type: ignore[union-attr]
    assert figures["left_out"] == {"mfe": "an outcome by its name"}


def test_times_and_decimals_of_parquet_are_taken_as_they_are(tmp_path: Path) -> None:
    at = datetime(2026, 1, 5, 10, tzinfo=UTC)
    table = pa.table(
        {
            "id": ["a"],
            "opened": pa.array([at], pa.timestamp("ns", "America/New_York")),
            "closed": pa.array([at.replace(tzinfo=None)], pa.timestamp("ms")),
            "ret": pa.array([1], pa.decimal128(5, 2)),
            "x": pa.array([2.5], pa.float32()),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    _, (signal, close) = imported(tmp_path, tmp_path / "t.parquet", MINIMAL)
    assert (signal.ts, close.ts) == (at, at)
    assert (signal.features, close.return_pct) == ({"x": 2.5}, 1.0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("times", "written", "expected"),
    [
        ("", "2026-07-01T12:00:00+02:00", "2026-07-01T10:00:00"),
        ("", 1_782_900_000, "2026-07-01T10:00:00"),
        ("", "1782900000000", "2026-07-01T10:00:00"),
        ("timezone = 'Europe/London'", "2026-07-01 11:00", "2026-07-01T10:00:00"),
        ("format = '%d.%m.%Y %H:%M'", "01.07.2026 10:00", "2026-07-01T10:00:00"),
        ("format = ['%d.%m.%Y', 'us']", 1_782_900_000_000_001, "2026-07-01T10:00:00.000001"),
    ],
)
def test_times_are_read_as_the_mapping_says(
    tmp_path: Path, times: str, written: object, expected: str
) -> None:
    log = lines(tmp_path / "l.jsonl", row("a", opened=written, closed=written))
    _, events = imported(tmp_path, log, f"[times]\n{times}\n{MINIMAL}")
    assert events[0].ts == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_the_tape_is_in_event_time_with_closes_first_but_never_before_their_own_signal(
    tmp_path: Path,
) -> None:
    log = lines(
        tmp_path / "l.jsonl",
        row("later", "2026-01-05T11:00:00Z", closed="2026-01-05T12:00:00Z"),
        row("first", "2026-01-05T10:00:00Z"),
        row("at once", "2026-01-05T11:00:00Z"),
    )
    _, events = imported(tmp_path, log, MINIMAL)
    assert [(event.type, event.signal_id) for event in events] == [
        ("signal", "first"),
        ("close", "first"),
        ("signal", "later"),
        ("signal", "at once"),
        ("close", "at once"),
        ("close", "later"),
    ]


def test_records_that_cannot_be_used_are_kept_with_their_line_and_the_reason(
    tmp_path: Path,
) -> None:
    log = lines(
        tmp_path / "l.jsonl",
        row("good"),
        [1, 2],
        row("backwards", closed="2026-01-05T09:00:00Z"),
        row("when", "soon"),
        row("what", ret="a lot"),
        row("good", x=2),
        row("x" * 200),
        row("endless", ret=None),
        row("huge", x="y" * 300),
    )
    with log.open("a") as file:
        file.write('{"id": "cut')
    figures, events = imported(tmp_path, log, MINIMAL)
    assert [event.signal_id for event in events] == ["good", "good"]
    reasons = dict(rejected(tmp_path))
    assert sorted(reasons) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    for number, said in {
        2: "not a JSON object",
        3: "ends before it begins",
        4: "signal.time: not a time as auto; got 'soon'",
        5: "close.return_pct: not a number; got 'a lot'",
        6: "another record of a trade that is there",
        7: "at most 128 characters",
        8: "close.return_pct: no value",
        9: "feature `x`",
        10: "not JSON",
    }.items():
        assert said in reasons[number]
    assert (figures["records"], figures["rejected"]) == (10, 9)


def test_no_record_is_lost_or_doubled(tmp_path: Path) -> None:
    """Every record is a signal, completes one, or stands among the rejected."""
    rng = random.Random(5)
    records = [nested(rng.randrange(300)) for _ in range(400)]
    records += [nested(n, outcome={"status": rng.choice(["open", "cancelled"])}) for n in range(99)]
    figures, events = imported(tmp_path, lines(tmp_path / "l.jsonl", *records), "confluence")
    signals = [event for event in events if isinstance(event, Signal)]
    parts = [figures[n] for n in ("signals", "completed_by_a_later_record", "rejected")]
    assert sum(parts) == figures["records"] == 499  # type: ignore[arg-type]
    assert len({signal.signal_id for signal in signals}) == len(signals) == figures["signals"]


def test_names_that_are_derived_are_stable_and_tell_trades_apart(tmp_path: Path) -> None:
    text = MINIMAL.replace('id = "id"\n', "")
    records = [row("a", x=1), row("b", x=2), row("c", "2026-01-05T10:30:00Z")]
    _, events = imported(tmp_path, lines(tmp_path / "l.jsonl", *records), text)
    _, reversed_events = imported(tmp_path, lines(tmp_path / "r.jsonl", *records[2:]), text)
    names = [event.signal_id for event in events if isinstance(event, Signal)]
    assert len(set(names)) == 3
    assert names[2] == reversed_events[0].signal_id
    _, again = imported(tmp_path, lines(tmp_path / "l.jsonl", *records, records[0]), text)
    assert again == events


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"opened"', '"opend"'), "signal.time: no record has `opend`; nearest: `opened`"),
        (('["x"]', '["xs"]'), "signal.features: no record has `xs`; nearest: `x`"),
        (('["x"]', '["y.*"]'), "signal.features: no record has `y`"),
        (('["x"]', '["profit"]'), "`profit` is an outcome by its name"),
        (('["x"]', '["ret"]'), "`ret`, which [close] uses"),
        (('["x"]', '["closed"]'), "`closed`, which [close] uses"),
        (("[close]", "[closes]"), "closes: there is no such entry"),
        (('"ret"', "7"), "close.return_pct"),
        (("[signal]", "[times]\ntimezone = 'Mars'\n[signal]"), "no time zone 'Mars'"),
        (('time = "opened"', "time ="), "not TOML"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    log = lines(tmp_path / "l.jsonl", row("a", profit=1.0))
    with pytest.raises(MappingError) as refused:
        imported(tmp_path, log, MINIMAL.replace(*change, 1))
    assert said in str(refused.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_group_that_holds_an_outcome_is_no_group_of_features(tmp_path: Path) -> None:
    text = MINIMAL.replace('"ret"', '"trade.ret"').replace('["x"]', '["trade.*"]')
    with pytest.raises(MappingError, match=r"`trade.\*` takes in `trade.ret`"):
        imported(tmp_path, lines(tmp_path / "l.jsonl", row("a", trade={"ret": 1.0})), text)


def test_a_feature_named_like_an_outcome_can_be_vouched_for(tmp_path: Path) -> None:
    text = MINIMAL.replace('["x"]', '["result"]\nknown_at_entry = ["result"]')
    _, events = imported(tmp_path, lines(tmp_path / "l.jsonl", row("a", result=3)), text)
    assert events[0].features == {"result": 3.0}  # type: ignore[union-attr]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_mapping_and_is_printed_to_start_from(
    closeloop: Command, preset: str
) -> None:
    ran = closeloop("import", "--show-preset", preset)
    assert ran.status == 0
    assert ran.out == preset_text(preset)
    parse_mapping(ran.out, preset)


def test_an_imported_tape_passes_an_audit_and_is_replayed(
    closeloop: Command, tmp_path: Path
) -> None:
    log = lines(tmp_path / "l.jsonl", *map(nested, range(300)), {"ticket": 9})
    ran = closeloop("import", log, "--preset", "confluence", "--out", "t.jsonl.gz")
    assert ran.status == 0
    assert "t.jsonl.gz.rejected.jsonl" in ran.out.replace("\n", "")
    assert max(map(len, ran.out.splitlines())) <= 80
    checks = audit(Tape(tmp_path / "t.jsonl.gz")).figures["checks"]
    assert {n: c["found"] for n, c in checks.items() if c["verdict"] == "problem"} == {}  # type: ignore[attr-defined]
    replayed = closeloop("replay", "t.jsonl.gz", "--json", "-").json
    assert replayed["outcomes"] == 300  # type: ignore[index]


def test_the_command_says_what_it_lacks(closeloop: Command, tmp_path: Path) -> None:
    log = lines(tmp_path / "l.jsonl", nested(1))
    assert closeloop("import", log, "--preset", "confluence").status == 2
    assert closeloop("import", log, "--out", "t.jsonl").status == 2
    ran = closeloop("import", log, "--out", "t.jsonl", "--preset", "mt4")
    assert ran.status == 2 and "there are confluence, csv, freqtrade, parquet" in ran.err
    assert closeloop("import", "no.csv", "--preset", "csv", "--out", "t.jsonl").status == 4
    assert closeloop("import", log, "--preset", "confluence", "--out", "t.jsonl").status == 0
    ran = closeloop("import", log, "--preset", "confluence", "--out", "t.jsonl")
    assert ran.status == 4 and "--force" in ran.err
    odd = {"symbol": "S", "entry_time": 1, "direction": "up", "outcome": {"profit": 1}}
    log = lines(tmp_path / "m.jsonl", odd)
    ran = closeloop("import", log, "--preset", "confluence", "--out", "u.jsonl", "--json")
    assert (ran.status, ran.json["signals"]) == (1, 0)  # type: ignore[index]


def test_a_log_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "b.parquet"
    broken.write_bytes(b"PAR1 no more")
    for log in (broken, lines(tmp_path / "empty.jsonl")):
        with pytest.raises(TapeError, match=log.name):
            imported(tmp_path, log, MINIMAL)
    odd = tmp_path / "log.xyz"
    odd.write_text("{}")
    with pytest.raises(MappingError, match="write `format` into the mapping"):
        imported(tmp_path, odd, MINIMAL)
    assert not (tmp_path / "out.jsonl").exists()
