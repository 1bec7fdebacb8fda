"""The models stream as a history: which models there were, who was champion when, and why.

`reconstruct` is a pure function of the stream's entries in their order. Numbers of closes place a
change among decisions: each says how many closes were learned before it (`model.update`). The
engine changes the champion while it learns a close, so decisions with that number come after;
people do it between two events, so decisions with the same number may lie on either side. For a
single decision there is no doubt: it names its champion itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streams.events import ModelChange, ModelFacts

Verdict = Literal["installed", "forced", "rejected", "fitted"]
NAMED = 10
"""Known models that an error names, the newest."""
# Of these the record's parent is the champion until then; the others leave it where it is.
_CROWNING = frozenset({"installed", "rolled_back", "pinned", "lost"})


class UnknownModel(LookupError):
    """A model, or a decision, that the streams don't have; the message names those they have."""


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry of the models stream.

    Parameters
    ----------
    id
        Of the entry.
    change
        What happened.
    by_person
        Whether a person did it, between two events; else the engine, while it learned a close.
    """

    id: str
    change: ModelChange
    by_person: bool


@dataclass(frozen=True, slots=True)
class Reign:
    """A time during which the champion was the same.

    Parameters
    ----------
    model
        The champion; None: there was none.
    began, ended
        The entries that made it champion, and that ended it. None: before the stream's oldest
        entry; not yet.
    """

    model: str | None
    began: Logged | None
    ended: Logged | None

    @property
    def first(self) -> int:
        """The lowest number of closes learned with which it may have decided."""
        return 0 if self.began is None else self.began.change.update

    @property
    def last(self) -> int | None:
        """The highest one; None: it still decides."""
        if self.ended is None:
            return None
        return self.ended.change.update - (0 if self.ended.by_person else 1)

    def may_hold(self, update: int) -> bool:
        """Whether it may have decided when `update` closes were learned."""
        return self.first <= update and (self.last is None or update <= self.last)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """All that the stream says of one model.

    Parameters
    ----------
    id
        The model's.
    logged
        Every entry about it, oldest first.
    reigns
        When it was champion, oldest first.
    """

    id: str
    logged: tuple[Logged, ...]
    reigns: tuple[Reign, ...]

    @property
    def fitted(self) -> ModelChange | None:
        """The record of the refit; None when the stream doesn't reach back to it."""
        found = [each.change for each in self.logged if each.change.change == "fitted"]
        return found[-1] if found else None

    @property
    def facts(self) -> ModelFacts | None:
        """What it was made of, as far as the stream has it."""
        return None if self.fitted is None else self.fitted.facts

    @property
    def digest(self) -> str | None:
        """SHA-256 of the model's text; None when none was made, or the stream has lost it."""
        found = [each.change.digest for each in self.logged if each.change.digest is not None]
        return found[-1] if found else None

    @property
    def forced(self) -> bool:
        """Whether it ever became champion although the gate refused it. That stays for ever."""
        return any(each.change.forced for each in self.logged)

    @property
    def verdict(self) -> Verdict:
        """What became of it; `fitted` when the stream has lost that."""
        if self.forced:
            return "forced"
        if self.reigns:
            return "installed"
        turned_away = any(each.change.change == "rejected" for each in self.logged)
        return "rejected" if turned_away else "fitted"

    @property
    def decided(self) -> ModelChange | None:
        """The change that made the verdict: with who or what did it, and why."""
        what: dict[Verdict, frozenset[str]] = {
            "forced": _CROWNING - {"lost"},
            "installed": _CROWNING - {"lost"},
            "rejected": frozenset({"rejected"}),
            "fitted": frozenset(),
        }
        for each in self.logged:
            fits = each.change.change in what[self.verdict]
            if fits and (each.change.forced or self.verdict != "forced"):
                return each.change
        return None


@dataclass(frozen=True, slots=True)
class History:
    """What the models stream tells.

    Parameters
    ----------
    logged
        Every entry, oldest first.
    models
        By ID, in the order in which the stream first names them.
    reigns
        One after the other without a gap, those without a champion as well.
    champion, challenger, pinned
        The aliases as they stand after the last entry.
    """

    logged: tuple[Logged, ...]
    models: dict[str, ModelRecord]
    reigns: tuple[Reign, ...]
    champion: str | None
    challenger: str | None
    pinned: str | None

    def __getitem__(self, model: str) -> ModelRecord:
        """A model by its ID. Raises `UnknownModel`, with the newest known ones."""
        if model in self.models:
            return self.models[model]
        newest = list(self.models)[-NAMED:][::-1]
        more = len(self.models) - len(newest)
        known = ", ".join(newest) + (f" and {more} older ones" if more else "")
        raise UnknownModel(f"no model {model!r} in the models stream; known are: {known}")

    def facts_of(self, model: str) -> ModelFacts:
        """What a model was made of. Raises `UnknownModel`, also when the stream has lost that."""
        facts = self[model].facts
        if facts is None:
            raise UnknownModel(f"what {model} was made of is not in the models stream any more")
        return facts

    def aliases(self, model: str) -> list[str]:
        """Those that point to a model."""
        named = {"champion": self.champion, "challenger": self.challenger, "pinned": self.pinned}
        return [alias for alias, whom in named.items() if whom == model]

    def champions_at(self, update: int) -> list[Reign]:
        """The reigns that decisions with that many closes learned may belong to, in order."""
        return [reign for reign in self.reigns if reign.may_hold(update)]

    def defender(self, model: str) -> str | None:
        """Whom a model was judged against: the champion at its launch. None: the base rate, or
        the stream doesn't reach back to it.
        """
        facts = self[model].facts
        if facts is None or not facts.champion_metrics:
            return None
        # What the engine does at a close comes before the launch there, what people do after.
        launched = [
            reign.model
            for reign in self.reigns
            if reign.began is None
            or reign.began.change.update < facts.launched + (0 if reign.began.by_person else 1)
        ]
        return launched[-1] if launched else None

    def parent(self, model: str) -> str | None:
        """The champion that a model first took over from; of one that never did, whom it was
        judged against. None for the first of all.
        """
        record = self.models.get(model)
        if record is None:
            return None
        if not record.reigns:
            return self.defender(model)
        began = record.reigns[0].began
        return None if began is None else began.change.parent

    def lineage(self, model: str) -> list[str]:
        """The model, its parent, and so on back to the first that the stream tells of."""
        line = [self[model].id]
        while (parent := self.parent(line[-1])) is not None and parent not in line:
            line.append(parent)
        return line


def reconstruct(entries: Iterable[tuple[str, ModelChange]]) -> History:
    """The history that the stream's entries tell: ID and record, oldest first.

    Where older entries were trimmed, it begins with what the oldest one left says of its past.
    """
    logged: list[Logged] = []
    reigns: list[Reign] = []
    champion: str | None = None
    challenger: str | None = None
    began: Logged | None = None
    pinned = False
    for entry_id, change in entries:
        each = Logged(entry_id, change, _by_person(change, logged[-1].change if logged else None))
        before = change.parent if change.change in _CROWNING else change.champion
        for now, since in ((before, None), (change.champion, each)):
            if now != champion:
                # What the oldest entry says of the time before it ends no reign.
                if logged or since is not None:
                    reigns.append(Reign(champion, began, each))
                champion, began = now, since
        if change.change == "fitted" and change.digest is not None:
            challenger = change.model
        elif change.champion == challenger:
            challenger = None
        if change.change in ("pinned", "unpinned", "lost"):
            pinned = change.change == "pinned"
        logged.append(each)
    if logged:
        reigns.append(Reign(champion, began, None))
    return History(
        tuple(logged),
        _records(logged, reigns),
        tuple(reigns),
        champion,
        challenger,
        champion if pinned else None,
    )


def _by_person(change: ModelChange, before: ModelChange | None) -> bool:
    if change.change == "installed":
        # The engine installs what it has just fitted, and says both in one breath.
        return before is None or (before.change, before.model) != ("fitted", change.model)
    return change.change in ("rolled_back", "pinned", "unpinned")


def _records(logged: Iterable[Logged], reigns: list[Reign]) -> dict[str, ModelRecord]:
    about: dict[str, list[Logged]] = {}
    for each in logged:
        about.setdefault(each.change.model, []).append(each)
    ruled: dict[str | None, list[Reign]] = {}
    for reign in reigns:
        ruled.setdefault(reign.model, []).append(reign)
    return {
        model: ModelRecord(model, tuple(entries), tuple(ruled.get(model, ())))
        for model, entries in about.items()
    }
