"""What the numbers come from: the machine, the versions, and what a process takes of it."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("closeloop", "river", "lightgbm", "numba", "numpy", "redis", "hiredis", "msgspec")


def machine() -> dict[str, object]:
    """The machine, for table captions and JSON. `load` is the load average before the bench."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cpus": usable,
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def described(found: dict[str, object]) -> str:
    """The machine in one line."""
    versions = found["versions"]
    assert isinstance(versions, dict)
    shown = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    return (
        f"{found['cpu']}, {found['cpus']} CPUs, load {found['load']} at the start,"
        f" {found['system']}, Python {found['python']}, {shown}"
    )


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    statm = Path(f"/proc/{pid}/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return int(_ps("rss", pid)) * 1024


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, its ended children not counted."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        # The second field, the name in parentheses, may hold blanks.
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    *rest, seconds = _ps("time", pid).replace("-", ":").split(":")
    scale = (60, 3_600, 86_400)
    return float(seconds) + sum(int(n) * s for n, s in zip(reversed(rest), scale, strict=False))


def _ps(field: str, pid: int) -> str:
    said = subprocess.run(
        ["ps", "-o", f"{field}=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
