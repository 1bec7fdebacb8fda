"""Secrets stay where they are: planted everywhere they belong, looked for everywhere they don't."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli import app
from engine.config import ConfigError, load_config
from snapshots import SnapshotKeyError, load_key
from streams import AddressError, StreamError, connect, encode
from streams.connection import masked
from tests.engine.conftest import Command
from tests.engine.conftest import closeloop as closeloop
from tests.engine.histories import close, signal

PASSWORD = "hush/p@ss#wor?d:1"
CONTROL = "hush-control-key-of-the-operator"
SNAPSHOT = "hush-snapshot-key-of-the-store"
TOKEN = "hush-token-of-the-api"
WEBHOOK = "http://127.0.0.1:9/hush-webhook"
MAIL = "hush-password-of-the-mail"
SECRETS = [PASSWORD, quote(PASSWORD, safe=""), CONTROL, SNAPSHOT, TOKEN, WEBHOOK, MAIL]
SETTINGS = f"""
control_key = "{CONTROL}"
[stream]
address = "ADDRESS"
[snapshots]
key = "{SNAPSHOT}"
directory = "snaps"
[http]
port = 0
token = "{TOKEN}"
[notify]
timeout_s = 0.2
attempts = 1
[notify.webhook]
url = "{WEBHOOK}"
least = "info"
[notify.email]
host = "127.0.0.1"
port = 9
user = "ann"
password = "{MAIL}"
recipients = ["ann@example.org"]
least = "info"
[log]
level = "debug"
[core.refit]
enabled = false
[core.experts.base_rate]
kind = "base_rate"
"""


def leaks(text: str | bytes) -> list[str]:
    """The secrets, or telling parts of them, that stand in `text`."""
    data = text.encode() if isinstance(text, str) else text
    forms = [form for s in SECRETS for form in (s.encode(), base64.b64encode(s.encode())[:-4])]
    return [form.decode() for form in [*forms, b"hush"] if form in data]


@pytest.fixture
def server(redis_server: str) -> Iterator[str]:
    """The address of a user with the planted password."""
    with redis.Redis.from_url(redis_server) as admin:
        admin.flushall()
        admin.execute_command("ACL", "SETUSER", "planted", "on", f">{PASSWORD}", "+@all", "~*")
        host = redis_server.partition("://")[2]
        yield f"redis://planted:{quote(PASSWORD, safe='')}@{host}"
        admin.acl_deluser("planted")


@pytest.fixture
def folder(tmp_path: Path, server: str) -> Path:
    """A folder with settings that hold every secret, and a tape."""
    (tmp_path / "closeloop.toml").write_text(SETTINGS.replace("ADDRESS", server))
    events = [signal("a"), close("a"), signal("b")]
    (tmp_path / "t.jsonl").write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return tmp_path


COMMANDS: dict[str, list[tuple[str, ...]]] = {
    "init": [("new.toml",), ()],
    "show-config": [(), ("--json",)],
    "schema": [()],
    "publish": [("t.jsonl",), ("t.jsonl", "--json"), ("missing.jsonl",)],
    "replay": [("t.jsonl", "--save", "state.clsnap", "--json", "-"), ("missing.jsonl",)],
    "run": [("--until-idle",)],
    "status": [(), ("--json",)],
    "record": [("out.jsonl",), ("dead.jsonl", "--stream", "dead")],
    "doctor": [(), ("--json",)],
    "rollout": [(), ("--json",)],
    "notify": [(), ("--json",)],
    "control": [("halt", "--reason", "x", "--no-wait"), ("refit", "--reason", "x", "--no-wait")],
    "snapshots": [
        ("list",), ("list", "--json"), ("show", "state"), ("verify",), ("restore", "state"),
    ],
}  # fmt: skip
"""In an order that makes sense; of a command that isn't here the plain form is run."""


def test_no_command_says_a_secret_and_no_file_or_stream_holds_one(
    folder: Path, closeloop: Command, redis_server: str
) -> None:
    said = {}
    known = [command.name or "" for command in app.registered_commands]
    for name in [*COMMANDS, *(name for name in known if name not in COMMANDS)]:
        for arguments in COMMANDS.get(name, [()]):
            if name == "run":
                # A process of its own: it sets up logs and signals.
                done = subprocess.run(
                    [sys.executable, "-c", "from engine.cli import main; main()", name, *arguments],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, done.stderr
                assert "lease_acquired" in done.stderr
                said[name, *arguments] = done.stdout + done.stderr
            else:
                ran = closeloop(name, *arguments)
                said[name, *arguments] = ran.out + ran.err
        if name == "publish":
            with redis.Redis.from_url(redis_server) as admin:
                admin.xadd("closeloop:{0}:events", {"e": b"no event"})
    assert {key: found for key, text in said.items() if (found := leaks(text))} == {}
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".clsnap" for path in written)
    for path in written:
        if path.name != "closeloop.toml":
            assert leaks(plain(path.read_bytes())) == [], path
    with redis.Redis.from_url(redis_server) as admin:
        keys = admin.keys("*")
        assert len(keys) >= 4
        for key in keys:
            assert leaks(admin.dump(key) + str(contents(admin, key)).encode()) == [], key


def plain(data: bytes) -> bytes:
    """A file with all that is compressed in it unpacked too."""
    frames = [at for at in range(len(data)) if data.startswith(zstandard.FRAME_HEADER, at)]
    unpacked = (zstandard.ZstdDecompressor().decompressobj().decompress(data[at:]) for at in frames)
    return b"".join([data, *unpacked])


def contents(admin: redis.Redis, key: bytes) -> object:
    kind = admin.type(key)
    if kind == b"stream":
        return admin.xrange(key)
    return admin.hgetall(key) if kind == b"hash" else admin.get(key)


@pytest.mark.parametrize(
    "address",
    [
        "redis://planted:hush-wrong@{host}",
        "redis://planted:hush-wrong@127.0.0.1:1",
        "redis://nobody-here.invalid/0?password=hush-wrong",
        "redis://planted:hush/wrong@{host}",
        "redis://planted:12/hush@{host}",
        "redis://planted:12#hush@{host}",
        "redis://planted:12?hush=1@{host}",
        "redis://planted:hush@wrong@{host}",
        "redis://[hush@{host}",
        "redis://planted:hush\u2100@{host}",
        "planted:hush-wrong@{host}",
        "redis:planted:hush-wrong@{host}",
        "http://planted:hush-wrong@{host}",
        "rediss://planted:hush-wrong@{host}/0?ssl_password=hush&socket_timeout=0.2",
        "unix://planted:hush-wrong@/no/such/socket",
        "{server}?socket_timeout=hush",
    ],
)
def test_an_address_that_fails_is_told_without_its_secrets(
    address: str, server: str, redis_server: str, closeloop: Command
) -> None:
    given_address = address.format(host=redis_server.partition("://")[2], server=server)
    for command in ("status", "doctor", "show-config"):
        ran = closeloop(command, "--address", given_address)
        assert leaks(ran.out + ran.err) == [], command
        assert command != "status" or (ran.status in (2, 3) and ran.err.count("\n") == 1)
    with pytest.raises(StreamError) as failed:
        connect(given_address)
    assert leaks(str(failed.value)) == []


@pytest.mark.parametrize(
    "settings",
    [
        "[stream]\nadress = 'redis://u:hush@h'",
        "[stream]\naddress = ['redis://u:hush@h']",
        "stream = 'redis://u:hush@h'",
        "control_kye = 'hush'",
        "control_key = 'hush'",
        "control_key = ['hush']",
        "[snapshots]\nkey = 'hush'",
        "[snapshots]\nkey = { is = 'hush' }",
        "control_key = 'hush",
        "control_key = hush",
    ],
)
def test_settings_that_fail_are_told_without_their_secrets(
    settings: str, closeloop: Command, tmp_path: Path
) -> None:
    (tmp_path / "closeloop.toml").write_text(settings)
    for command in ("show-config", "run"):
        ran = closeloop(command)
        assert (ran.status, ran.err.count("\n")) == (2, 1)
        assert leaks(ran.out + ran.err) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAM", "redis://u:hush@h"),
        ("STREAM", '{"adress": "redis://u:hush@h"}'),
        ("STREAM__ADRESS", "redis://u:hush@h"),
        ("CONTROL_KEY", "hush"),
        ("SNAPSHOTS__KEY", "hush"),
        ("CORE__EXPERTS", "{hush"),
    ],
)
def test_an_environment_that_fails_is_told_without_its_secrets(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CLOSELOOP_{name}", value)
    with pytest.raises(ConfigError) as refused:
        load_config()
    assert leaks(str(refused.value)) == []
    assert "closeloop init" in str(refused.value) or "CLOSELOOP_" in str(refused.value)


_printable = st.characters(exclude_categories=["Cs", "Cc"])


@settings(deadline=None)
@given(st.text(_printable, min_size=4, max_size=12).map(lambda text: f"<{text}>"))
def test_no_password_survives_masking_whatever_it_holds(password: str) -> None:
    for address in (
        f"redis://user:{password}@server:6379/0",
        f"redis://:{password}@server/0",
        f"rediss://user:{quote(password, safe='')}@server:6379/0",
        f"redis://server:6379?password={password}",
        f"user:{password}@server:6379",
    ):
        assert password not in masked(address)
        assert quote(password, safe="") not in masked(address)


def test_an_address_without_secrets_stays_readable() -> None:
    for address in (
        "redis://127.0.0.1:6379/0",
        "embedded://some/folder@home",
        "memory://x",
        "unix:///run/redis.sock",
    ):
        assert masked(address) == address
    assert masked("redis://bot:x@h:1/2") == "redis://bot:***@h:1/2"
    with pytest.raises(AddressError, match="percent-encoded"):
        connect("redis://bot:a/b@h:1")


def test_a_key_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_key(tmp_path / "key")
    owner = (tmp_path / "key").stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(SnapshotKeyError, match=f"belongs to user {owner}") as refused:
        load_key(tmp_path / "key")
    assert key.hex() not in str(refused.value)
