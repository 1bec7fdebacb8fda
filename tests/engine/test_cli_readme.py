"""The command list: every command explains itself and stands in README.md.

`python -m tests.engine.test_cli_readme` prints the list as README.md is to have it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.cli import app
from tests.engine.conftest import Command

README = Path(__file__).parents[2] / "README.md"


def commands() -> Iterator[tuple[str, str]]:
    """Every command as it is typed, and the first sentence of its help."""
    yield from _below(typer.main.get_command(app), "closeloop")


def _below(group: Any, path: str) -> Iterator[tuple[str, str]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(command, f"{path} {name}")
        else:
            first = (command.help or "").partition("\n\n")[0]
            yield f"{path} {name}", " ".join(first.split())


def command_list() -> str:
    """The table for README.md."""
    rows = [f"| `{path}` | {meaning} |" for path, meaning in commands()]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


@pytest.mark.parametrize(("path", "meaning"), list(commands()))
def test_every_command_says_what_it_does_within_80_columns(
    closeloop: Command, path: str, meaning: str
) -> None:
    assert meaning.endswith(".")
    ran = closeloop(*path.split()[1:], "--help")
    assert ran.status == 0
    assert max(map(len, ran.out.splitlines())) <= 80


def test_every_option_and_argument_is_explained() -> None:
    def missing(group: Any, path: str) -> Iterator[str]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from missing(command, f"{path} {name}")
            else:
                yield from (
                    f"{path} {name}: {parameter.name}"
                    for parameter in command.params
                    if not getattr(parameter, "help", None)
                )

    assert list(missing(typer.main.get_command(app), "closeloop")) == []


def test_the_readme_has_the_command_list() -> None:
    absent = [row for row in command_list().splitlines() if row not in README.read_text()]
    assert not absent, "put these into README.md:\n" + "\n".join(absent)


if __name__ == "__main__":
    print(command_list())  # noqa: T201 - that is what it is for
