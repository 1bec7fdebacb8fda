"""Why what was published isn't what the inputs give, from all that is known once a run is over.

input     an event was deleted, added or changed since, or was another one
order     the same closes or signals, in another order
config    the decision was made under another configuration
library   it was made with other versions of what the answers depend on
output    the inputs give what later digests or decisions say: what was published was altered
unclear   what is known doesn't tell which of these
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.alignment import Pair
from engine.core import Core
from snapshots import libraries
from streams import Decision, EventError, ModelRef, Outcome, order
from streams.events import decode_output

Cause = Literal["input", "order", "config", "library", "output", "unclear"]
Kind = Literal["decision", "outcome", "state"]

# What an output takes over from its own signal or close.
_GIVEN = {
    "decision": ("ts", "symbol", "baseline"),
    "outcome": ("ts", "opened", "symbol", "side", "strategy", "baseline", "return_pct", "executed"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A difference. `note` says what is known of it, `cause` is set where that is plain."""

    kind: Kind
    pair: Pair
    note: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known once all entries are applied.

    Parameters
    ----------
    core
        In its last state.
    last
        The last pair of decisions with both sides.
    agreed
        After how many entries digests over all decisions were compared, and whether they agreed.
    made_with
        Positions, in order, with the libraries known to have been in use there.
    """

    core: Core
    last: Pair | None
    agreed: Sequence[tuple[int, bool]]
    made_with: Sequence[tuple[str, Mapping[str, str]]]


def cause_of(found: Found, evidence: Evidence) -> tuple[Cause, str]:
    """The cause, and what it was seen by, for a person."""
    pair = found.pair
    if found.cause is not None:
        return found.cause, f"{found.note}: events were deleted, added or changed since"
    if found.kind == "state":
        return _by_libraries(pair, found.note, evidence)
    later = _later_agrees(pair, evidence)
    if later:
        return "output", _altered(pair)
    if pair.made is None:
        gone = found.note or "its event is no longer in the input, or never was"
        return "input", f"published, but not made again: {gone}"
    if pair.published is None:
        if later is None:
            return "unclear", "it is missing from what was published, or its event was added since"
        return "input", "none was published: its event was added since, or wasn't taken then"
    if pair.published == pair.made:
        return "order", "it was published before signals that now come first"
    kind = Decision if found.kind == "decision" else Outcome
    try:
        published = decode_output(kind, _with_id(pair.published))
    except EventError as error:
        return "output", f"what was published is no {found.kind}: {error}"
    made = decode_output(kind, _with_id(pair.made))
    fields = [name for name in kind.__struct_fields__ if _differ(published, made, name)]
    named = ", ".join(fields) or "the bytes"
    if isinstance(published, Decision) and isinstance(made, Decision):
        then, now = published.model, made.model
        if then.config != now.config:
            return "config", f"published under the config {then.config}, re-run under {now.config}"
        if (then.update, then.last_close) != (now.update, now.last_close):
            return _by_closes(pair, published, made, evidence)
    if set(fields) & set(_GIVEN[found.kind]):
        return "input", f"the event itself is another one: {named} differ"
    return _by_libraries(pair, named, evidence)


def _by_closes(
    pair: Pair, published: Decision, made: Decision, evidence: Evidence
) -> tuple[Cause, str]:
    """The model had learned from other closes."""
    core, last = evidence.core, evidence.last
    then, now = published.model, made.model
    said = (
        f"published after {then.update} closes, the last of {then.last_close!r};"
        f" here after {now.update}, the last of {now.last_close!r}"
    )
    if then.last_close is not None and not core.ledger.has_closed(then.last_close):
        hint = "" if now.update else "; begun from a replay's snapshot? then name it"
        return "input", f"{said}: the close of {then.last_close!r} is gone, or changed{hint}"
    if last is not None and last.at > pair.at:
        evened = _updates(last.published) == _updates(last.made)
    else:
        evened = core.model.closes >= then.update
    if evened:
        return "order", f"{said}: the same closes in another order"
    more = "were added" if then.update < now.update else "are missing"
    return "input", f"{said}: closes {more}"


def _by_libraries(pair: Pair, what: str, evidence: Evidence) -> tuple[Cause, str]:
    """Same model by its own account, other numbers."""
    there = _libraries_at(pair.entry_id, evidence)
    if there is None:
        return "unclear", f"{what} differ: an event at or before this was changed, or a library"
    here = libraries()
    differing = [
        f"{name} {there.get(name)} there and {here.get(name)} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differing:
        return "library", f"{what} differ: {'; '.join(differing)}"
    why = f"{what} differ, though config, closes and libraries don't"
    return "input", f"{why}: an event at or before this was changed or deleted"


def _libraries_at(entry_id: str, evidence: Evidence) -> Mapping[str, str] | None:
    """Those known to have been in use at or after an entry, else the last known before."""
    after = (versions for at, versions in evidence.made_with if order(at) >= order(entry_id))
    last = evidence.made_with[-1][1] if evidence.made_with else None
    return next(after, last)


def _later_agrees(pair: Pair, evidence: Evidence) -> bool | None:
    """Whether what came later proves the inputs up to here; None when nothing tells."""
    agreed = next((agreed for at, agreed in evidence.agreed if at >= pair.at), None)
    if agreed is not None:
        return agreed
    # Without digests: a later decision, made after this signal's close was learned.
    last = evidence.last
    if last is None or last.at <= pair.at or pair.signal_id is None:
        return None
    if not last.equal:
        return False
    return True if evidence.core.ledger.has_closed(pair.signal_id) else None


def _altered(pair: Pair) -> str:
    if pair.published is None:
        return "its publication is missing: what came later says that it was there"
    if pair.made is None:
        return "it was added to what was published: no input of then gives it"
    return "it was altered after it was published: what came later agrees with the inputs"


def _with_id(data: bytes) -> bytes:
    """A decision of a tape with the field that was left out to compare it."""
    if b'"decision_id"' in data:
        return data
    return data.replace(b'{"type":"decision",', b'{"type":"decision","decision_id":"",', 1)


def _updates(data: bytes | None) -> int | None:
    try:
        model: ModelRef = decode_output(Decision, _with_id(data or b"")).model
    except EventError:
        return None
    return model.update


def _differ(one: object, other: object, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
