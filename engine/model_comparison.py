"""Two models side by side: metrics with differences, and what they were made of otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from engine.model_parts import Cell, Part, moment, names
from engine.models_log import History
from streams.events import ModelFacts


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models, `first` and `second`.

    Parameters
    ----------
    metrics
        By name: of either, each on the closes held out of itself.
    paired, paired_on
        The same of both on the same closes, where one was judged against the other: those held out
        of `paired_on`. None: they never met.
    params
        LightGBM's parameters that differ.
    windows
        First and last close of what each was fitted on, closes trained on and held out.
    only_first, only_second
        Columns that the other doesn't have.
    """

    first: str
    second: str
    metrics: Mapping[str, tuple[float | None, float | None]]
    paired: Mapping[str, tuple[float | None, float | None]]
    paired_on: str | None
    params: Mapping[str, tuple[float | None, float | None]]
    windows: tuple[ModelFacts, ModelFacts]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    def figures(self) -> dict[str, object]:
        """For JSON."""
        windows = {
            name: {
                "first_close": facts.first_close,
                "last_close": facts.last_close,
                "trained_on": facts.trained_on,
                "held_out": facts.held_out,
            }
            for name, facts in zip((self.first, self.second), self.windows, strict=True)
        }
        return {
            "first": self.first,
            "second": self.second,
            "metrics": _differences(self.metrics),
            "paired_on": self.paired_on,
            "paired": _differences(self.paired),
            "params": {name: list(pair) for name, pair in self.params.items()},
            "windows": windows,
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
        }


def compare(history: History, first: str, second: str) -> Comparison:
    """Compare two models. Raises `UnknownModel`, also for one whose facts were trimmed."""
    one, two = history.facts_of(first), history.facts_of(second)
    paired_on, paired = None, {}
    if history.defender(second) == first:
        paired_on, paired = second, _side_by_side(two.champion_metrics, two.metrics)
    elif history.defender(first) == second:
        paired_on, paired = first, _side_by_side(one.metrics, one.champion_metrics)
    params = _side_by_side(one.params, two.params)
    return Comparison(
        first,
        second,
        _side_by_side(one.metrics, two.metrics),
        paired,
        paired_on,
        {name: pair for name, pair in params.items() if pair[0] != pair[1]},
        (one, two),
        tuple(name for name in one.features if name not in set(two.features)),
        tuple(name for name in two.features if name not in set(one.features)),
    )


def parts_of(found: Comparison) -> list[Part]:
    """The comparison for people."""
    columns = ("metric", found.first, found.second, "difference")
    told = [
        Part(
            "Each on the closes held out of itself",
            (
                "Not the same closes: the difference is of the times as well as of the models. Log"
                " loss and Brier score are better the lower they are, the others the higher.",
            ),
            columns,
            _rows(found.metrics),
        )
    ]
    if found.paired_on is not None:
        told.insert(
            0,
            Part(
                "On the same closes",
                (f"Those held out of {found.paired_on}, when it was judged against the other.",),
                columns,
                _rows(found.paired),
            ),
        )
    one, two = found.windows
    windows: list[tuple[str, Cell, Cell]] = [
        ("first close", _time(one.first_close), _time(two.first_close)),
        ("last close", _time(one.last_close), _time(two.last_close)),
        ("closes trained on", one.trained_on, two.trained_on),
        ("closes held out", one.held_out, two.held_out),
        ("columns", len(one.features), len(two.features)),
        ("columns of its own", names(found.only_first), names(found.only_second)),
        *((name, *pair) for name, pair in found.params.items()),
    ]
    text = () if found.params else ("Their parameters are the same.",)
    told.append(Part("What they were made of", text, ("", found.first, found.second), windows))
    return told


def _time(ts: datetime | None) -> str | None:
    return None if ts is None else moment(ts)


def _side_by_side(
    first: Mapping[str, float], second: Mapping[str, float]
) -> dict[str, tuple[float | None, float | None]]:
    return {name: (first.get(name), second.get(name)) for name in {**first, **second}}


def _rows(metrics: Mapping[str, tuple[float | None, float | None]]) -> list[tuple[Cell, ...]]:
    return [
        (name, one, two, None if one is None or two is None else f"{two - one:+.4f}")
        for name, (one, two) in metrics.items()
    ]


def _differences(
    metrics: Mapping[str, tuple[float | None, float | None]],
) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            "first": one,
            "second": two,
            "difference": None if one is None or two is None else two - one,
        }
        for name, (one, two) in metrics.items()
    }
