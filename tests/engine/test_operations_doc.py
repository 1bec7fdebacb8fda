"""The operator's manual is whole: every alert, every trigger with its defaults, real commands."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

from engine.cli import app
from engine.safety.rollout import Step
from engine.safety.settings import SafetyConfig, TriggerConfig, TriggersConfig

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
KILL_SWITCH = ROOT / "docs" / "kill-switch.md"
TRIGGERS = tuple(TriggersConfig.model_fields)

DYNAMIC: dict[tuple[str, str], tuple[str, ...]] = {
    # Where the code of an alert isn't written down, what it can be.
    ("engine/safety/switch.py", "name"): TRIGGERS,
    ("engine/safety/guard.py", "step.kind"): get_args(get_type_hints(Step)["kind"]),
    # These pass on what others have named.
    ("engine/safety/alert_book.py", "finding.code"): (),
    ("engine/operations.py", "code"): (),
}


def codes() -> set[str]:
    """The code of every alert that the engine can tell."""
    found: set[str] = set()
    for path in sorted((ROOT / "engine").rglob("*.py")):
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for code in _named(tree):
            if isinstance(code, ast.Constant):
                found.add(code.value)
            elif isinstance(code, ast.Name) and code.id in constants:
                found.add(constants[code.id])
            else:
                found.update(DYNAMIC[str(path.relative_to(ROOT)), ast.unparse(code)])
    return found


def _named(tree: ast.Module) -> Iterator[ast.expr]:
    """The expressions that name an alert's code."""
    ours = {
        name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "engine.finding"
        for name in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            by_name = {keyword.arg: keyword.value for keyword in node.keywords}
            if node.func.id == "Alert":
                yield by_name["code"]
            elif ours and node.func.id in ("Finding", "_told"):
                yield by_name.get("code") or node.args[1]


def tables(path: Path) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Each table of a page: its columns and its rows, without backquotes."""
    lines = [
        [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|")
        else None
        for line in path.read_text().splitlines()
    ]
    table: list[list[str]] = []
    for line in [*lines, None]:
        if line is not None:
            table.append(line)
        elif table:
            yield table[0], table[2:]
            table = []


def rows(path: Path, *columns: str) -> list[list[str]]:
    """The rows of the one table that begins with these columns."""
    (found,) = [rows for head, rows in tables(path) if head[: len(columns)] == list(columns)]
    return found


def test_every_alert_has_a_row_that_says_what_to_do() -> None:
    told = {row[0] for row in rows(OPERATIONS, "code", "severity", "means", "what to do")}
    assert told == codes() - set(TRIGGERS)
    assert "drawdown" in codes()
    assert "halt" in codes()


def test_the_table_of_triggers_has_their_defaults() -> None:
    documented = [
        row[:5]
        for row in rows(
            KILL_SWITCH, "trigger", "threshold", "window", "becomes", "cool-down, minutes"
        )
    ]
    triggers = SafetyConfig().triggers
    assert documented == [_shown(name, getattr(triggers, name)) for name in TRIGGERS]


def _shown(name: str, trigger: TriggerConfig) -> list[str]:
    cool_down = trigger.cool_down_minutes
    return [
        name,
        f"{trigger.threshold:g}",
        str(trigger.window),
        trigger.target,
        "–" if cool_down is None else f"{cool_down:g}",
    ]


def test_every_trigger_says_what_to_do_and_how_often_it_fires_for_nothing() -> None:
    to_do = rows(KILL_SWITCH, "trigger", "what it may mean", "what to do")
    named = [name for row in to_do for name in row[0].split(", ")]
    assert named == list(TRIGGERS)
    assert [row[0] for row in rows(KILL_SWITCH, "trigger", "stated rate")] == list(TRIGGERS)


def commands(path: Path) -> list[str]:
    """Every command line on a page that begins with `closeloop`, in a block or within a line."""
    text = path.read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`(closeloop [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in [*lines, *inline] if line.startswith("closeloop ")]


@pytest.mark.parametrize("page", [OPERATIONS, KILL_SWITCH], ids=lambda page: page.name)
def test_every_command_on_the_page_exists_with_its_options(page: Path) -> None:
    found = commands(page)
    assert found
    for line in found:
        _require(typer.main.get_command(app), shlex.split(line, comments=True)[1:], line)


def _require(command: Any, words: list[str], line: str) -> None:
    if hasattr(command, "commands"):
        assert words, line
        assert words[0] in command.commands, line
        _require(command.commands[words[0]], words[1:], line)
        return
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("page", [OPERATIONS, KILL_SWITCH], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.is_file(), target
        headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
        assert not anchor or anchor in anchors, target
