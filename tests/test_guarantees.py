"""Every guarantee names a test that proves it, and every test named is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/guarantees.md")
ROW = re.compile(r"^\| (G\d) \|.*$", re.MULTILINE)
NAMED = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def functions(path: Path) -> set[str]:
    found = ast.parse(path.read_text()).body if path.exists() else []
    return {node.name for node in found if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_named_as_a_proof_exists(document):
    named = NAMED.findall((ROOT / document).read_text())
    missing = [f"{path}::{name}" for path, name in named if name not in functions(ROOT / path)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_guarantee_names_a_test_that_proves_it(document):
    rows = {found[1]: found[0] for found in ROW.finditer((ROOT / document).read_text())}
    assert sorted(rows) == [f"G{number}" for number in range(1, 8)]
    assert [name for name, row in rows.items() if not NAMED.search(row)] == []
