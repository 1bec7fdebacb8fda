"""Rows as the engine makes them, and the bot's features that their columns belong to.

A category is many columns and one feature: what is measured here is measured of features.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.core import Core
from engine.core_config import CoreConfig, ExpertConfig
from engine.evaluation.prequential import run
from engine.fitting import InlineFitter
from learners.window import WindowView
from streams import Tape, TapeError

MOST_CLOSES = 200_000
"""Of a longer tape the newest are looked at."""

# Column names: a bot's own words, in which @, = and \ are escaped, then perhaps =value.
_NAME = re.compile(r"(?:\\.|[^\\=])*", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

Columns = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The closes of a tape as the engine's refits see them.

    Parameters
    ----------
    view
        Rows, labels, returns and times, oldest first.
    features
        The columns of each feature, in the order in which they first appeared. Those that start
        with ``@`` are the engine's own.
    """

    view: WindowView
    features: Mapping[str, Columns]

    @property
    def bots(self) -> list[str]:
        """The bot's own features, which it may stop sending."""
        return [name for name in self.features if not name.startswith("@")]


def read_table(
    tapes: Sequence[Path], config: CoreConfig, progress: Callable[[float], None]
) -> Table:
    """Run the tapes through a core that only encodes. Raises `TapeError` when nothing closed."""
    encoding = config.model_copy(
        update={
            "experts": {"base_rate": ExpertConfig(kind="base_rate")},
            "refit": config.refit.model_copy(update={"enabled": False, "window": MOST_CLOSES}),
        }
    )
    core = Core(encoding, InlineFitter())
    tape = Tape(*tapes)
    run(core, tape, lambda _: progress(tape.progress))
    window = core.model.window
    if not window.closes:
        counts = core.counts
        raise TapeError(
            f"{', '.join(map(str, tapes))}: none of its {counts['signals']} signals has a close "
            f"({counts['closes']} closes, {counts['dead']} lines that are no events); without "
            "closes there is nothing that features could tell"
        )
    view = window.at(window.closes)
    return Table(view, features_of(core.model.encoder.names[: view.rows.shape[1]]))


def features_of(columns: Sequence[str]) -> dict[str, Columns]:
    """The columns, by number, of each feature."""
    found: dict[str, list[int]] = {}
    for column, name in enumerate(columns):
        match = _NAME.match(name)
        assert match is not None
        feature = match.group()
        # A bot's own @ at the beginning stays escaped: it isn't the engine's.
        shown = feature if feature.startswith("\\@") else _ESCAPED.sub(r"\1", feature)
        found.setdefault(shown, []).append(column)
    return {feature: np.array(numbers) for feature, numbers in found.items()}
