"""The command line as a user meets it, run inside the test's own process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from engine.cli import main


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return orjson.loads(self.out)


Command = Callable[..., Ran]


@pytest.fixture
def closeloop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `closeloop ...` in an empty folder, on a screen of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["closeloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        status = end.value.code
        assert status is None or isinstance(status, int)
        return Ran(status or 0, *capsys.readouterr())

    return run
