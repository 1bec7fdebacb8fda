"""The HTTP API: what it says, what it takes, and that nobody changes anything without the token."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

import orjson
import pytest
import redis
import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.api import app as api
from engine.api.app import OPERATORS, Health, new_app
from engine.api.mailbox import SIZE, Mailbox
from engine.bootstrap import keys_of
from engine.config import Config, HttpConfig
from engine.controls import Controls
from engine.core import Core
from engine.view import view, write_view
from snapshots import state_digest
from streams import Close, Connection, Control, Decision, ModelChange, Signal, decode, encode
from streams.events import decode_output
from streams.values import MAX_NAME, MAX_TEXT
from tests.engine.asgi import Answer, ask
from tests.engine.histories import at, close, entries, history, new_core, run, signal

TOKEN = "hush-token-of-the-operators"
KEY = "hush-control-key-of-the-operators"
READY = Health(True, True, "7-1")
WELL = {"by": "ann", "reason": "bad day"}
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ARGS: dict[str, dict[str, object]] = {
    "mode": {"mode": "canary", "percent": 10},
    "refit": {"full": True, "force": False},
    "install": {"model": "refit-60", "force": True},
    "rollback": {"model": "refit-60"},
    "pin": {"model": "refit-60"},
    "set": {"setting": "policy.max_risk_pct", "value": 0.5},
    "approve": {"proposal": 3},
    "reject": {"proposal": 3},
}
"""Of the commands that take any."""


class Served(Mailbox):
    """A mailbox whose worker answers at once."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core

    def ask(self, question: Callable[[Core], Any]) -> "Future[Any]":
        answer = super().ask(question)
        self.serve(self._core)
        return answer


class Stand:
    """The API over a core and a server."""

    def __init__(self, connection: Connection, core: Core | None = None, **http: object) -> None:
        self.config = Config(
            control_key=SecretStr(KEY), http=HttpConfig(**({"token": TOKEN} | http))
        )
        self.connection = connection
        self.keys = keys_of(self.config)
        self.core = core or new_core(control_key=KEY.encode())
        self.mailbox: Mailbox = Served(self.core)
        self.health = READY
        self.local = True

    @property
    def app(self) -> FastAPI:
        return new_app(
            self.config, self.connection, CollectorRegistry(), lambda: self.health, self.mailbox,
            self.local,
        )  # fmt: skip

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        return ask(self.app, method, path, JSON | (headers or {}), body)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def show(self) -> dict[str, Any]:
        """Write the view, as a worker does."""
        found = view(self.core, "7-1")
        write_view(self.connection, self.keys, found)
        return orjson.loads(orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS))

    def tell(self, command: str, headers: dict[str, str] = BEARER, **body: object) -> Answer:
        return self.ask("POST", f"/control/{command}", orjson.dumps(WELL | body), headers)

    def score(self, data: bytes, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", "/score", data, headers)

    def sent(self) -> list[Control]:
        found = [decode(f[b"e"]) for _, f in self.connection.redis.xrange(self.keys.events)]
        return [each for each in found if isinstance(each, Control)]


@pytest.fixture
def stand(connection: Connection) -> Stand:
    return Stand(connection)


@pytest.fixture
def near() -> Iterator[Stand]:
    """One in memory, where it doesn't matter which server there is."""
    from streams import connect

    with connect("memory://api") as connection:
        connection.redis.flushall()
        yield Stand(connection)


def detail(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.text
    return str(answer.json["detail"])


# Reading


def test_the_status_is_what_the_worker_last_wrote_of_itself(stand: Stand):
    assert "closeloop run" in detail(stand.get("/status"), 503)
    run(stand.core, entries(signal("a"), close("a"), b"no event"))
    shown = stand.show()
    assert stand.get("/status").json == shown
    assert shown["counts"]["dead"] == 1
    for part in ("rollout", "models", "refit"):
        assert stand.get(f"/{part}").json == shown[part]


def test_a_model_is_told_with_all_that_became_of_it(stand: Stand):
    stand.show()
    said = detail(stand.get("/models/refit-60"), 404)
    assert "'refit-60'" in said
    for number, change in enumerate(("fitted", "installed"), 1):
        for model in ("refit-60", "refit-120"):
            event = ModelChange(
                ts=at(number), change=change, model=model, update=60, by="gate", reason="better"
            )
            stand.connection.redis.xadd(stand.keys.models, {"e": encode(event)})
    found = stand.get("/models/refit-60").json
    assert [change["change"] for change in found["changes"]] == ["fitted", "installed"]
    assert {change["model"] for change in found["changes"]} == {"refit-60"}
    assert (found["kept"], found["champion"]) == (False, False)


def test_probes_and_metrics_need_no_worker_to_answer(near: Stand):
    near.health = Health(True, False, "recovering")
    near.mailbox = Mailbox()
    assert near.get("/healthz").json == {"ok": True, "detail": "recovering"}
    assert near.get("/readyz").status == 503
    assert near.get("/metrics").headers["content-type"].startswith("text/plain")
    assert near.ask("HEAD", "/healthz").status == 200


def test_the_document_of_the_api_is_served_and_no_page_that_loads_from_elsewhere(near: Stand):
    document = near.get("/openapi.json").json
    routes = {route.path for route in near.app.routes} - {"/openapi.json"}
    assert set(document["paths"]) == routes
    for path in ("/docs", "/redoc", "/"):
        assert near.get(path).status == 404


# Scores


def test_a_score_is_the_decision_that_the_signal_gets(stand: Stand):
    run(stand.core, entries(*history(80)))
    asked = signal("new", 100, symbol="XAUUSD", features={"edge": 0.4, "unheard": 1.0})
    answer = stand.score(encode(asked))
    assert answer.status == 200, answer.text
    (decided,) = (
        output for output in stand.core.apply(entries(asked)[0]) if isinstance(output, Decision)
    )
    scored = decode_output(Decision, answer.content)
    assert scored.decision_id == "0-0"
    assert encode(scored).replace(b'"0-0"', b'"0-1"') == encode(decided)


def test_a_score_changes_nothing(stand: Stand):
    run(stand.core, entries(*history(80)))
    before = state_digest(stand.core.state()), stand.core.decisions_digest, dict(stand.core.counts)
    for asked in (
        signal("s3", 100),
        signal("new", 9_000, symbol="GBPJPY", strategy="x", features={"unheard": "of"}),
        signal("bad", 100, features={"edge": "text"}),
    ):
        stand.score(encode(asked))
    after = state_digest(stand.core.state()), stand.core.decisions_digest, dict(stand.core.counts)
    assert after == before
    assert stand.connection.redis.exists(stand.keys.events, stand.keys.decisions) == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no JSON", "JSON"),
        (b"", "empty"),
        (encode(signal("a")).replace(b'"long"', b'"up"'), "side"),
        (encode(close("a")), "a close gets no decision"),
        (b'{"type":"signal"}', "signal_id"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_what_is_no_signal_is_refused_in_the_wires_own_words(near: Stand, data: bytes, says: str):
    assert says in detail(near.score(data), 422)


def test_a_signal_that_the_engine_would_bury_is_refused_likewise(near: Stand):
    run(near.core, entries(signal("a", features={"rsi": 1.0}), signal("b", features={"rsi": 2.0})))
    assert "rsi" in detail(near.score(encode(signal("c", features={"rsi": "high"}))), 422)


def test_no_score_is_waited_for_longer_than_its_time_and_then_it_is_not_computed(
    near: Stand, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "SCORE_S", 0.01)
    near.mailbox = Mailbox()
    assert "/readyz" in detail(near.score(encode(signal("a"))), 503)
    asked: list[Core] = []
    near.mailbox.ask(asked.append)
    near.mailbox.serve(near.core)
    assert asked == [near.core], "what nobody waits for any more was answered first"


def test_past_so_many_questions_it_is_asked_to_come_later(
    near: Stand, monkeypatch: pytest.MonkeyPatch
):
    near.mailbox = Mailbox()
    for _ in range(SIZE):
        near.mailbox.ask(lambda core: None)
    answer = near.score(encode(signal("a")))
    assert f"{SIZE} questions" in detail(answer, 429)
    assert answer.headers["retry-after"] == "1"


def test_questions_of_those_who_gave_up_take_no_room():
    mailbox = Mailbox(size=2)
    for _ in range(10):
        mailbox.ask(lambda core: None).cancel()


def test_the_worker_answers_what_waits_and_survives_a_failure(near: Stand):
    mailbox = Mailbox()
    later: list[Future[Core]] = []
    failed = mailbox.ask(lambda core: 1 / 0)
    more = mailbox.ask(lambda core: later.append(mailbox.ask(lambda core: core)))
    mailbox.serve(near.core)
    assert isinstance(failed.exception(timeout=0), ZeroDivisionError)
    assert more.done()
    assert not later[0].done(), "who asks on and on would keep it from its decisions"
    mailbox.serve(near.core)
    assert later[0].result(timeout=0) is near.core


def test_where_others_reach_it_a_score_needs_the_token(near: Stand):
    near.local = False
    data = encode(signal("a"))
    assert near.score(data).status == 401
    assert near.score(data, BEARER).status == 200
    assert near.get("/healthz").status == 200


# Control


@pytest.mark.parametrize("command", OPERATORS)
def test_every_command_goes_into_the_input_signed(stand: Stand, command: str):
    answer = stand.tell(command, args=ARGS.get(command, {}))
    assert answer.status == 202, answer.text
    (control,) = stand.sent()
    assert (control.command, control.by, control.reason) == (command, "ann", "bad day")
    assert (control.args or {}) == ARGS.get(command, {})
    assert Controls(KEY.encode()).refusal(control) is None
    ((entry_id, _),) = stand.connection.redis.xrange(stand.keys.events)
    assert answer.json == {"entry_id": entry_id.decode(), "command": command, "revision": None}


def test_every_argument_of_every_command_has_been_tried():
    known = {name: {*c.required, *c.optional} for name, c in OPERATORS.items()}
    assert {name: set(ARGS.get(name, {})) for name in OPERATORS} == known


def test_without_the_token_no_route_changes_anything(stand: Stand):
    stand.show()
    tried = []
    for route in stand.app.routes:
        for method in (getattr(route, "methods", None) or {"POST"}) - {"GET", "HEAD"}:
            path = route.path.replace("{command}", "halt")
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
                answer = stand.ask(method, path, orjson.dumps(WELL), headers)
                if path == "/score":
                    assert answer.status == 422
                else:
                    assert answer.status == 401
                    assert answer.headers["www-authenticate"] == "Bearer"
            tried.append(path)
    assert tried == ["/score", "/control/halt"]
    assert stand.sent() == []


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN} ", f"Bearer {TOKEN}x",
     f"Bearer {TOKEN[:-1]}", "Bearer \xff\xfe"],
)  # fmt: skip
def test_only_the_very_token_opens(near: Stand, shown: str):
    answer = near.tell("halt", {"Authorization": shown})
    # HTTP itself takes spaces at the end of a header away.
    assert answer.status == (202 if shown.strip() == f"Bearer {TOKEN}" else 401)


def test_a_token_of_any_characters_opens(near: Stand):
    token = "gäheim und länger als sechzehn"
    stand = Stand(near.connection, token=token)
    # A header is bytes, which are shown here as Latin-1 has them.
    shown = {"Authorization": f"Bearer {token}".encode().decode("latin-1")}
    assert stand.tell("halt", shown).status == 202


def test_without_a_token_configured_nobody_changes_anything(near: Stand):
    stand = Stand(near.connection, token=None)
    assert "http.token" in detail(stand.tell("halt"), 403)
    assert "http.token" in detail(stand.tell("halt", headers={}), 403)
    assert stand.sent() == []


def test_without_a_control_key_no_command_can_be_signed(near: Stand):
    near.config = near.config.model_copy(update={"control_key": None})
    assert "CLOSELOOP_CONTROL_KEY" in detail(near.tell("halt"), 503)


@pytest.mark.parametrize("command", ["dance", "measure", "HALT", "halt%20"])
def test_an_unknown_command_is_refused_with_those_that_are_known(near: Stand, command: str):
    said = detail(near.tell(command), 404)
    assert "halt, arm, refit" in said
    assert "measure," not in said
    assert near.sent() == []


def test_a_stale_command_is_refused_with_both_revisions(stand: Stand):
    now = stand.show()["revision"]
    said = detail(stand.tell("arm", revision=now + 5), 409)
    assert f"revision {now + 5}" in said
    assert f"revision {now};" in said
    assert stand.sent() == []
    assert stand.tell("arm", revision=now).json["revision"] == now
    (control,) = stand.sent()
    assert control.args == {"revision": now}
    assert Controls(KEY.encode()).refusal(control) is None


def test_a_halt_is_never_stale(stand: Stand):
    now = stand.show()["revision"]
    answer = stand.tell("halt", revision=now + 5)
    assert (answer.status, answer.json["revision"]) == (202, None)
    assert stand.sent()[0].args is None


@pytest.mark.parametrize(
    ("command", "body", "names"),
    [
        ("halt", {"by": ""}, "by"),
        ("halt", {"by": "x" * (MAX_NAME + 1)}, "by"),
        ("halt", {"by": 3}, "by"),
        ("halt", {"reason": ""}, "reason"),
        ("halt", {"reason": "x" * (MAX_TEXT + 1)}, "reason"),
        ("halt", {"reason": None}, "reason"),
        ("halt", {"colour": "red"}, "colour"),
        ("halt", {"args": {"hard": True}}, "'hard'"),
        ("halt", {"args": []}, "args"),
        ("arm", {"revision": -1}, "revision"),
        ("arm", {"revision": 1.5}, "revision"),
        ("arm", {"revision": True}, "revision"),
        ("arm", {"args": {"revision": 1}}, "revision"),
        ("mode", {}, "mode"),
        ("mode", {"args": {"mode": 3}}, "mode"),
        ("mode", {"args": {"mode": "canary", "percent": "10"}}, "percent"),
        ("approve", {"args": {"proposal": True}}, "proposal"),
        ("set", {"args": {"setting": "policy.take", "value": None}}, "value"),
        ("set", {"args": {"setting": "x" * (MAX_TEXT + 1), "value": 1}}, "setting"),
        ("set", {"args": {"setting": ["x"], "value": 1}}, "setting"),
    ],
)
def test_what_is_wrong_with_a_command_is_named(
    near: Stand, command: str, body: dict[str, object], names: str
):
    assert names in detail(near.tell(command, **body), 422)
    assert near.sent() == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b"\xff",
        b'{"by":"ann","reason":"\\ud800"}',
        b'{"by":"ann","reason":"x","args":{"value":1e999,"setting":"a"}}',
        b'{"by":"ann","reason":"x","args":{"value":NaN,"setting":"a"}}',
        b'{"by":"ann","reason":"x","args":{"setting":"a","value":' + b"9" * 400 + b"}}",
        b'{"by":"ann","reason":"x","revision":' + b"9" * 5_000 + b"}",
        b'{"by":"ann","reason":"x","args":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
    ],
)  # fmt: skip
def test_what_is_no_command_at_all_is_refused(near: Stand, body: bytes):
    detail(near.ask("POST", "/control/set", body, BEARER), 422)
    assert near.sent() == []


@pytest.mark.parametrize("by", ["ann\n", "\x00", "Ann Ünal", "\u202eann"])
def test_names_are_as_free_as_on_the_wire(near: Stand, by: str):
    assert near.tell("halt", by=by).status == 202
    assert near.sent()[0].by == by


@pytest.mark.parametrize("path", ["/score", "/control/halt"])
def test_only_json_of_a_fair_size_is_read(near: Stand, path: str):
    for given in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = near.ask("POST", path, b"{}", BEARER | {"Content-Type": given})
        assert "application/json" in detail(answer, 415)
    assert "65536" in detail(near.ask("POST", path, b" " * 65_537, BEARER), 413)
    assert near.ask("POST", path, (b" " * 1_000 for _ in range(100)), BEARER).status == 413
    most = (encode(signal("a")) if path == "/score" else orjson.dumps(WELL)).ljust(65_536)
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert near.ask("POST", path, most, BEARER | kind).status in (200, 202)


# Everywhere


def test_a_page_of_elsewhere_gets_nothing_out_of_a_browser_here(near: Stand):
    near.show()
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert near.get("/status", Host=host).status == 400
    for host in ("localhost", "127.0.0.1:9464", "[::1]:9464", "LOCALHOST"):
        answer = near.get("/status", Host=host, Origin="http://evil.example")
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = near.ask("OPTIONS", "/score", headers={"Origin": "http://evil.example"})
    assert preflight.status == 405
    near.local = False
    assert near.get("/status", Host="engine.example").status == 200


@pytest.fixture
def away() -> Stand:
    """One whose server can't be reached."""
    client = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    return Stand(Connection(client, "redis://127.0.0.1:1", lambda: pytest.fail("not asked")))


def test_a_server_that_is_away_is_said_to_be(away: Stand):
    for answer in (away.get("/status"), away.get("/models/x"), away.tell("halt")):
        assert "redis://127.0.0.1:1" in detail(answer, 503)


def test_no_secret_is_in_an_answer_or_in_the_log(
    near: Stand, away: Stand, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    with structlog.testing.capture_logs() as logs:
        answers = [near.tell("halt"), near.tell("dance"), near.tell("set", args={"a": TOKEN})]
        answers += [away.tell("halt"), near.get("/openapi.json")]
        answers.append(near.tell("halt", headers={"Authorization": f"Bearer {TOKEN}!"}))
        monkeypatch.setattr(api, "signed", lambda *_: 1 / 0)
        failed = near.tell("halt")
        answers.append(failed)
    assert detail(failed, 500) == "this failed; the worker's log says how"
    assert [log["event"] for log in logs] == ["http_failed"]
    said = [answer.text + str(answer.headers) for answer in answers]
    for text in (*said, str(logs), *capfd.readouterr()):
        assert TOKEN not in text
        assert KEY not in text


def test_events_are_described_as_on_the_wire(near: Stand):
    schemas = near.get("/openapi.json").json["components"]["schemas"]
    for event in (Signal, Decision):
        assert set(schemas[event.__name__]["properties"]) == {"type", *event.__struct_fields__}
    assert Close.__name__ not in schemas
