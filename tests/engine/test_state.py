"""A core that goes on from a snapshot: nothing that matters is left out, and everything matters.

The history has something of all that the state is there for: drift, refits under way while columns
are added, an expert that fails, copies, closes that wait, signals that expire, obeyed controls.
"""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from lightgbm.basic import LightGBMError
from msgspec.structs import replace

from engine.controls import sign
from engine.core import Core
from engine.core_config import (
    CoreConfig,
    DriftConfig,
    ExpertConfig,
    LedgerConfig,
    PolicyConfig,
    RefitConfig,
)
from engine.safety.settings import AlertsConfig, RolloutConfig, SafetyConfig
from engine.snapshotting import take, to_bytes
from learners import RefitParams
from snapshots import read, state_digest
from streams import Close, Control, Signal, encode
from tests.engine.histories import KEY, at, close, entries, new_core, run, signal

CONFIG = CoreConfig(
    ledger=LedgerConfig(expire_days=0.04, park_minutes=20, remember=150),
    experts={
        "base_rate": ExpertConfig(kind="base_rate"),
        "regime": ExpertConfig(kind="group_rate", params={"by": "regime", "min_closes": 5}),
        "logistic": ExpertConfig(kind="logistic"),
        "forest": ExpertConfig(kind="forest", params={"n_models": 2}),
        # Its weights overflow after a few closes.
        "failing": ExpertConfig(kind="river.linear_model.LogisticRegression", params={"l2": 1e300}),
    },
    drift=DriftConfig(delta=0.1, feature_reference=80, feature_window=40),
    refit=RefitConfig(
        every=40, lag=25, window=120, holdout=30, tolerance=0.1, guard=1.0, daily_at="01:00",
        params=RefitParams(rounds=5, min_data_in_leaf=10),
    ),
    policy=PolicyConfig(warmup_closes=20),
    rollout=RolloutConfig(mode="canary", stages=(50.0, 100.0), min_closes=20, min_days=0.0),
    safety=SafetyConfig(triggers={"accuracy_low": {"window": 40}, "calibration": {"window": 40}}),
    alerts=AlertsConfig(max_per_hour=8),
)  # fmt: skip
SIGNALS = 300
EVENING = 720
"""Minutes by which it begins later than other histories: midnight is in its middle."""
COMMANDS: dict[int, tuple[str, dict[str, float | str]]] = {
    100: ("set", {"setting": "policy.max_risk_pct", "value": 0.9}),
    110: ("set", {"setting": "policy.kelly_fraction", "value": 0.5}),
    115: ("set", {"setting": "policy.max_positions", "value": 3}),
    125: ("halt", {}),
    145: ("arm", {}),
    200: ("rollback", {}),
    230: ("approve", {"proposal": 1}),
    270: ("pin", {"model": "refit-192"}),
    280: ("arm", {}),
    285: ("mode", {"mode": "advisory"}),
    **{
        minute: ("measure", {"name": "snapshot_age", "value": value})
        for minute, value in ((80, 61.0), (140, 1.0))
    },
}


def control(minute: int, command: str = "refit", **args: float | str) -> Control:
    ts = at(minute)
    blank = Control(
        command=command, ts=ts, by="ann", reason="to see", sig="0" * 64, args=args or None
    )
    return replace(blank, sig=sign(blank, KEY))


def eventful() -> Iterator[Signal | Close | Control | bytes]:
    rng = random.Random(3)
    closes: dict[int, Close] = {}
    for i in range(SIGNALS):
        edge = rng.gauss(0, 1)
        won = (edge + rng.gauss(0, 0.2) > 0) != (i > 180)
        size = 0.5 + i % 3
        ended = close(
            f"s{i}",
            EVENING + i + 8,
            size if won else -size,
            exit_reason="target" if won else "stop",
        )
        if i % 37 == 20:
            yield ended  # before its signal
        elif i % 41 != 30:  # those never close, or too late
            closes[i + 8] = ended
        elif i + 90 < SIGNALS:
            closes[i + 90] = ended
        features = {
            "edge": edge,
            f"late{i // 30}": rng.random(),
            "adx": 10.0 + i // 7 % 3 * 10.0,
            "moved": i * 37 % 101 + 200 * (i > 150),
        }
        yield signal(f"s{i}", EVENING + i, symbol=rng.choice(["A", "B"]), features=features)
        if i in closes:
            yield closes[i]
        if i % 50 == 10:
            yield close(f"ghost{i}", EVENING + i)
        if i % 45 == 5:
            yield b"not JSON"
        if i % 23 == 7:
            yield closes.get(i - 3, ended)  # a copy, or one that came early
            yield signal(f"s{max(0, i - 11)}", EVENING + i, features={"edge": 9.0})
        if i in (60, 150, 250):
            yield control(200 if i == 150 else 60)  # the last is a copy
        if i in COMMANDS:
            command, args = COMMANDS[i]
            yield control(i, command, **args)
        if i == 200:
            yield control(80, "measure", **COMMANDS[80][1])  # a copy


STREAM = entries(*[e if isinstance(e, bytes) else encode(e) for e in eventful()])
CUTS = range(len(STREAM) // 9, len(STREAM), len(STREAM) // 9)


def outputs(core: Core, start: int) -> list[bytes]:
    return [encode(output) for output in run(core, STREAM[start:])]


@pytest.fixture(scope="module")
def taken() -> dict[int, tuple[bytes, list[bytes], str]]:
    """At each cut a snapshot, what is put out after it, and the digest at the end."""
    core, snapshots, later, start = new_core(CONFIG), {}, [], 0
    for cut in [*CUTS, len(STREAM)]:
        later.append([encode(output) for output in run(core, STREAM[start:cut])])
        start = cut
        snapshots[cut] = to_bytes(take(core, "one", None), KEY + KEY)
    final = state_digest(core.state())
    return {
        cut: (snapshots[cut], [data for part in later[number:] for data in part], final)
        for number, cut in enumerate(CUTS, 1)
    }


def test_the_history_has_something_of_everything():
    text = b"".join(outputs(new_core(CONFIG), 0))
    for word in (
        b'"drift"', b"feature_drift", b"refit_installed", b"expert_failed", b"signal_expired",
        b"orphan_close", b"late_close", b"invalid", b"refit asked for", b"was obeyed before",
        b"halted by ann", b"armed by ann", b"back to refit", b"waits as proposal",
        b"approved by ann", b"accuracy_low", b'"resolved"', b'"daily"', b'"baseline_arm"',
        b'"unsaid"', b"pinned by ann", b'"advisory"', b"daily_summary",
    ):  # fmt: skip
        assert word in text, word


@pytest.mark.parametrize("cut", CUTS)
def test_from_any_snapshot_on_everything_put_out_is_what_it_would_have_been(taken, cut):
    data, later, final = taken[cut]
    core = new_core(CONFIG)
    core.restore(read(data, KEY + KEY).tree)
    assert outputs(core, cut) == later
    assert state_digest(core.state()) == final


PARTS = (
    ("time",), ("controls",), ("measurements",), ("settings",), ("book",), ("decisions_digest",),
    ("counts",), ("transport",),
    ("ledger", "open", "outlooks", "rows", "frozen", "votes"), ("ledger", "parked"),
    ("ledger", "ended", "ended_closed"),
    *(("guard", part) for part in ("revision", "switch", "rollout", "approvals", "daily")),
    *(("model", part) for part in (
        "closes", "last_close", "refits", "columns", "fresh", "failures", "encoder", "history",
        "regimes", "panel", "monitors", "window", "schedule", "return_booster", "features",
        "timetable", "registry",
    )),
    *(("model", "forecaster", part) for part in (
        "mixture", "calibration", "payoff", "expected_return", "stop_risk",
        "probability_interval", "return_interval", "usual_size",
    )),
)  # fmt: skip
"""All of a core's state, in pieces that can be forgotten one by one."""
COUNTED = (
    ("counts",),
    ("decisions_digest",),
    ("model", "refits"),
    # It counts groups of closes of like probability: the history is short for whole ones.
    ("model", "forecaster", "probability_interval"),
    # It is held against what a command was given in view of.
    ("guard", "revision"),
    # It matters only to a refit under way soon after a drift.
    ("model", "fresh"),
)
"""What no output shows."""
MADE_AGAIN = (("model", "timetable"),)
"""What the next close would make again, unless a time of day fell just between."""


def test_the_pieces_are_all_of_the_state():
    state = new_core(CONFIG).state()
    for name, value in list(state["model"]["forecaster"].items()):
        state["model"]["forecaster", name] = value
    del state["model"]["forecaster"]
    named = {
        (section, piece)
        for section, *pieces in PARTS
        for piece in ([tuple(pieces)] if pieces[:1] == ["forecaster"] else pieces or state[section])
    }
    assert named == {(section, piece) for section, pieces in state.items() for piece in pieces}


def without(state: dict[str, Any], part: tuple[str, ...]) -> dict[str, Any]:
    """`state`, but for one part, which is as in a new core."""
    section, *pieces = part
    new = new_core(CONFIG).state()
    if not pieces:
        return state | {section: new[section]}
    if pieces[0] == "forecaster":
        old, fresh = state["model"]["forecaster"], new["model"]["forecaster"]
        changed = {"forecaster": old | {piece: fresh[piece] for piece in pieces[1:]}}
    else:
        changed = {piece: new[section][piece] for piece in pieces}
    return state | {section: state[section] | changed}


@pytest.mark.parametrize("part", [p for p in PARTS if p not in MADE_AGAIN], ids=".".join)
def test_no_piece_of_the_state_could_be_left_out(taken, part):
    def told_apart(cut: int) -> bool:
        data, later, final = taken[cut]
        core = new_core(CONFIG)
        try:
            core.restore(without(read(data, KEY + KEY).tree, part))
            told = outputs(core, cut) != later
        except (LightGBMError, LookupError, ValueError):
            return True
        return told or (part in COUNTED and state_digest(core.state()) != final)

    assert any(told_apart(cut) for cut in CUTS)


@pytest.mark.parametrize("part", PARTS, ids=".".join)
def test_the_state_digest_covers_every_piece_but_where_the_events_came_from(taken, part):
    states = [read(data, KEY + KEY).tree for data, _, _ in taken.values()]
    covered = any(state_digest(without(state, part)) != state_digest(state) for state in states)
    assert covered == (part != ("transport",))
