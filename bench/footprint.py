"""What a process and its children hold of the machine: memory, open files, threads.

Memory is known on Linux and macOS. Open files and threads are known on Linux alone, where the
kernel lists them; elsewhere they are None.
"""

import subprocess
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.machine import resident_bytes

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process and all its descendants hold.

    Parameters
    ----------
    resident, children_resident
        Bytes of resident memory of the process itself, and of its descendants together.
    files, threads
        Open files and threads of all of them; None where that isn't known.
    """

    resident: int
    children_resident: int
    files: int | None
    threads: int | None


def footprint(pid: int) -> Footprint:
    """What the process `pid` and its descendants hold now.

    Raises `OSError` or `subprocess.CalledProcessError` when it is gone; a descendant that ends
    meanwhile holds nothing.
    """
    resident, children, found = resident_bytes(pid), 0, _descendants(pid)
    for child in found:
        with suppress(OSError, subprocess.CalledProcessError):
            children += resident_bytes(child)
    if not _PROC.is_dir():
        return Footprint(resident, children, None, None)
    files, threads = (sum(_count(one, what) for one in [pid, *found]) for what in ("fd", "task"))
    return Footprint(resident, children, files, threads)


def _count(pid: int, what: str) -> int:
    with suppress(OSError):
        return sum(1 for _ in (_PROC / str(pid) / what).iterdir())
    return 0


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for child, parent in _parents():
        children[parent].append(child)
    found: list[int] = []
    left = [pid]
    while left:
        nearest = children[left.pop()]
        found += nearest
        left += nearest
    return found


def _parents() -> list[tuple[int, int]]:
    """Every process of the machine with its parent."""
    if not _PROC.is_dir():
        said = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        lines = (line.split() for line in said.stdout.splitlines())
        return [(int(child), int(parent)) for child, parent in lines]
    found = []
    for stat in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            # The second field, the name in parentheses, may hold blanks.
            found.append(
                (int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1]))
            )
    return found
