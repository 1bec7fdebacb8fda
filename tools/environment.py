"""Make the environment in `.venv` from requirements.lock. Needs the standard library only.

python3 tools/environment.py
"""

import shutil
import subprocess
import sys
import venv
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
OLDEST, NEWEST = (3, 11), (3, 13)
WIDTH = 30


def bar(done: int, total: int, what: str) -> None:
    """One line that moves, on a terminal."""
    if sys.stderr.isatty():
        filled = "#" * round(WIDTH * done / total)
        columns = shutil.get_terminal_size().columns - 1
        line = f"[{filled:<{WIDTH}}] {done}/{total} {what}"[:columns]
        print(f"\r{line:<{columns}}", end="", file=sys.stderr, flush=True)


def pip(arguments: list[str], total: int) -> None:
    """Run pip in the environment; each package it takes up moves the bar."""
    python = FOLDER / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    last: deque[str] = deque(maxlen=20)
    taken = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        for line in process.stdout or ():
            last.append(line)
            if line.startswith(("Collecting", "Obtaining")):
                taken += 1
                bar(min(taken, total), total, line.split()[1])
            elif line.startswith("Installing"):
                bar(total, total, "installing")
    if process.returncode:
        sys.exit("\n" + "".join(last) + "the environment could not be made; see pip's words above")


def main() -> None:
    """Make it, or say what is in the way."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        sys.exit(
            f"closeloop needs Python 3.11 to 3.13, this is {version[0]}.{version[1]}; "
            "name another one: make PYTHON=python3.12"
        )
    print("making the environment in .venv", file=sys.stderr)
    bar(0, 1, "venv")
    try:
        venv.create(FOLDER, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"\ncan't make {FOLDER}: {error}; on Debian: apt install python3-venv")
    packages = sum("==" in line for line in LOCK.read_text().splitlines())
    pip(["--require-hashes", "-r", str(LOCK)], packages)
    pip(["--no-deps", "--no-build-isolation", "-e", "."], 1)
    if sys.stderr.isatty():
        print(file=sys.stderr)


if __name__ == "__main__":
    main()
