"""`closeloop init`, `show-config` and `schema`."""

import re
import tomllib
from pathlib import Path

import pytest

from engine.config import Config, load_config
from engine.config_file import config_file
from tests.engine.conftest import Command


def uncommented(text: str) -> str:
    """The file with every setting set that has a default."""
    return re.sub(r"^#(?=\[|\w+ = )", "", text, flags=re.MULTILINE)


def test_the_written_file_changes_nothing(closeloop: Command) -> None:
    assert closeloop("init").status == 0
    assert load_config().model_dump() == Config().model_dump()


def test_every_setting_stands_in_the_file_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(uncommented(config_file()))
    assert load_config(path).model_dump() == Config().model_dump()
    written = tomllib.loads(path.read_text())
    expected = Config().model_dump(mode="json", exclude_none=True)
    for expert in expected["core"]["experts"].values():
        if not expert["params"]:
            del expert["params"]  # an empty table, not worth a line
    assert written == expected


def test_settings_without_a_default_are_named_and_do_not_load_empty(tmp_path: Path) -> None:
    text = config_file()
    assert "#control_key =\n" in text
    assert re.search(r"^\[snapshots\]$(.|\n)*^#key =$", text, re.MULTILINE)
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text.replace("#control_key =", "control_key ="))


def test_the_file_names_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSELOOP_CONTROL_KEY", "hush-hush")
    monkeypatch.setenv("CLOSELOOP_STREAM__ADDRESS", "redis://hush-hush")
    assert "hush-hush" not in config_file()


def test_the_file_fits_80_columns() -> None:
    assert max(map(len, config_file().splitlines())) <= 80


def test_a_file_that_exists_is_overwritten_only_when_forced(
    closeloop: Command, tmp_path: Path
) -> None:
    mine = tmp_path / "closeloop.toml"
    mine.write_text("[stream]\nshards = 3\n")
    refused = closeloop("init")
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert "--force" in refused.err
    assert load_config(mine).stream.shards == 3
    assert closeloop("init", "--force").status == 0
    assert load_config(mine).stream.shards == 1


def test_a_file_that_cannot_be_written_is_one_line(closeloop: Command) -> None:
    refused = closeloop("init", "no/such/folder/closeloop.toml")
    assert (refused.status, refused.err.count("\n")) == (2, 1)


def test_show_config_says_what_is_in_effect_and_masks_secrets(
    closeloop: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(
        "control_key = 'hush-hush-hush-hush'\n[worker]\nbatch = 7\n"
    )
    monkeypatch.setenv("CLOSELOOP_SNAPSHOTS__KEY", "hush-hush-hush-hush")
    given = ("--config", "mine.toml", "--address", "redis://bot:hush-hush@10.0.0.1/2")
    as_json = closeloop("show-config", "--json", *given)
    as_table = closeloop("show-config", *given)
    assert as_json.status == as_table.status == 0
    assert "hush-hush" not in as_json.out + as_table.out
    settings = as_json.json["settings"]
    assert settings["worker"]["batch"] == 7
    assert settings["stream"]["address"] == "redis://bot:***@10.0.0.1/2"
    assert as_json.json["core_digest"] == Config().core.digest
    assert "redis://bot:***@10.0.0.1/2" in as_table.out
    assert max(map(len, as_table.out.splitlines())) <= 80


def test_a_setting_that_means_nothing_is_one_line(closeloop: Command, tmp_path: Path) -> None:
    (tmp_path / "closeloop.toml").write_text("[worker]\nbatch = 0\n")
    for command in ("show-config", "doctor"):
        refused = closeloop(command)
        assert refused.status == 2
        assert "worker.batch" in refused.err
        assert refused.err.count("\n") == 1


def test_schema_prints_the_contract_in_either_form(closeloop: Command) -> None:
    assert "$defs" in closeloop("schema").json
    assert closeloop("schema", "--json-schema").out == closeloop("schema").out
    assert "asyncapi" in closeloop("schema", "--asyncapi").json
