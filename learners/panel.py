"""The experts side by side: all asked and all taught in one place.

A panel never stops for an expert. One that knows nothing yet abstains, and so does one that
fails; a failure is counted under the expert's name. All of it is decided by the input alone, so
a replay sees the same failures.
"""

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from math import nan
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from river.base import Classifier

from learners.booster import Booster
from learners.encoding import FeatureEncoder
from learners.experts import (
    BaseRate,
    ExpertError,
    ExpertSpec,
    RowExpert,
    Stateful,
    Voter,
    build,
)
from learners.forest import UNKNOWN_VOTES
from learners.groups import GroupRate

LOWEST, HIGHEST = 0.001, 0.999
"""No expert is believed to be surer than this."""
_BOTH = [True, True]


Votes: TypeAlias = tuple[tuple[float, float], ...]


class Forecast(NamedTuple):
    """What a panel says of a row.

    `p` holds each expert's win probability within [0.001, 0.999], NaN where it abstains, of shape
    (experts,); `votes`, a pair a voter, are to be handed back when the outcome is known. `returns`
    and `stops` are what the voters say of the return, in percent, and of the stop's probability.
    """

    p: NDArray[np.float64]
    votes: Votes
    returns: list[float]
    stops: list[float]


class ExpertPanel:
    """The experts side by side.

    Parameters
    ----------
    specs
        The experts, in the order in which probabilities are given.
    encoder
        The one that makes the rows: it knows the columns' names.
    seed
        For experts that draw random numbers.
    """

    def __init__(self, specs: Sequence[ExpertSpec], encoder: FeatureEncoder, seed: int = 1) -> None:
        self.names = [spec.name for spec in specs]
        if len(set(self.names)) < len(self.names):
            raise ExpertError(f"two experts have the same name among {self.names}; rename one")
        self._specs = list(specs)
        self._encoder = encoder
        self._seed = seed
        # Which methods an expert has is known by `_speaks`: a cast at each call would cost more.
        self._models: list[Any] = [build(spec, seed, encoder.max_columns) for spec in specs]
        # Asked once: checking a protocol takes longer than most experts do.
        self._speaks = [_language(model) for model in self._models]
        # A base rate has its prior; a booster abstains by itself, and so does a group's rate.
        own = BaseRate | GroupRate | Booster
        self._at_once = [isinstance(model, own) for model in self._models]
        self._classes = [[False, False] for _ in specs]  # saw a loss, saw a win
        self._failures: list[tuple[int, str]] = [(0, "") for _ in specs]
        self.failed = 0
        """Failures so far, of all experts."""

    def __getitem__(self, name: str) -> Classifier:
        """The expert called `name`."""
        return cast(Classifier, self._models[self.names.index(name)])

    @property
    def failures(self) -> dict[str, tuple[int, str]]:
        """How often each expert failed, and how the last time; experts that never did are left out.

        When a count rises, a person should be told.
        """
        found = zip(self.names, self._failures, strict=True)
        return {name: failure for name, failure in found if failure[0]}

    @property
    def voters(self) -> int:
        """How many experts forecast returns and stops, too."""
        return self._speaks.count("votes")

    def predict(self, row: NDArray[np.float64], groups: Mapping[Hashable, str]) -> Forecast:
        """What each expert says of `row`, and of the groups that its signal belongs to.

        An expert abstains when it has no champion, has not seen a win and a loss yet, or failed.
        One whose answer isn't a number has overflowed and starts afresh.
        """
        votes: list[tuple[float, float]] = []
        returns: list[float] = []
        stops: list[float] = []
        view: dict[Hashable, float] | None = None
        out = [nan] * len(self._models)
        for i, model in enumerate(self._models):
            speaks = self._speaks[i]
            if speaks == "votes":
                votes.append(UNKNOWN_VOTES)
                returns.append(nan)
                stops.append(nan)
            if not self._at_once[i] and self._classes[i] != _BOTH:
                continue
            try:
                if speaks == "rows":
                    p = model.predict_proba_row(row)
                elif speaks == "groups":
                    p = model.predict_proba_groups(groups)
                elif speaks == "votes":
                    (p, returns[-1], stops[-1]), votes[-1] = model.predict_with_votes(row)
                else:
                    if view is None:
                        view = self._view(row)
                    answer = model.predict_proba_one(view)
                    if not answer:
                        continue
                    p = float(answer.get(True, 0.0))
            except Exception as error:  # noqa: BLE001  # whatever River raises on odd input
                self._failed(i, type(error).__name__)
                continue
            if p == p:
                out[i] = LOWEST if p < LOWEST else HIGHEST if p > HIGHEST else p
            elif not self._at_once[i]:
                self._failed(i, "NaN")
                self.reset(self.names[i])
        return Forecast(np.array(out), tuple(votes), returns, stops)

    def learn(
        self,
        row: NDArray[np.float64],
        won: bool,
        return_pct: float,
        stopped: bool | None,
        votes: Votes,
        groups: Mapping[Hashable, str],
    ) -> None:
        """Teach each expert one close, once. One that fails half-way starts afresh.

        `row`, `votes` and `groups` are those of the signal, `stopped` is None when the bot
        didn't say.
        """
        view: dict[Hashable, float] | None = None
        ended = nan if stopped is None else float(stopped)
        cast_then = iter(votes)
        for i, model in enumerate(self._models):
            speaks = self._speaks[i]
            self._classes[i][won] = True
            try:
                if speaks == "rows":
                    model.learn_row(row, won)
                elif speaks == "groups":
                    model.learn_one(groups, won)
                elif speaks == "votes":
                    vote = next(cast_then)
                    model.learn_row(row, won, return_pct, ended, vote)
                else:
                    if view is None:
                        view = self._view(row)
                    model.learn_one(view, won)
            except Exception as error:  # noqa: BLE001  # whatever River raises on odd input
                self._failed(i, type(error).__name__)
                self.reset(self.names[i])

    def reset(self, name: str) -> None:
        """Let the expert called `name` start afresh."""
        i = self.names.index(name)
        self._models[i] = build(self._specs[i], self._seed, self._encoder.max_columns)
        self._classes[i] = [False, False]

    def state(self) -> dict[str, object]:
        """All that `restore` needs. Models without a plain state are copied whole."""
        return {
            "models": [
                model.state() if isinstance(model, Stateful) else deepcopy(model)
                for model in self._models
            ],
            "classes": [list(pair) for pair in self._classes],
            "failures": [list(pair) for pair in self._failures],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the panel, of the same specs, whose `state` this is."""
        for i, saved in enumerate(cast(list[object], state["models"])):
            model = self._models[i]
            if isinstance(model, Stateful):
                model.restore(cast(Mapping[str, object], saved))
            else:
                self._models[i] = deepcopy(cast(Classifier, saved))
        self._classes = [list(pair) for pair in cast(list[list[bool]], state["classes"])]
        failures = cast(list[tuple[int, str]], state["failures"])
        self._failures = [(count, how) for count, how in failures]
        self.failed = sum(count for count, _ in failures)

    def _view(self, row: NDArray[np.float64]) -> dict[Hashable, float]:
        return cast(dict[Hashable, float], self._encoder.as_dict(row))

    def _failed(self, i: int, how: str) -> None:
        # Only the error's type: its message may hold an address, which no replay repeats.
        self._failures[i] = (self._failures[i][0] + 1, how)
        self.failed += 1


def _language(model: Classifier) -> Literal["rows", "votes", "groups", "names"]:
    """How an expert wants to be spoken to."""
    if isinstance(model, GroupRate):
        return "groups"
    if isinstance(model, Voter):
        return "votes"
    return "rows" if isinstance(model, RowExpert) else "names"
