"""The books of a core: every input has one fate, and the counts say which."""

from collections import Counter
from collections.abc import Iterable

from engine.core import Core
from streams import Dead, Decision, Outcome, Output


class Books:
    """Counts what a core puts out, and holds it against what the core says that it took in."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._dead: Counter[str] = Counter()

    def enter(self, outputs: Iterable[Output]) -> None:
        """Take in what was put out."""
        for output in outputs:
            self._kinds[type(output).__name__] += 1
            if isinstance(output, Dead):
                self._dead[output.reason] += 1

    def balance(self, core: Core) -> None:
        """Assert that all that went in came out, was counted away, or is still there."""
        counts, ledger, kinds, dead = core.counts, core.ledger, self._kinds, self._dead
        assert counts["decisions"] == kinds["Decision"]
        assert counts["outcomes"] == kinds["Outcome"] == core.model.closes
        assert counts["alerts"] == kinds["Alert"]
        assert counts["dead"] == kinds["Dead"]
        assert counts["events"] == (
            counts["signals"] + counts["closes"] + counts["controls"] + dead["invalid"]
        )
        assert counts["signals"] == (
            counts["decisions"] + counts["duplicate_signals"] + dead["feature_type"]
        )
        assert counts["decisions"] == (
            counts["outcomes"] + counts["expired_signals"] + len(ledger.open)
        )
        assert counts["closes"] == (
            counts["outcomes"]
            + counts["duplicate_closes"]
            + counts["late_closes"]
            + counts["orphan_closes"]
            + len(ledger.parked)
        )
        assert counts["late_closes"] == dead["late_close"]
        assert counts["orphan_closes"] == dead["orphan_close"]
        # The newest signal is opened after the oldest was looked at.
        assert len(ledger.open) <= ledger.max_open + 1
        assert len(ledger.parked) <= ledger.max_parked


def once(outputs: Iterable[Output]) -> None:
    """Assert that no signal was decided twice, and no close learned twice."""
    names = Counter(
        (output.type, output.signal_id)
        for output in outputs
        if isinstance(output, Decision | Outcome)
    )
    assert set(names.values()) <= {1}, names.most_common(1)
