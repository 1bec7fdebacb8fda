"""What a drill saw: checks, each with what was expected, and figures."""

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold.

    Parameters
    ----------
    name
        For people.
    expected, seen
        In words or as a number; `expected` is None for what is only measured.
    ok
        Whether it held; None for what is only measured.
    """

    name: str
    expected: str | int | float | None
    seen: str | int | float | None
    ok: bool | None


@dataclass(slots=True)
class Report:
    """The checks of a drill, in order."""

    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def equal(self, name: str, expected: str | int, seen: str | int | None) -> None:
        """Note something that had to be just so."""
        self.checks.append(Check(name, expected, seen, expected == seen))

    def holds(self, name: str, expected: str, seen: str | int | float, ok: bool) -> None:
        """Note something that had to be as said in words."""
        self.checks.append(Check(name, expected, seen, ok))

    def measured(self, name: str, seen: str | int | float) -> None:
        """Note a figure."""
        self.checks.append(Check(name, None, seen, None))

    @property
    def held(self) -> bool:
        """Whether every check did, and there was one."""
        judged = [check.ok for check in self.checks if check.ok is not None]
        return bool(judged) and all(judged)

    def figures(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "held": self.held,
            "checks": [asdict(check) for check in self.checks],
            "notes": self.notes,
        }
