"""The same input through a core in this process: what a copy's workers are held to."""

from collections.abc import Collection

from engine.drills.shadow_copy import ShadowCopy
from engine.recovery import entries_between
from snapshots import state_digest
from streams import START, Decision, Outcome

_BATCH = 1_000


class Reference:
    """A core that nothing happens to.

    Parameters
    ----------
    copy
        Whose input it gets.
    """

    def __init__(self, copy: ShadowCopy) -> None:
        self._copy = copy
        self._position = START
        self.core = copy.core()
        self.decisions: dict[str, Decision] = {}
        """By their signals' input IDs."""
        self.outcomes: list[str] = []
        """The input IDs of entries that gave one."""

    def catch_up(self, without: Collection[str] = ()) -> None:
        """Take in all that is committed on the copy since, `without` the entries of those IDs."""
        transport = self._copy.transport
        until = transport.checkpoint().position
        for entry in entries_between(transport, self._position, until, _BATCH):
            if entry.id in without:
                continue
            for output in self.core.apply(entry):
                if isinstance(output, Decision):
                    self.decisions[entry.id] = output
                elif isinstance(output, Outcome):
                    self.outcomes.append(entry.id)
        self._position = until

    @property
    def digest(self) -> str:
        """Of the whole state, as snapshots have it."""
        return state_digest(self.core.state())
