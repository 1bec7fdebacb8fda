"""Findings: the same on a terminal and on a page that needs nothing but itself."""

import io
import re

from matplotlib.figure import Figure
from rich.console import Console

from engine.evaluation.pages import Findings, Picture, Table, print_findings, shown, svg, write_page


def findings():
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    table = Table("by <symbol>", ["symbol", "log loss"], [["EUR<USD>", 0.123456], ["XAU", None]])
    return Findings("A tape", "All is well.", {}, [table, Picture("curve", svg(figure), "a line")])


def test_a_page_holds_all_it_shows_and_fetches_nothing(tmp_path):
    path = tmp_path / "page.html"
    write_page(findings(), path)
    page = path.read_text()
    assert "<svg" in page and "a line" in page and "0.1235" in page
    assert not re.search(r'<(script|link|img|iframe)\b|@import|(?:src|href)="https?:', page)


def test_text_from_a_tape_is_never_markup(tmp_path):
    write_page(findings(), tmp_path / "page.html")
    assert "EUR&lt;USD&gt;" in (tmp_path / "page.html").read_text()


def test_tables_and_the_summary_go_to_the_terminal():
    out = io.StringIO()
    print_findings(findings(), Console(file=out, width=60))
    assert "EUR<USD>" in out.getvalue() and "All is well." in out.getvalue()


def test_values_are_shown_as_a_person_reads_them():
    values = [None, True, 12345, 0.000123456, 23456.7, float("nan"), (0.5, 1.0), "x"]
    assert [shown(value) for value in values] == [
        "", "yes", "12,345", "0.0001235", "23,457", "", "0.5 … 1", "x",
    ]  # fmt: skip
