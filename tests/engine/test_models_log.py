"""The models stream as a history: who was champion when, held to what the engine itself had."""

import random
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.controls import sign
from engine.core_config import DriftConfig, RefitConfig
from engine.models_log import History, Reign, UnknownModel, reconstruct
from engine.models_reading import NoModels, decision_of, drift_alarms, newest_first, read_history
from learners import RefitParams
from streams import (
    Alert,
    Close,
    Connection,
    Control,
    Decision,
    Keys,
    ModelChange,
    StreamError,
    encode,
)
from streams.events import ModelFacts
from tests.engine.histories import KEY, QUICK, at, entries, history, new_core

KEYS = Keys()


def facts(launched: int, **given: object) -> ModelFacts:
    made = {"cause": "closes", "launched": launched, "trained_on": 40, "held_out": 20}
    return ModelFacts(**made | given)


def change(
    what: str, model: str, update: int, champion: str | None, **given: object
) -> ModelChange:
    """A record; `parent` is the champion until then, where it is not the same as now."""
    told = {"by": "closes", "reason": "because"} | given
    return ModelChange(
        ts=at(update), change=what, model=model, update=update, champion=champion, **told
    )  # fmt: skip


def fitted(model: str, update: int, champion: str | None, **given: object) -> ModelChange:
    judged = {"metrics": {"accuracy": 0.7}}
    if champion is not None:
        judged["champion_metrics"] = {"accuracy": 0.6}
    made = facts(update - 10, **judged)
    return change(
        "fitted", model, update, champion, digest=f"digest of {model}", facts=made, **given
    )


def of(*changes: ModelChange) -> History:
    return reconstruct((f"{number}-0", each) for number, each in enumerate(changes, 1))


def spans(reigns: Sequence[Reign]) -> list[tuple[str | None, int, int | None]]:
    return [(reign.model, reign.first, reign.last) for reign in reigns]


A, B, C, D = "refit-60", "refit-120", "refit-180", "refit-240-forced"
FIRST = (fitted(A, 70, None), change("installed", A, 70, A))
SECOND = (fitted(B, 130, A), change("installed", B, 130, B, parent=A))
BACK = change("rolled_back", A, 150, A, parent=B, by="ann")
PINNED = change("pinned", A, 160, A, parent=A, by="ann")
TURNED_AWAY = (fitted(C, 190, A), change("rejected", C, 190, A))
FORCED = (fitted(D, 250, A), change("installed", D, 250, D, parent=A, by="bob", forced=True))
LOST = change("lost", D, 300, None, parent=D, by="drift")


@pytest.mark.parametrize(
    ("changes", "reigns", "champion", "challenger", "pinned"),
    [
        (FIRST[:1], [(None, 0, None)], None, A, None),
        (FIRST, [(None, 0, 69), (A, 70, None)], A, None, None),
        ((*FIRST, *SECOND), [(None, 0, 69), (A, 70, 129), (B, 130, None)], B, None, None),
        (
            # People do it between two events: decisions of that number may lie on either side.
            (*FIRST, *SECOND, BACK),
            [(None, 0, 69), (A, 70, 129), (B, 130, 150), (A, 150, None)], A, None, None,
        ),
        (
            (*FIRST, *SECOND, BACK, PINNED, *TURNED_AWAY),
            [(None, 0, 69), (A, 70, 129), (B, 130, 150), (A, 150, None)], A, C, A,
        ),
        (
            # A forced one comes in although another is pinned; the new one is pinned then.
            (*FIRST, PINNED, *TURNED_AWAY, *FORCED),
            [(None, 0, 69), (A, 70, 249), (D, 250, None)], D, None, D,
        ),
        (
            (*FIRST, PINNED, *FORCED, LOST),
            [(None, 0, 69), (A, 70, 249), (D, 250, 299), (None, 300, None)], None, None, None,
        ),
        (
            (*FIRST, PINNED, change("unpinned", A, 170, A, parent=A, by="ann")),
            [(None, 0, 69), (A, 70, None)], A, None, None,
        ),
        (
            # Refused, then installed by a person.
            (*FIRST, *TURNED_AWAY, change("installed", C, 190, C, parent=A, by="ann", forced=True)),
            [(None, 0, 69), (A, 70, 190), (C, 190, None)], C, None, None,
        ),
        # What was trimmed: the oldest entry left says who was champion before it.
        ((BACK,), [(B, 0, 150), (A, 150, None)], A, None, None),
        (TURNED_AWAY[:1], [(A, 0, None)], A, C, None),
        ((LOST,), [(D, 0, 299), (None, 300, None)], None, None, None),
        ((FIRST[1],), [(None, 0, 70), (A, 70, None)], A, None, None),
    ],
)  # fmt: skip
def test_who_was_champion_follows_from_the_changes(changes, reigns, champion, challenger, pinned):
    found = of(*changes)
    assert spans(found.reigns) == reigns
    assert (found.champion, found.challenger, found.pinned) == (champion, challenger, pinned)


@pytest.mark.parametrize(
    ("changes", "model", "verdict", "by"),
    [
        (FIRST[:1], A, "fitted", None),
        (FIRST, A, "installed", "closes"),
        ((*FIRST, *TURNED_AWAY), C, "rejected", "closes"),
        ((*FIRST, *FORCED), D, "forced", "bob"),
        # For ever: neither its loss, nor that it came back otherwise, takes that away.
        ((*FIRST, *FORCED, LOST, *SECOND, change("rolled_back", D, 400, D, parent=B, by="ann")),
         D, "forced", "bob"),
        ((*FIRST, *TURNED_AWAY, change("pinned", C, 195, C, parent=A, by="ann")),
         C, "installed", "ann"),
    ],
)  # fmt: skip
def test_the_verdict_on_a_model_names_who_made_it(changes, model, verdict, by):
    record = of(*changes)[model]
    assert record.verdict == verdict
    assert record.forced == (verdict == "forced")
    assert (record.decided and record.decided.by) == by


def test_the_lineage_goes_back_to_the_first_and_no_rollback_bends_it():
    found = of(*FIRST, *SECOND, BACK, *TURNED_AWAY)
    assert found.lineage(B) == [B, A]
    assert found.lineage(A) == [A]
    assert found.lineage(C) == [C, A]  # never champion: whom it was judged against


def test_a_lineage_ends_where_the_stream_does():
    found = of(*SECOND)
    assert found.lineage(B) == [B, A]
    with pytest.raises(UnknownModel):
        found[A]


@pytest.mark.parametrize(
    ("between", "defender"),
    [
        (SECOND, B),
        # Launched at 180: what the engine does at that close comes before, what people do after.
        ((fitted(B, 180, A), change("installed", B, 180, B, parent=A)), B),
        ((*SECOND, change("rolled_back", A, 180, A, parent=B, by="ann")), B),
        ((*SECOND, change("rolled_back", A, 179, A, parent=B, by="ann")), A),
    ],
)
def test_a_model_was_judged_against_the_champion_at_its_launch(between, defender):
    now = between[-1].champion
    assert of(*FIRST, *between, fitted(C, 190, now)).defender(C) == defender


def test_an_unknown_model_is_told_which_are_known():
    many = [fitted(f"refit-{number}", number, None) for number in range(1, 31)]
    with pytest.raises(UnknownModel) as error:
        of(*many)["refit-99"]
    told = str(error.value)
    assert "no model 'refit-99'" in told
    assert "refit-30, refit-29" in told
    assert "and 20 older ones" in told
    assert len(told) < 300


# Held to the engine

OFTEN = QUICK.model_copy(
    update={
        "refit": RefitConfig(
            every=15, lag=4, window=60, holdout=12, min_closes=5,
            params=RefitParams(
                rounds=5, max_rounds=5, learning_rate=0.9, lambda_l2=0.0, min_data_in_leaf=3
            ),
        ),
        "drift": DriftConfig(delta=0.9, on_expert=("reset",)),
    }
)  # fmt: skip
"""Many refits, and champions that are lost to drift."""


def said(number: int, command: str, args: dict[str, object]) -> bytes:
    ts = at(0) + timedelta(seconds=number)
    blank = Control(command=command, ts=ts, by="ann", reason="why", sig="0" * 64, args=args or None)
    return encode(replace(blank, sig=sign(blank, KEY)))


def meddled_with(seed: int) -> tuple[list[tuple[Decision, History]], History, set[str]]:
    """A run in which people change the champion all the time: each decision with the history that
    was told before it, the whole history, and what happened in it.
    """
    rng = random.Random(seed)
    core = new_core(OFTEN)
    changes: list[tuple[str, ModelChange]] = []
    decided: list[tuple[Decision, History]] = []
    told = reconstruct(changes)
    for number, event in enumerate(history(240, seed, delay=2)):
        if isinstance(event, Close) and number > 240:
            # The world turns over, so that what was learned is wrong from now on.
            event = replace(event, return_pct=-event.return_pct)
        commands: list[bytes] = []
        while rng.random() < 0.15:
            kept = core.model.champions.registry.ids or ["none"]
            name = rng.choice(["install", "rollback", "pin", "unpin", "refit"])
            args: dict[str, object] = {}
            if name in ("install", "pin") or (name == "rollback" and rng.random() < 0.5):
                args["model"] = rng.choice(kept)
            if name in ("install", "refit"):
                args["force"] = rng.random() < 0.7
            commands.append(said(1_000 * number + len(commands), name, args))
        for entry in [*entries(*commands), *entries(event)]:
            for output in core.apply(entry):
                if isinstance(output, ModelChange):
                    changes.append((f"{len(changes) + 1}-0", output))
                    told = reconstruct(changes)
                if isinstance(output, Decision):
                    decided.append((output, told))
            figures = core.model.champions.registry.figures()
            aliases = (told.champion, told.challenger, told.pinned)
            assert aliases == tuple(figures[k] for k in ("champion", "challenger", "pinned"))
    return decided, told, {each.change for _, each in changes}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None, derandomize=True)
def test_the_champion_at_every_event_is_the_one_that_the_decision_names(seed):
    decided, whole, _ = meddled_with(seed)
    for decision, before in decided:
        champion, update = decision.model.champion, decision.model.update
        assert before.champion == champion
        # By the number of closes alone there may be a doubt, never an error.
        assert champion in [reign.model for reign in whole.champions_at(update)]
        if not any(e.by_person and e.change.update == update for e in whole.logged):
            assert [reign.model for reign in whole.champions_at(update)] == [champion]


def test_such_a_run_has_everything_in_it_that_can_happen():
    assert meddled_with(2)[2] == {
        "fitted", "installed", "rejected", "rolled_back", "pinned", "unpinned", "lost",
    }  # fmt: skip


# Reading


def put(connection: Connection, key: str, *events: object) -> None:
    for event in events:
        connection.redis.xadd(key, {"e": event if isinstance(event, bytes) else encode(event)})


def test_the_history_is_read_from_the_stream(connection):
    put(connection, KEYS.models, *FIRST, *SECOND)
    pages = []
    found = read_history(connection, KEYS, pages.append)
    assert found.champion == B
    assert [each.change for each in found.logged] == [*FIRST, *SECOND]
    assert sum(pages) == 4


def test_an_empty_stream_says_when_there_will_be_something(connection):
    with pytest.raises(NoModels, match=r"no refit has been made yet.*closeloop control refit"):
        read_history(connection, KEYS)


def test_what_cannot_be_read_is_named_with_its_place(connection):
    put(connection, KEYS.models, b'{"type":"model","news":1}')
    with pytest.raises(StreamError, match=r"models has at \d+-\d+ what this version"):
        read_history(connection, KEYS)


def test_a_long_stream_is_read_backwards_whole_and_once(connection):
    pipeline = connection.redis.pipeline(transaction=False)
    for number in range(2_500):
        pipeline.xadd(KEYS.alerts, {"e": encode(alert(f"a{number}"))})
    pipeline.execute()
    found = [each.subject for each in newest_first(connection, KEYS.alerts, Alert)]
    assert found == [f"a{number}" for number in range(2_500)][::-1]


def test_a_decision_that_is_not_there_is_said_so(connection):
    with pytest.raises(UnknownModel, match="no decision on 's1'"):
        decision_of(connection, KEYS, "s1")


def alert(subject: str, code: str = "drift") -> Alert:
    return Alert(ts=at(0), severity="info", code=code, subject=subject, message="")


def test_only_drift_during_the_reign_counts(connection):
    # IDs of their own, as if everything had been committed a second apart.
    def at_second(second: int, key: str, event: object) -> None:
        connection.redis.xadd(key, {"e": encode(event)}, id=f"{second}-0")

    for second, one in ((1, FIRST[0]), (2, FIRST[1]), (5, SECOND[0]), (6, SECOND[1])):
        at_second(second, KEYS.models, one)
    for second, one in (
        (1, alert("early")), (3, alert("mixture")), (4, alert("mixture")),
        (5, alert("rsi", "feature_drift")), (6, alert("s1", "signal_expired")), (7, alert("late")),
    ):  # fmt: skip
        at_second(second, KEYS.alerts, one)
    found = read_history(connection, KEYS)
    assert drift_alarms(connection, KEYS, found[A].reigns) == {"mixture": 2, "rsi": 1}
    assert drift_alarms(connection, KEYS, found[B].reigns) == {"late": 1}
