"""The command line, `closeloop COMMAND`: a module a group of commands; errors become one line here.

Exit status: 0 done; 1 a check failed (`doctor`, `audit`, `drill`, `snapshots verify`); 2 bad usage
or configuration; 3 the server can't be reached or used; 4 a tape can't be read; 5 the shard's lease
is lost or held by another worker; 6 the state can't be recovered; 130 interrupted.
"""

import sys

import typer

from engine.api.listening import HttpError
from engine.cli import (
    audit,
    compare,
    control,
    drill,
    evaluate,
    features,
    importing,
    live,
    models,
    notify,
    proof,
    rollout,
    setup,
    snapshot,
    tape,
    tune,
)
from engine.config import ConfigError
from engine.recovery import RecoveryError
from snapshots import SnapshotError
from streams import AddressError, LeaseHeld, LeaseLost, StreamError, TapeError

app = typer.Typer(
    name="closeloop",
    help="A streaming online-learning engine for trading bots.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
live.add_to(app)
tape.add_to(app)
proof.add_to(app)
snapshot.add_to(app)
control.add_to(app)
rollout.add_to(app)
models.add_to(app)
notify.add_to(app)
drill.add_to(app)
audit.add_to(app)
compare.add_to(app)
evaluate.add_to(app)
importing.add_to(app)
setup.add_to(app)
features.add_to(app)
tune.add_to(app)

# The first match counts.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ConfigError, 2),
    (HttpError, 2),
    (AddressError, 2),
    (TapeError, 4),
    (LeaseHeld, 5),
    (LeaseLost, 5),
    (StreamError, 3),
    (RecoveryError, 6),
    (SnapshotError, 6),
)


def main() -> None:
    """Run the command line; what users can mend is one line on standard error."""
    try:
        app()
    except tuple(kind for kind, _ in _STATUS) as error:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        print(f"closeloop: {error}", file=sys.stderr)  # noqa: T201 - the command line prints
        sys.exit(status)
