"""Each trigger of the kill switch: at its threshold, just short, after a crash, in a replay."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from msgspec.structs import replace

from drift.shares import BACK, NOTHING, PAST
from engine.controls import sign
from engine.core import Core
from engine.core_config import CoreConfig, DriftConfig, PolicyConfig, RefitConfig
from engine.safety.settings import SafetyConfig, TriggersConfig
from engine.safety.switch import STATES
from engine.safety.triggers import DELAYS, KINDS, REFERENCE, Trade, share_monitors, watchers
from engine.snapshotting import take, to_bytes
from snapshots import read, state_digest
from streams import Alert, Control, Decision, Entry, Output, encode
from tests.engine.histories import KEY, QUICK, at, close, entries, history, new_core, run, signal

NAMES = tuple(TriggersConfig.model_fields)


def traded(
    won: bool,
    *,
    taken: bool = True,
    baseline_takes: bool = True,
    p: float = 0.5,
    gain_pct: float = 0.0,
    minutes: float = 0.0,
    delay_s: float = 600.0,
    sizes: float = 1.0,
) -> Trade:
    return Trade(at(minutes), delay_s, p, won, taken, baseline_takes, gain_pct, sizes)


Feed = Callable[[Any], bool | None]


class OfShares:
    """A figure of `ShareMonitors`, told of closes and asked as the other watchers are."""

    def __init__(self, config: TriggersConfig, name: str) -> None:
        names, self.monitors = share_monitors(config)
        self.figure = names.index(name)
        self.clear = watchers(config, names, self.monitors)[name].clear

    def closed(self, trade: Trade) -> bool | None:
        said = self.monitors.update(trade.probability, trade.won, trade.taken, trade.baseline_takes)
        return {NOTHING: None, BACK: False, PAST: True}[said >> 2 * self.figure & 3]


def fresh(name: str, changed: Mapping[str, object] = MappingProxyType({})) -> Any:
    config = TriggersConfig.model_validate(changed)
    return (
        OfShares(config, name) if name in KINDS else watchers(config, *share_monitors(config))[name]
    )


def closes(*groups: tuple[int, Trade]) -> Feed:
    """What the last close of so many of each makes it say."""

    def feed(watcher: Any) -> bool | None:
        said = None
        for count, trade in groups:
            for _ in range(count):
                said = watcher.closed(trade)
        return said

    return feed


def called(right: int, of: int) -> Feed:
    return closes((right, traded(False, p=0.4)), (of - right, traded(True, p=0.4)))


def wins(model: int, of: int) -> Feed:
    """The baseline's 200 trades win 160 times."""
    own = {"baseline_takes": False}
    other = {"taken": False}
    return closes(
        (160, traded(True, **other)),
        (40, traded(False, **other)),
        (model, traded(True, **own)),
        (of - model, traded(False, **own)),
    )


def alarms(*at_closes: int) -> Feed:
    return lambda watcher: [watcher.drifted(closes) for closes in at_closes][-1]


def silence(signals: int, minutes: float) -> Feed:
    """The last of so many signals, that long after the last close; 10 minutes are usual."""

    def feed(watcher: Any) -> bool | None:
        closes((DELAYS, traded(True)))(watcher)
        return [watcher.decided(0.5, at(minutes)) for _ in range(signals)][-1]

    return feed


def ranged(outside: int) -> Feed:
    """The newest 200 probabilities, so many of them far from the 1,000 before."""

    def feed(watcher: Any) -> bool | None:
        for i in range(REFERENCE):
            watcher.decided(0.4 + i % 100 / 1_000.0, at(0))
        inside = [watcher.decided(0.45, at(0)) for _ in range(200 - outside)]
        return [*inside, *(watcher.decided(0.9, at(0)) for _ in range(outside))][-1]

    return feed


def value(measured: float) -> Feed:
    return lambda watcher: watcher.measured(measured)


@pytest.mark.parametrize(
    ("name", "short", "past"),
    [
        ("consecutive_losses", closes((9, traded(True)), (2, traded(False))),
         closes((9, traded(True)), (3, traded(False)))),
        ("drawdown", closes((2, traded(True, gain_pct=3.0)), (10, traded(False, gain_pct=-1.0))),
         closes((10, traded(False, gain_pct=-1.0)), (1, traded(False, gain_pct=-0.01)))),
        # k of 500 with k / 500 + 3 standard errors below the threshold.
        ("accuracy", called(217, 500), called(216, 500)),
        ("accuracy_low", called(242, 500), called(241, 500)),
        # 160 of 200 against 113 or 112: 10 points and 3 standard errors of 4.5.
        ("win_rate", wins(113, 200), wins(112, 200)),
        ("win_rate_low", wins(124, 200), wins(123, 200)),
        ("latency", value(100.0), value(100.1)),
        ("late_labels", silence(100, 30.0), silence(100, 30.1)),
        ("late_labels", silence(99, 60.0), silence(100, 60.0)),
        ("probability_range", ranged(160), ranged(161)),
        ("repeated_drift", alarms(1, 500, 1_001), alarms(1, 500, 1_000)),
        ("snapshot_age", value(60.0), value(60.1)),
        ("absurd_returns", closes((9, traded(True, sizes=50.0))),
         closes((3, traded(False, sizes=50.1)))),
        ("absurd_returns", closes((2, traded(True, sizes=99.0)), (1, traded(True))),
         closes((3, traded(True, sizes=99.0)))),
        # 7.5 points are 3 standard errors of 400 at a half.
        ("calibration", closes((270, traded(True)), (130, traded(False))),
         closes((271, traded(True)), (129, traded(False)))),
    ],
)  # fmt: skip
def test_it_fires_past_its_threshold_and_not_at_it(name: str, short: Feed, past: Feed) -> None:
    window = {"win_rate": 400, "win_rate_low": 400, "calibration": 400}.get(name)
    changed = {} if window is None else {name: {"window": window}}
    assert not short(fresh(name, changed))
    assert past(fresh(name, changed)) is True
    cleared = fresh(name, changed)
    past(cleared)
    cleared.clear()
    assert not short(cleared)  # what was before doesn't count any more


def test_a_share_is_over_only_when_the_plain_figure_is_back_at_its_threshold() -> None:
    accuracy = fresh("accuracy")
    assert called(216, 500)(accuracy) is True
    # One by one wrong calls leave and right ones come: first doubtful, then over.
    said = [accuracy.closed(traded(False, p=0.4)) for _ in range(500)]
    said = [one for one, before in zip(said, [True, *said], strict=False) if one != before]
    assert said == [None, False]


# In the engine: histories that bring each past a threshold that is low enough for them.


@dataclass(frozen=True)
class Case:
    """A trigger in the engine: what fires it."""

    name: str
    changed: dict[str, object]
    stream: Callable[[], list[Entry]]
    config: dict[str, object] = field(default_factory=dict)


def measured(name: str, value: float, second: int) -> bytes:
    ts = at(0) + timedelta(seconds=second)
    args = {"name": name, "value": value}
    blank = Control(command="measure", ts=ts, by="one", reason="", sig="0" * 64, args=args)
    return encode(replace(blank, sig=sign(blank, KEY)))


def long() -> list[Entry]:
    return entries(*history(260))


def stuck() -> list[Entry]:
    """Labels that come no more."""
    events = [e for e in history(DELAYS + 30) if e.ts <= at(DELAYS + 25)]
    signals = [signal(f"late{i}", DELAYS + 26 + i) for i in range(150)]
    return entries(*events, *signals)


def many() -> list[Entry]:
    return entries(*history(REFERENCE + 260))


def clocked(name: str, *values: float) -> Callable[[], list[Entry]]:
    said = [measured(name, value, second) for second, value in enumerate(values)]
    return lambda: entries(signal("a", 0), *said, signal("b", 1))


def flips() -> Iterator[Any]:
    """What told a win from a loss tells the opposite, from the middle on."""
    for i in range(700):
        edge = float(i * 37 % 101 - 50)
        yield signal(f"d{i}", i, features={"edge": edge})
        yield close(f"d{i}", i + 0.5, 1.0 if (edge > 0) != (i > 350) else -1.0)


CASES = (
    Case("consecutive_losses", {"threshold": 2}, long),
    Case("drawdown", {"threshold": 0.01}, long),
    Case("accuracy", {"threshold": 1.0, "window": 30}, long),
    Case("accuracy_low", {"threshold": 1.0, "window": 30}, long),
    Case("win_rate", {"threshold": -100.0, "window": 120}, long),
    Case("win_rate_low", {"threshold": -100.0, "window": 120}, long),
    Case("latency", {}, clocked("latency", 100.0, 101.0)),
    Case("late_labels", {}, stuck),
    Case("probability_range", {"threshold": 0.0, "window": 50}, many),
    Case("repeated_drift", {"threshold": 1}, lambda: entries(*flips()),
         {"drift": DriftConfig(delta=0.1)}),
    Case("absurd_returns", {"threshold": 1.2, "window": 2}, long),
    Case("snapshot_age", {}, clocked("snapshot_age", 60.0, 61.0)),
    Case("calibration", {"threshold": -50.0, "window": 30}, long),
)  # fmt: skip


@dataclass
class Fired:
    case: Case
    config: CoreConfig
    stream: list[Entry]
    number: int
    """Of the entry that fired it."""
    outputs: list[list[Output]]
    """Of each entry."""
    before: bytes
    """A snapshot just before."""
    digest: str
    """Of the state at the end."""


def is_firing(outputs: list[Output], name: str) -> bool:
    return any(isinstance(o, Alert) and (o.code, o.state) == (name, "firing") for o in outputs)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def fired(request: pytest.FixtureRequest) -> Fired:
    case: Case = request.param
    triggers: dict[str, dict[str, object]] = {n: {"enabled": n == case.name} for n in NAMES}
    triggers[case.name] |= case.changed
    chosen = QUICK.model_copy(
        update={
            "policy": PolicyConfig(
                rule="thresholds", take=0.0, skip=0.0, warmup_closes=0, max_positions=1_000
            ),
            "refit": RefitConfig(enabled=False),
            "safety": SafetyConfig(triggers=triggers),  # type: ignore[arg-type] # validated
            **case.config,
        }
    )
    stream, core = case.stream(), new_core(chosen)
    outputs = [core.apply(entry) for entry in stream]
    number = next(i for i, out in enumerate(outputs) if is_firing(out, case.name))
    before = new_core(chosen)
    run(before, stream[:number])
    snapshot = to_bytes(take(before, "one", None), KEY + KEY)
    return Fired(case, chosen, stream, number, outputs, snapshot, state_digest(core.state()))


def restored(fired: Fired) -> Core:
    core = new_core(fired.config)
    core.restore(read(fired.before, KEY + KEY).tree)
    return core


def test_every_trigger_has_its_case() -> None:
    assert {case.name for case in CASES} == {*NAMES}


def test_the_engine_becomes_what_the_trigger_is_set_to_and_says_so_once(fired: Fired) -> None:
    core = restored(fired)
    assert core.guard.switch.state_now == "ACTIVE"
    core.apply(fired.stream[fired.number])
    target = getattr(fired.config.safety.triggers, fired.case.name).target
    assert core.guard.switch.state_now == target
    (alert,) = [o for o in fired.outputs[fired.number] if isinstance(o, Alert) and o.state]
    assert alert.severity == ("critical" if target == "HALTED" else "warning")
    assert "(threshold " in alert.message
    later = [d for out in fired.outputs[fired.number + 1 :] for d in out if isinstance(d, Decision)]
    assert later, "no decision follows"
    assert later[0].safety == (None if target == "ACTIVE" else target)
    if target == "HALTED":
        assert {(d.action, d.reasons) for d in later} == {("skip", ("halted",))}
    if target == "REDUCING":
        assert later[0].reasons[-1] == "reducing"
        assert later[0].size_multiplier == fired.config.safety.reducing_size


def test_after_a_crash_just_before_it_fires_at_the_same_event(fired: Fired) -> None:
    core = restored(fired)
    again = [core.apply(entry) for entry in fired.stream[fired.number :]]
    assert [list(map(encode, out)) for out in again] == [
        list(map(encode, out)) for out in fired.outputs[fired.number :]
    ]
    assert state_digest(core.state()) == fired.digest


def test_a_replay_fires_at_the_same_event(fired: Fired) -> None:
    core = new_core(fired.config)
    again = [core.apply(entry) for entry in fired.stream]
    assert [i for i, out in enumerate(again) if is_firing(out, fired.case.name)] == [
        i for i, out in enumerate(fired.outputs) if is_firing(out, fired.case.name)
    ]
    assert state_digest(core.state()) == fired.digest


def test_states_are_ordered_from_free_to_halted() -> None:
    assert STATES == ("ACTIVE", "REDUCING", "HALTED")
