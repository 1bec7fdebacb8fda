"""`closeloop models`: what is shown is what the streams hold, and commands reach the engine."""

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import structlog
from msgspec.structs import replace
from pydantic import SecretStr

from engine import watch
from engine.bootstrap import keys_of
from engine.cli.control import OPERATORS
from engine.cli.models import COMMAND_OF
from engine.config import Config
from engine.sending import signed
from engine.view import read_view, view, write_view
from engine.worker import Worker
from streams import Connection, connect, decode, encode
from tests.engine.conftest import Command
from tests.engine.histories import history
from tests.engine.test_models_log import BACK, FIRST, SECOND, A
from tests.engine.test_worker import Shard

KEY = "a control key of a fair length"
DOCS = Path(__file__).parents[2] / "docs" / "models.md"
EVENTS = history(330)
"""Refits are settled after 70, 130, 190, 250 and 310 closes."""
MEMORY = "memory://models-of-a-day"


def keyed(connection: Connection, folder: Path) -> Shard:
    shard = Shard(connection, folder)
    shard.config = shard.config.model_copy(update={"control_key": SecretStr(KEY)})
    return shard


def serve(shard: Shard) -> None:
    with structlog.testing.capture_logs():
        worker = shard.worker()
        worker.run(until_idle=True)
    # The worker itself does so once a second.
    write_view(shard.connection, shard.keys, view(worker.core, worker.position))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSELOOP_CONTROL_KEY", KEY)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shard]:
    """A shard on which the engine has made five refits, and a person has forced one in."""
    with connect(MEMORY) as connection:
        shard = keyed(connection, tmp_path_factory.mktemp("day"))
        shard.publish(*EVENTS)
        serve(shard)
        force = {"model": "refit-240", "force": True}
        shard.publish(signed(KEY.encode(), "install", "ann", "I know better", force))
        serve(shard)
        yield shard


def models(closeloop: Command, *words: object, address: str = MEMORY) -> object:
    ran = closeloop("models", *words, "--json", "--address", address)
    assert ran.status == 0, ran.err
    return ran.json


def test_the_list_has_every_model_newest_first_with_its_verdict(closeloop: Command, day: Shard):
    found = models(closeloop, "list")["models"]
    assert [(each["model"], each["verdict"], each["decided_by"]) for each in found] == [
        ("refit-300", "installed", "closes"),
        ("refit-240", "forced", "ann"),
        ("refit-180", "rejected", "closes"),
        ("refit-120", "installed", "closes"),
        ("refit-60", "installed", "closes"),
    ]
    assert [each["aliases"] for each in found] == [[], ["champion"], [], [], []]


def test_the_list_is_bounded_and_says_how_many_there_are(closeloop: Command, day: Shard):
    found = models(closeloop, "list", "--limit", 2)
    assert [each["model"] for each in found["models"]] == ["refit-300", "refit-240"]
    assert found["known"] == 5
    assert "models: 2 of 5" in closeloop("models", "list", "--limit", 2, "--address", MEMORY).out


@pytest.mark.parametrize(
    "words",
    [("list",), ("list", "--snapshots"), ("show",), ("show", "--decision", "s200"),
     ("show", "refit-180"), ("compare", "refit-60", "refit-120")],
)  # fmt: skip
def test_what_people_read_fits_80_columns(closeloop: Command, day: Shard, words: tuple[str, ...]):
    ran = closeloop("models", *words, "--address", MEMORY)
    assert ran.status == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_example_in_the_docs_is_what_is_printed(closeloop: Command, day: Shard):
    def masked(text: str) -> str:
        return re.sub(r"\d", "0", text)

    shown = closeloop("models", "list", "--limit", 3, "--address", MEMORY).out
    lines = [line.rstrip() for line in shown.splitlines()]
    assert masked("\n".join(lines)) in masked(DOCS.read_text())


def test_snapshots_are_listed_with_their_digests(closeloop: Command, day: Shard):
    found = models(closeloop, "list", "--snapshots", "--limit", 1)
    notice = day.notice()
    assert [each["snapshot_id"] for each in found] == [notice.snapshot_id]
    assert found[0]["state_digest"] == notice.state_digest
    shown = closeloop("models", "list", "--snapshots", "--address", MEMORY).out
    assert notice.file_digest[:12] in shown


def test_a_model_is_shown_with_its_line_and_its_reigns(closeloop: Command, day: Shard):
    found = models(closeloop, "show", "refit-120")
    assert found["lineage"] == ["refit-120", "refit-60"]
    assert [(r["from_closes"], r["until_closes"]) for r in found["reigns"]] == [(130, 309)]
    assert (found["judged_against"], found["judged_on"]) == ("refit-60", 23)
    low, high = found["accuracy_interval"]
    assert low < found["facts"]["metrics"]["accuracy"] < high
    assert len(found["digest"]) == 64


def test_a_forced_model_says_who_and_why(closeloop: Command, day: Shard):
    assert models(closeloop, "show", "champion")["reason"] == "I know better"
    ran = closeloop("models", "show", "refit-240", "--address", MEMORY)
    assert "although the gate refused it" in ran.out
    assert "installed, forced" in ran.out


def test_every_decision_names_its_model(closeloop: Command, day: Shard):
    decisions = dict.fromkeys(d.model.champion for _, d in day.decisions())
    assert list(decisions) == [None, "refit-60", "refit-120", "refit-300"]
    for _, decision in day.decisions()[60::67]:
        champion = decision.model.champion
        ran = closeloop(
            "models", "show", "--decision", decision.signal_id, "--json", "--address", MEMORY
        )
        if champion is None:
            assert ran.status == 2
            assert "no refit was installed" in ran.err
        else:
            assert ran.json["model"] == champion
            assert ran.json["decision"]["signal_id"] == decision.signal_id


def test_what_a_person_typed_is_shown_as_it_is_and_does_nothing(closeloop: Command):
    typed = "see [/] and [red]this[/red] \x1b[31m"
    with connect("memory://typed") as connection:
        for each in (*FIRST, *SECOND, replace(BACK, reason=typed, by=typed)):
            connection.redis.xadd(keys_of(Config()).models, {"e": encode(each)})
    for words in (("list",), ("show", A)):
        ran = closeloop("models", *words, "--address", "memory://typed")
        assert ran.status == 0, ran.err
        assert "\x1b" not in ran.out
    assert "see [/]" in ran.out
    assert "[red]" in ran.out


def test_two_models_that_met_are_compared_on_the_same_closes(closeloop: Command, day: Shard):
    found = models(closeloop, "compare", "refit-60", "refit-120")
    other = models(closeloop, "compare", "refit-120", "refit-60")
    facts = {m: models(closeloop, "show", m)["facts"] for m in ("refit-60", "refit-120")}
    theirs = facts["refit-120"]["champion_metrics"]["log_loss"]
    own = facts["refit-120"]["metrics"]["log_loss"]
    assert found["paired_on"] == other["paired_on"] == "refit-120"
    assert found["paired"]["log_loss"] == {
        "first": theirs, "second": own, "difference": own - theirs,
    }  # fmt: skip
    assert other["paired"]["log_loss"]["difference"] == theirs - own
    assert found["metrics"]["log_loss"]["first"] == facts["refit-60"]["metrics"]["log_loss"]
    assert found["only_second"] == ["late", "@regime=volatile"]
    assert list(found["params"]) == ["rounds"]


def test_two_models_that_never_met_are_not(closeloop: Command, day: Shard):
    assert models(closeloop, "compare", "refit-60", "refit-300")["paired_on"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "refit-1"), "no model 'refit-1'"),
        (("show", "pinned"), "there is no pinned now"),
        (("compare", "refit-60", "refit-1"), "known are: refit-300"),
        (("card", "refit-1"), "no model 'refit-1'"),
        (("card", "--out", "card.pdf"), "must end with"),
        (("show", "--decision", "s999"), "no decision on 's999'"),
        (("show", "refit-60", "--decision", "s1"), "not both"),
    ],
)
def test_what_is_not_there_is_named_with_the_mend(closeloop, day, words, said):
    ran = closeloop("models", *words, "--address", MEMORY)
    assert ran.status == 2
    told = " ".join(re.sub(r"[│╭╮╰╯─]", " ", ran.err).split())
    assert said in told


def test_without_a_refit_each_says_so(closeloop: Command, address: str):
    for words in (("list",), ("show",), ("compare", "a", "b"), ("card",)):
        ran = closeloop("models", *words, "--address", address)
        assert ran.status == 3
        assert "no refit has been made yet" in ran.err
    assert closeloop("models", "list", "--snapshots", "--address", address).status == 0


@pytest.mark.parametrize(
    "shown", [None, {"models": {"champion": "refit-60", "previous": "refit-120", "kept": []}}]
)
def test_without_a_view_or_with_an_old_one_the_list_has_the_aliases_of_the_stream(
    closeloop: Command, day: Shard, shown: dict[str, object] | None
):
    now = read_view(day.connection, day.keys)
    day.redis.delete(day.keys.view)
    if shown is not None:
        write_view(day.connection, day.keys, shown)
    found = models(closeloop, "list")
    write_view(day.connection, day.keys, now)
    assert (found["previous"], found["kept"]) == (None, None)
    assert found["models"][1]["aliases"] == ["champion"]


@pytest.fixture
def at_work(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Worker]:
    """A worker at work, which has made two refits."""
    monkeypatch.setattr(watch, "LOOK_S", 0.0)
    shard = keyed(connection, tmp_path)
    worker = shard.worker()
    events = [event for event in history(131) if event.signal_id != "s130"]
    shard.publish(*events)
    with structlog.testing.capture_logs():
        thread = Thread(target=worker.run)
        thread.start()
        try:
            while shard.transport.checkpoint().entries < len(events):
                assert thread.is_alive()
            yield worker
        finally:
            shard.stop.set()
            thread.join()


def test_who_is_champion_is_changed_by_the_same_commands_as_control_has(
    closeloop: Command, at_work: Worker, connection: Connection, address: str
):
    keys = keys_of(Config())

    def tell(*words: str) -> str:
        # What the worker shows may be a moment old, and a command in view of that is stale.
        while read_view(connection, keys)["revision"] != at_work.core.guard.revision:
            pass
        said = ("--reason", "bad day", "--by", "ann", "--address", address)
        ran = closeloop("models", *words, *said)
        return f"{ran.status} {ran.err}"

    def standing() -> dict[str, str]:
        found = models(closeloop, "list", address=address)["models"]
        return {alias: each["model"] for each in found for alias in each["aliases"]}

    assert standing() == {"champion": "refit-120"}
    assert "0 rollback is in as" in (told := tell("rollback"))
    assert "obeyed: back to refit-60 by ann: bad day" in told
    assert standing() == {"champion": "refit-60"}
    assert "obeyed" in tell("promote", "refit-120")
    assert standing() == {"champion": "refit-120"}
    assert "obeyed" in tell("pin", "refit-60")
    assert standing() == {"champion": "refit-60", "pinned": "refit-60"}
    assert "obeyed" in tell("unpin")
    assert standing() == {"champion": "refit-60"}
    refused = tell("promote", "refit-7")
    assert refused.startswith("1")
    assert "model 'refit-7' is not kept; kept are: refit-60, refit-120" in refused
    found = models(closeloop, "show", "refit-60", address=address)
    assert [(r["from_closes"], r["until_closes"], r["by"]) for r in found["reigns"]] == [
        (70, 129, "closes"), (130, 130, "ann"), (130, None, "ann"),
    ]  # fmt: skip


def test_what_is_sent_is_what_control_sends(closeloop: Command, tmp_path: Path):
    assert set(COMMAND_OF.values()) <= set(OPERATORS)
    for name, command in COMMAND_OF.items():
        address = f"memory://sent-{name}"
        words = [] if name == "unpin" else ["refit-60"]
        said = ("--reason", "bad day", "--by", "ann", "--address", address)
        assert closeloop("models", name, *words, *said).status == 0
        assert closeloop("control", command, *words, *said).status == 0
        with connect(address) as connection:
            sent = [
                decode(fields[b"e"])
                for _, fields in connection.redis.xrange(Shard(connection, tmp_path).keys.events)
            ]
        assert [each.command for each in sent] == [command, command]
        assert sent[0].args == sent[1].args
