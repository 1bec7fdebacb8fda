"""docs/api.md is true: its requests are served by a worker, and its table has every endpoint."""

import os
import re
import shlex
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from streams import Keys, connect
from tests.engine.asgi import Answer
from tests.engine.test_api import Stand

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
TOKEN = "a-token-for-the-tests"
REQUESTS = [
    line.replace("\\\n", "")
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in re.findall(r"^curl (?:.*\\\n)*.*", block, re.MULTILINE)
]
DEADLINE_S = 60


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[int]:
    """Where a worker's API answers."""
    settings = {
        "CLOSELOOP_STREAM__ADDRESS": redis_server,
        "CLOSELOOP_STREAM__PREFIX": "api-docs",
        "CLOSELOOP_CONTROL_KEY": "a-control-key-for-the-tests",
        "CLOSELOOP_HTTP__TOKEN": TOKEN,
        "CLOSELOOP_HTTP__PORT": "0",
        "CLOSELOOP_LOG__FORMAT": "json",
    }
    worker = subprocess.Popen(
        [sys.executable, "-c", "from engine.cli import main; main()", "run"],
        cwd=tmp_path_factory.mktemp("worker"),
        env=os.environ | settings,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    found = 0
    try:
        while True:
            line = worker.stderr.readline()
            assert line, "the worker ended before it was ready"
            if '"serving_http"' in line:
                found = orjson.loads(line)["port"]
            if '"recovered"' in line:
                break
        with connect(redis_server) as connection:
            while not connection.redis.exists(Keys(0, "api-docs").view):
                assert worker.poll() is None
        yield found
    finally:
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=DEADLINE_S)
    assert worker.returncode == 0, log
    assert "http_failed" not in log
    assert TOKEN not in log


def curl(command: str, port: int) -> Answer:
    """What curl would do."""
    words = ArgumentParser()
    words.add_argument("-s", action="store_true")
    words.add_argument("-H", action="append", default=[])
    words.add_argument("-d")
    words.add_argument("url")
    asked = words.parse_args(shlex.split(command.replace("$CLOSELOOP_HTTP__TOKEN", TOKEN))[1:])
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        headers = dict(header.split(": ", 1) for header in asked.H)
        method = "GET" if asked.d is None else "POST"
        connection.request(method, urlsplit(asked.url).path, asked.d, headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("command", REQUESTS)
def test_a_worker_serves_each_request_of_the_page(command: str, port: int) -> None:
    answer = curl(command, port)
    assert answer.status == (202 if "/control/" in command else 200), answer.text


def test_the_page_has_requests_of_every_kind() -> None:
    paths = {path for command in REQUESTS for path in re.findall(r"9464(/\w+)", command)}
    assert {"/status", "/score", "/control", "/metrics"} <= paths


def test_the_page_has_every_endpoint_with_its_statuses() -> None:
    with connect("memory://api-docs") as connection:
        document = Stand(connection).app.openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            (row,) = re.findall(rf"^\| `{method.upper()} {re.escape(path)}` .*$", PAGE, re.M)
            told = set(re.findall(r"\b[2-5]\d\d\b", row.rpartition("|")[0].rpartition("|")[2]))
            assert set(operation["responses"]) <= told, path
    rows = re.findall(r"^\| `(?:GET|POST) (/\S*)`", PAGE, re.MULTILINE)
    assert set(rows) == set(document["paths"])
