"""The registry of models: which are kept, who is champion, who was before, who is pinned.

A model that is kept can be made champion again with the next event, in a replay too: its text is
part of the state. How many are kept is bounded; what became of all others stands in the `models`
stream, one `ModelChange` after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from engine.ledger import from_micros
from learners import Order, Refit
from streams.events import ModelChange, ModelFacts

Change = Literal["fitted", "installed", "rejected", "rolled_back", "pinned", "unpinned", "lost"]


class RegistryError(LookupError):
    """A model that can't be made champion; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A model that can be made champion."""

    id: str
    text: str
    returns_text: str | None
    digest: str
    accepted: bool
    """Whether the gate let it in."""


class Registry:
    """Aliases and kept models. It changes nothing by itself: who installs models tells it.

    Parameters
    ----------
    keep
        Models kept, at least 4: champion, the one before, challenger, and the one that a refit
        under way is judged against.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._kept: dict[str, Kept] = {}
        self._past: list[str] = []
        self.champion: str | None = None
        """The ID of the installed model."""
        self.challenger: str | None = None
        """The newest model that was not installed."""
        self.pinned = False
        """Whether refits leave the champion where it is."""
        self.defender: str | None = None
        """The champion that the refit under way is judged against: the one at its launch."""

    @property
    def ids(self) -> list[str]:
        """Those kept, oldest first."""
        return list(self._kept)

    def __getitem__(self, model: str) -> Kept:
        """A kept model. Raises `RegistryError` when it isn't kept."""
        if model not in self._kept:
            known = ", ".join(self._kept) or "none yet"
            raise RegistryError(f"model {model!r} is not kept; kept are: {known}")
        return self._kept[model]

    @property
    def previous(self) -> Kept:
        """The champion before this one. Raises `RegistryError` when there was none."""
        if not self._past:
            raise RegistryError("there was no champion before this one, or it isn't kept any more")
        return self._kept[self._past[-1]]

    def keep(self, refit: Refit, model: str) -> Kept:
        """Keep what a refit has made, under that ID."""
        assert refit.text is not None
        assert refit.digest is not None
        kept = Kept(model, refit.text, refit.returns_text, refit.digest, refit.accepted)
        self._kept.pop(model, None)
        self._kept[model] = kept
        self.challenger = model
        self._forget()
        return kept

    def install(self, model: str, back: bool = False) -> str | None:
        """Note the new champion; returns the one until now.

        After going `back`, the champion before is the one from before that.
        """
        before = self.champion
        if back and model in self._past:
            while self._past.pop() != model:
                pass
        elif before is not None and before != model:
            self._past.append(before)
        self.champion = model
        if self.challenger == model:
            self.challenger = None
        self._forget()
        return before

    def was_champion(self, model: str) -> bool:
        """Whether it is champion, or was before, as far as is remembered."""
        return model == self.champion or model in self._past

    def lose(self) -> str | None:
        """There is no champion any more; returns the one until now."""
        before, self.champion, self.pinned = self.champion, None, False
        return before

    def _forget(self) -> None:
        """Drop the oldest models that nothing points to, past what is kept."""
        needed = {self.champion, self.challenger, self.defender, *self._past[-1:]}
        for model in [model for model in self._kept if model not in needed]:
            if len(self._kept) <= self._keep:
                break
            del self._kept[model]
            self._past = [past for past in self._past if past != model]

    def figures(self) -> dict[str, object]:
        """For people."""
        return {
            "champion": self.champion,
            "challenger": self.challenger,
            "pinned": self.champion if self.pinned else None,
            "previous": self._past[-1] if self._past else None,
            "kept": self.ids,
        }

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "kept": [
                [k.id, k.text, k.returns_text, k.digest, k.accepted] for k in self._kept.values()
            ],
            "past": list(self._past),
            "champion": self.champion,
            "challenger": self.challenger,
            "pinned": self.pinned,
            "defender": self.defender,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._kept = {kept[0]: Kept(*kept) for kept in state["kept"]}
        self._past = list(state["past"])
        self.champion, self.challenger = state["champion"], state["challenger"]
        self.pinned, self.defender = state["pinned"], state["defender"]


def facts_of(refit: Refit, order: Order, launched: int, columns: tuple[str, ...]) -> ModelFacts:
    """What there is to say for ever of a refit that was `launched` at that close."""
    times = (refit.first_close, refit.last_close)
    first, last = (None if s is None else from_micros(round(s * 1_000_000)) for s in times)
    return ModelFacts(
        cause=order.cause,
        launched=launched,
        trained_on=refit.trained_on,
        held_out=refit.held_out,
        first_close=first,
        last_close=last,
        features=columns,
        params={name: float(value) for name, value in refit.params.items()},
        metrics=dict(refit.metrics),
        champion_metrics=dict(refit.champion_metrics),
    )


def change(
    registry: Registry,
    ts: datetime,
    what: Change,
    model: str,
    update: int,
    by: str,
    reason: str,
    parent: str | None = None,
    forced: bool = False,
    digest: str | None = None,
    facts: ModelFacts | None = None,
) -> ModelChange:
    """The record of something that happened, once the registry has noted it."""
    return ModelChange(
        ts=ts,
        change=what,
        model=model,
        update=update,
        by=by,
        reason=reason,
        champion=registry.champion,
        parent=parent,
        forced=forced or None,
        digest=digest,
        facts=facts,
    )
