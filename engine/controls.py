"""Signed controls: whether one may be obeyed. Each is obeyed once at most.

A bot can read the input stream, and could publish a copy of an old command with its signature. So
the signatures of obeyed commands are remembered. The memory is bounded: past it the command with
the earliest time is forgotten, and from then on none of that time or before is obeyed. (The
earliest by its own time: a command from a clock that is years ahead locks nobody out.)
"""

import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from engine.ledger import to_micros
from streams.events import Control, encode

REMEMBERED = 256
"""Obeyed commands remembered."""


class Controls:
    """Checks signatures, and remembers what was obeyed.

    Parameters
    ----------
    key
        Controls must be signed with it; without one none is obeyed.
    """

    def __init__(self, key: bytes | None) -> None:
        self._key = key
        self._obeyed: dict[str, int] = {}
        self._forgotten: int | None = None

    def refusal(self, control: Control) -> str | None:
        """Why `control` is not to be obeyed, for a person; None when it is, this once."""
        named = f"command {control.command!r} by {control.by!r}"
        if self._key is None:
            return "no control key is configured here; set `control_key`"
        if not hmac.compare_digest(sign(control, self._key), control.sig):
            return f"the signature of {named} doesn't hold; sign it with this engine's control key"
        if control.sig in self._obeyed:
            return f"{named} was obeyed before; sign a new one to have it done again"
        micros = to_micros(control.ts)
        if self._forgotten is not None and micros <= self._forgotten:
            return f"{named} of {control.ts.isoformat()} is too old; sign a new one"
        self._obeyed[control.sig] = micros
        if len(self._obeyed) > REMEMBERED:
            earliest = min(self._obeyed, key=lambda sig: (self._obeyed[sig], sig))
            self._forgotten = self._obeyed.pop(earliest)
        return None

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "obeyed": [[sig, micros] for sig, micros in self._obeyed.items()],
            "forgotten": self._forgotten,
        }

    def restore(self, obeyed: Iterable[tuple[str, int]], forgotten: int | None) -> None:
        """Go on from what `state` gave."""
        self._obeyed = dict(obeyed)
        self._forgotten = forgotten


def sign(control: Control, key: bytes) -> str:
    """A control event's signature: HMAC-SHA256, hex, over its canonical bytes without `sig`.

    Numbers in `args` are floats there, as they are once they were on the wire: 3 is 3.0.
    """
    fields = msgspec.json.decode(encode(control))
    del fields["sig"]
    for name, value in fields.get("args", {}).items():
        if isinstance(value, int) and not isinstance(value, bool):
            fields["args"][name] = float(value)
    return hmac.new(key, msgspec.json.encode(fields), hashlib.sha256).hexdigest()
