"""Proof that what was published is what the inputs give: re-run, compare byte for byte, say why.

A `Verification` is fed the entries of a stretch in order, with a core in the state before it. Every
decision (and outcome) that the core makes is compared with the published one; at each waypoint (a
snapshot taken then, the checkpoint) the digests are. Nothing is published, nothing is changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from engine.alignment import Alignment, Made, Pair
from engine.causes import Cause, Evidence, Found, Kind, cause_of
from engine.core import Core
from snapshots import state_digest
from streams import Dead, Decision, Entry, Outcome, Output, encode, order


@dataclass(frozen=True, slots=True)
class Waypoint:
    """What is known of the state at a position, from the time when it was first reached.

    Parameters
    ----------
    name
        For people.
    position
        The input ID up to which it held everything.
    decisions_digest
        Over all decisions so far.
    events
        Entries applied so far; None: not known.
    state_digest
        None: not known, or of a state made with other libraries or another configuration.
    libraries
        The versions then; None: not known.
    """

    name: str
    position: str
    decisions_digest: str
    events: int | None = None
    state_digest: str | None = None
    libraries: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where what was published isn't what the inputs give."""

    kind: Kind
    entry_id: str
    signal_id: str | None
    cause: Cause
    why: str
    published: str | None
    made: str | None


@dataclass(slots=True)
class Tally:
    """How many were equal, how many not, and how many had nothing to be compared with."""

    equal: int = 0
    differing: int = 0
    unchecked: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found."""

    entries: int
    decisions: Tally
    outcomes: Tally
    states: Tally
    first: Difference | None

    @property
    def holds(self) -> bool:
        """Whether nothing differs, and something was there to be compared if anything was made."""
        compared = self.decisions.equal + self.outcomes.equal + self.states.equal
        return self.first is None and (compared > 0 or self.decisions.unchecked == 0)

    def figures(self) -> dict[str, object]:
        """For `closeloop verify --json`."""
        return {"holds": self.holds, **asdict(self)}


class Verification:
    """Applies entries to `core` and compares.

    Parameters
    ----------
    core
        In the state before the first entry.
    decisions, outcomes
        What was published; without outcomes they aren't compared.
    waypoints
        In order, none before the first entry.
    made_with
        Positions, in order, with the libraries known to have been in use there.
    """

    def __init__(
        self,
        core: Core,
        decisions: Alignment,
        outcomes: Alignment | None = None,
        waypoints: Iterable[Waypoint] = (),
        made_with: Sequence[tuple[str, Mapping[str, str]]] = (),
    ) -> None:
        self.core = core
        self.entries = 0
        self._alignments: dict[Kind, Alignment] = {"decision": decisions}
        if outcomes is not None:
            self._alignments["outcome"] = outcomes
        self._waypoints = list(waypoints)
        self._made_with = made_with
        self._tallies: dict[Kind, Tally] = {
            "decision": Tally(), "outcome": Tally(), "state": Tally(),
        }  # fmt: skip
        self._agreed: list[tuple[int, bool]] = []
        self._first: Found | None = None
        self._last: Pair | None = None  # the last pair of decisions with both sides

    def apply(self, entry: Entry) -> None:
        """Apply one entry and compare what is made of it."""
        outputs = self.core.apply(entry)
        self.entries += 1
        made = {
            "decision": _made(Decision, outputs),
            "outcome": _made(Outcome, outputs),
        }
        for kind, alignment in self._alignments.items():
            for pair in alignment.push(self.entries, entry.id, made[kind]):
                note = _nothing_made(outputs) if pair.entry_id == entry.id else ""
                self._compare(kind, pair, note)
        while self._waypoints and order(self._waypoints[0].position) <= order(entry.id):
            self._pass(self._waypoints.pop(0), entry.id)

    def finish(self) -> Verdict:
        """Compare what is left, and find the cause of the first difference."""
        for kind, alignment in self._alignments.items():
            for pair in alignment.finish(self.entries):
                self._compare(kind, pair, "")
            self._tallies[kind].unchecked = alignment.unchecked
        for waypoint in self._waypoints:
            self._state_differs(waypoint, _gone(waypoint), "input")
        return Verdict(
            self.entries,
            self._tallies["decision"],
            self._tallies["outcome"],
            self._tallies["state"],
            self._difference(self._first) if self._first else None,
        )

    def _compare(self, kind: Kind, pair: Pair, note: str) -> None:
        if kind == "decision" and pair.published is not None and pair.made is not None:
            self._last = pair
        if pair.equal:
            self._tallies[kind].equal += 1
        else:
            self._differs(Found(kind, pair, note))

    def _differs(self, found: Found) -> None:
        self._tallies[found.kind].differing += 1
        if self._first is None or found.pair.at < self._first.pair.at:
            self._first = found

    def _pass(self, waypoint: Waypoint, entry_id: str) -> None:
        """Compare the state with what is known of it."""
        if waypoint.position != entry_id:
            self._state_differs(waypoint, _gone(waypoint), "input")
            return
        agreed = waypoint.decisions_digest == self.core.decisions_digest
        self._agreed.append((self.entries, agreed))
        events = self.core.counts["events"]
        if waypoint.events not in (None, events):
            why = f"{events} entries up to here, {waypoint.events} when {waypoint.name} was made"
            self._state_differs(waypoint, why, "input")
        elif not agreed:
            self._state_differs(waypoint, f"the decisions' digest and that of {waypoint.name}")
        elif waypoint.state_digest not in (None, state_digest(self.core.state())):
            self._state_differs(waypoint, f"the state and that of {waypoint.name}")
        else:
            self._tallies["state"].equal += 1

    def _state_differs(self, waypoint: Waypoint, note: str, cause: Cause | None = None) -> None:
        pair = Pair(self.entries, waypoint.position, None, None, None)
        self._differs(Found("state", pair, note, cause))

    def _difference(self, found: Found) -> Difference:
        evidence = Evidence(self.core, self._last, self._agreed, self._made_with)
        cause, why = cause_of(found, evidence)
        pair = found.pair
        return Difference(
            found.kind, pair.entry_id, pair.signal_id, cause, why,
            _text(pair.published), _text(pair.made),
        )  # fmt: skip


def _made(kind: type[Decision] | type[Outcome], outputs: Sequence[Output]) -> Made | None:
    for output in outputs:
        if isinstance(output, kind):
            return Made(output.signal_id, encode(output))
    return None


def _nothing_made(outputs: Sequence[Output]) -> str:
    """Why an entry gave neither a decision nor an outcome."""
    for output in outputs:
        if isinstance(output, Dead):
            return f"the entry is a dead letter here ({output.reason}: {output.message})"
    return "the entry gives no such thing here: a copy, or another event"


def _gone(waypoint: Waypoint) -> str:
    return f"the entry {waypoint.position}, at which {waypoint.name} was made, is gone"


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")
