"""The whole loop on this machine, in a minute: `make demo`.

An embedded stream server, a worker (`closeloop run`), the example bot with AAPL's real bars, and
here the consumer: it shows decisions as they come, waits for the last, and sums up what they were
worth. It fails if a decision is missing or doubled, or a process ends as it shouldn't.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

from bot import events, load
from consumer import line
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from engine.report import Report
from streams import Client, Decision, Keys, Outcome, Signal, StreamError, connect

BOT = Path(__file__).with_name("bot.py")
FREQUENCIES = {"daily": ["daily"], "hourly": ["hourly"], "both": ["daily", "hourly"]}
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LINES = 12
SLICE = 500  # entries read from one stream before the other has its turn
PATIENCE_S = 60.0  # without anything new


class DemoError(Exception):
    """Something went wrong; the message says what."""


class Child:
    """A process of the demo's, with its output in a file."""

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        # A worker can be set up by the environment; this one shall not meet another's settings.
        ours = {k: v for k, v in os.environ.items() if not k.startswith("CLOSELOOP_")}
        settings = {
            "CLOSELOOP_HTTP__ENABLED": "false",
            "CLOSELOOP_SNAPSHOTS__DIRECTORY": str(folder / "snapshots"),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=ours | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the demo, which ends its processes in order.
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it still runs. Raises `DemoError` if it failed."""
        status = self._process.poll()
        if status:
            raise self.failed(f"ended with status {status}")
        return status is None

    def failed(self, how: str) -> DemoError:
        """The error that says so, with the process's last words."""
        last = self._log.read_text(errors="replace").strip().splitlines()[-5:]
        return DemoError("\n".join([f"the {self.name} {how}; it said last:", *last]))

    def wait(self) -> None:
        """Wait until it ends. Raises `DemoError` if it doesn't, or fails."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        if self.running:
            raise self.failed("doesn't end")

    def stop(self) -> None:
        """Have it stop in good order. Raises `DemoError` if it doesn't."""
        self._process.terminate()
        self.wait()

    def end(self) -> None:
        """End it, whatever state it is in."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Screen:
    """What is seen while the loop runs: the latest decisions live, or now and then a line."""

    def __init__(self, console: Console, signals: int, closes: int) -> None:
        self._console = console
        self._latest: deque[str] = deque(maxlen=LINES)
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._decided = self._bars.add_task("decisions", total=signals)
        self._learned = self._bars.add_task("outcomes", total=closes)
        self._said = 0

    def show(self, decision: str) -> None:
        """Put a decision on the screen."""
        self._latest.append(decision)

    def progress(self, decided: int, learned: int) -> None:
        """Say how far it is."""
        self._bars.update(self._decided, completed=decided)
        self._bars.update(self._learned, completed=learned)
        if not self._console.is_terminal and decided // 1_000 > self._said:
            self._said = decided // 1_000
            self._console.print(f"{decided:>6}: {self._latest[-1]}", soft_wrap=True)

    def __rich__(self) -> Group:
        latest = Text("\n".join(self._latest), no_wrap=True, overflow="ellipsis")
        return Group(Panel(latest, title="decisions", height=LINES + 2), self._bars)


def follow(
    client: Client, worker: Child, bot: Child, screen: Screen
) -> Iterator[Decision | Outcome]:
    """Decisions and outcomes as they come, from the first on, while all goes well."""
    after_decision = after_outcome = "0-0"
    decided = learned = 0
    deadline = monotonic() + PATIENCE_S
    while True:
        before = decided + learned
        for decision in islice(client.decisions(after_decision, timeout=0.1), SLICE):
            decided, after_decision = decided + 1, decision.decision_id
            yield decision
        for position, outcome in islice(client.outcomes(after_outcome, timeout=0.1), SLICE):
            learned, after_outcome = learned + 1, position
            yield outcome
        screen.progress(decided, learned)
        if decided + learned > before:
            deadline = monotonic() + PATIENCE_S
        # Asked of both: a bot may have finished, but it may not have failed.
        elif not bot.running and not worker.running:
            raise worker.failed("ended by itself")
        elif monotonic() > deadline:
            raise worker.failed(f"has done nothing for {PATIENCE_S:.0f} s")


def run(folder: Path, bars: str, console: Console) -> None:
    """Run the loop in `folder` and sum it up. Raises `DemoError` when anything goes wrong."""
    begun = monotonic()
    address = f"embedded://{folder / 'server'}"
    closeloop = Path(sys.executable).with_name("closeloop")
    with ExitStack() as ends:
        with console.status("starting the server, the worker and the bot"):
            client = ends.enter_context(Client(address))
            worker = Child("worker", [closeloop, "run", "--address", address], folder)
            ends.callback(worker.end)
            bot = Child("bot", [sys.executable, BOT, address, "--bars", bars], folder)
            ends.callback(bot.end)
            published = events(*map(load, FREQUENCIES[bars]))
        signals = [event.signal_id for event in published if isinstance(event, Signal)]
        closes = len(published) - len(signals)

        report, learned = Report(), 0
        screen = Screen(console, len(signals), closes)
        with Live(screen, console=console) if console.is_terminal else nullcontext():
            for output in follow(client, worker, bot, screen):
                if isinstance(output, Decision):
                    report.actions[output.action] += 1
                    screen.show(line(output))
                else:
                    learned += 1
                    report.add(output)
                if report.actions.total() >= len(signals) and learned >= closes:
                    break
            screen.progress(report.actions.total(), learned)
        seconds = monotonic() - begun
        with console.status("stopping the worker: it takes a last snapshot"):
            bot.wait()
            worker.stop()

        # The worker has ended: what is there now is all there will be.
        decided = [decision.signal_id for decision in client.decisions("0-0", timeout=0.1)]
        alerts = Counter(alert.code for _, alert in client.alerts("0-0", timeout=0.1))
        with connect(address) as connection:
            dead = connection.redis.xlen(Keys().dead)

    counts = Table(show_header=False)
    counts.add_row("events", f"{len(published):,} in {seconds:.1f} s")
    counts.add_row("signals", f"{len(signals):,}")
    counts.add_row("closes", f"{closes:,}")
    counts.add_row("decisions", f"{len(decided):,}: {_counted(report.actions)}")
    counts.add_row("dead letters", f"{dead:,}")
    counts.add_row("drifts", f"{alerts['drift']:,}")
    installed, rejected = alerts["refit_installed"], alerts["refit_rejected"]
    counts.add_row("refits", f"{installed:,} installed, {rejected:,} rejected")
    counts.add_row("alerts", f"{alerts.total():,}")
    console.print(counts)
    if decided != signals:
        missing, extra = Counter(signals) - Counter(decided), Counter(decided) - Counter(signals)
        raise DemoError(
            f"{missing.total()} decisions are missing and {extra.total()} are too many, "
            "or they aren't in the order of the signals"
        )
    if dead:
        raise DemoError(f"{dead} events were refused, though all were valid")
    console.print("After the first tenth of the closes:", _worth(report.summary()))


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common())


def _worth(figures: Mapping[str, Any]) -> Table:
    """What the probabilities, and the decisions, were worth."""
    table = Table("", "closeloop", "without it")
    base_rate = f"{figures['base_rate_log_loss']:.4f} (base rate)"
    table.add_row("log loss", f"{figures['log_loss']:.4f}", base_rate)
    table.add_row("AUC", f"{figures['auc']:.3f}", "0.500")
    taken, offered = figures["taken"], figures["offered"]
    for name, key, form in (
        ("trades taken", "count", "{:,}"),
        ("won", "win_rate", "{:.1%}"),
        ("mean return", "avg_return_pct", "{:+.3f} %"),
    ):
        shown = (
            form.format(trades[key]) if trades["count"] else "-" for trades in (taken, offered)
        )
        table.add_row(name, *shown)
    return table


def main() -> int:
    """Run the demo; the exit status is 0 only if all went well."""
    parser = argparse.ArgumentParser(description="The whole loop on this machine, in a minute.")
    parser.add_argument("--bars", choices=FREQUENCIES, default="both")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for the data")
    options = parser.parse_args()
    for number in INTERRUPTS:
        signal.signal(number, _interrupted)
    console = Console(highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="closeloop-demo-") as scratch:
            if options.keep:
                options.keep.mkdir(parents=True)
            run((options.keep or Path(scratch)).resolve(), options.bars, console)
    except (DemoError, StreamError, FileExistsError) as error:
        Console(stderr=True).print(f"demo: {error}", markup=False)
        return 1
    return 0


def _interrupted(number: int, _: object) -> None:
    """Leave, and end our processes on the way: another Ctrl-C must not leave them behind."""
    for each in INTERRUPTS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
