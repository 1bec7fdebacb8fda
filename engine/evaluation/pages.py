"""Findings for people: the same tables on a terminal and, with pictures, on one HTML page.

A page holds everything it shows: no script, no font and no image is fetched from anywhere.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as RichTable

_PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
figure { margin: 1.5rem 0; }
svg { max-width: 100%; height: auto; }
p.note, figcaption { color: #555; max-width: 45rem; }
</style>
<h1>{{ title }}</h1>
{% if summary %}<p>{{ summary }}</p>{% endif %}
{% for part in parts %}
<h2>{{ part.title }}</h2>
{% if part.svg is defined %}
<figure>{{ part.svg | safe }}<figcaption>{{ part.note }}</figcaption></figure>
{% else %}
{% if part.note %}<p class="note">{{ part.note }}</p>{% endif %}
<div class="wide"><table>
<tr>{% for name in part.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in part.shown() %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}
{% endfor %}
</html>
""")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns, with a sentence on how to read them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def shown(self) -> list[list[str]]:
        """The rows as text: numbers with four significant digits, nothing for None."""
        return [[shown(value) for value in row] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot, as SVG, with a sentence on how to read it."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a command found.

    Parameters
    ----------
    title
        The page's heading.
    summary
        The answer in a sentence or two.
    figures
        Everything, for JSON.
    parts
        Tables and pictures in the order in which they are read.
    """

    title: str
    summary: str
    figures: Mapping[str, object]
    parts: Sequence[Table | Picture] = field(default_factory=tuple)


def shown(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, tuple) and len(value) == 2:
        return f"{shown(value[0])} … {shown(value[1])}"
    return str(value)


def svg(figure: Figure) -> str:
    """A figure as an SVG element, to stand inside a page."""
    out = io.StringIO()
    # Without a salt, names inside would differ from run to run.
    with rc_context({"svg.hashsalt": "closeloop"}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float | tuple)


def print_findings(findings: Findings, console: Console) -> None:
    """The summary and the tables, fitted to the terminal. Pictures are for the page."""
    for part in findings.parts:
        if isinstance(part, Table):
            table = RichTable(title=part.title, title_justify="left", caption=part.note or None)
            table.caption_justify = "left"
            for index, name in enumerate(part.columns):
                numbers = all(_is_number(row[index]) for row in part.rows)
                table.add_column(name, justify="right" if numbers else "left", overflow="fold")
            for row in part.shown():
                table.add_row(*row)
            console.print(table)
    if findings.summary:
        console.print(findings.summary)


def write_page(findings: Findings, path: Path) -> None:
    """The findings as one self-contained HTML page."""
    page = _PAGE.render(title=findings.title, summary=findings.summary, parts=findings.parts)
    path.write_text(page, encoding="utf-8")
