"""`closeloop rollout`: what the arms have earned, and what the next stage waits for."""

from typing import Any

import typer
from rich.table import Table

from engine.bootstrap import keys_of
from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    print_json,
    results,
    settings,
    shown,
)
from engine.view import read_view
from streams.connection import connect

BAR = 25
"""Columns of the picture of a confidence sequence; zero is in the middle."""
_COLUMNS = ("trades", "win rate", "mean, %", "profit factor", "Sharpe", "drawdown, %")


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    app.command("rollout")(rollout)


def rollout(
    config: ConfigOption = None, address: AddressOption = None, as_json: JsonOption = False
) -> None:
    """Say how model and baseline compare, and what the next stage waits for.

    Of the trades since the rollout began: returns in percent a trade, each trade at the same size;
    Sharpe a trade; the drawdown in percent points of summed returns. The differences are the
    model's less the baseline's, each with the bounds that hold at all times at once.
    """
    chosen = settings(config, address)
    with connect(chosen.stream.address) as connection:
        found = read_view(connection, keys_of(chosen))["rollout"]
    if as_json:
        print_json(found)
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """The figures of `engine.safety.rollout.Rollout`, within 80 columns."""
    console = results()
    console.print(f"[bold]{found['mode']}[/]: {_meaning(found)}", highlight=False)
    arms = Table(title="arms", title_justify="left", title_style="bold")
    arms.add_column("")
    for column in _COLUMNS:
        arms.add_column(column, justify="right")
    for name, figures in found["arms"].items():
        arms.add_row(name, *(_figure(value) for value in figures.values()))
    console.print(arms)
    sequences = Table(
        title=f"model less baseline, at all times with {found['confidence']:.1%} confidence",
        title_justify="left",
        title_style="bold",
    )
    for column in ("", "seen", "from", "to"):
        sequences.add_column(column, justify="right" if column else "left")
    sequences.add_column("0", justify="center", width=BAR, no_wrap=True)
    for name, key in (
        ("mean return, %", "mean_return_difference_pct"),
        ("win rate", "win_rate_difference"),
    ):
        bounds = [found[key][end] for end in ("value", "low", "high")]
        picture = "" if None in bounds else bar(*bounds)
        sequences.add_row(name, *map(_signed, bounds), picture)
    console.print(sequences)
    for line in _coming(found):
        console.print(line, highlight=False)


def bar(value: float, low: float, high: float) -> str:
    """Where the bounds and the difference lie about zero, `BAR` columns wide."""
    middle = BAR // 2
    reach = max(abs(low), abs(high)) or 1.0
    at = [middle + round(middle * each / reach) for each in (low, high, value)]
    cells = [" "] * BAR
    cells[at[0] : at[1] + 1] = "─" * (at[1] + 1 - at[0])
    cells[middle] = "┼" if at[0] < middle < at[1] else "│"
    cells[at[0]], cells[at[1]] = "├", "┤"
    cells[at[2]] = "●"
    return "".join(cells)


def _meaning(found: dict[str, Any]) -> str:
    if found["mode"] == "canary":
        return f"{found['percent']:g} % of the signals are the model's"
    return {
        "shadow": "the baseline is done, the model's answers are noted",
        "advisory": "the baseline is done, the model's answers stand beside it",
        "live": "the model decides every signal",
    }[found["mode"]]


def _coming(found: dict[str, Any]) -> list[str]:
    stage = f"this stage has lasted {found['closes']:,} closes and {found['days']:,.1f} days"
    if found["mode"] == "live":
        return [stage, "live nothing is compared; the kill switch watches"]
    if found["due"] == "demotion":
        return [stage, "[red]going back to shadow is due[/]"]
    if found["next"] is None:
        return [stage, "this is the last stage"]
    name = "live" if found["next"] == 100.0 else f"{found['next']:g} %"
    if found["due"] == "promotion":
        return [stage, f"[green]the next stage is due: {name}[/]"]
    return [stage, f"the next stage, {name}, lacks:", *(f"  {what}" for what in found["missing"])]


def _figure(value: float | None) -> str:
    return f"{value:.2f}" if isinstance(value, float) and abs(value) >= 10.0 else shown(value)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"
