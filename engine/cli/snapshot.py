"""`closeloop snapshots`: list them, show one, verify them, go back to an older one."""

from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from engine.bootstrap import keys_of, store_of
from engine.cli.options import (
    AddressOption,
    ConfigOption,
    JsonOption,
    print_json,
    print_table,
    progress,
    results,
    settings,
)
from engine.config import Config
from engine.recovery import unusable
from snapshots import (
    PassedOver,
    SnapshotDamaged,
    SnapshotError,
    SnapshotForeign,
    SnapshotIncompatible,
    SnapshotInfo,
    SnapshotStore,
    state_digest,
)
from streams import LeaseHeld, RedisTransport, connect

SET_ASIDE = "set-aside"
"""The folder in the snapshots' folder that `restore` moves the newer ones to."""

_Id = Annotated[str, typer.Argument(metavar="ID", help="Its ID, or enough of it to tell.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(help="List, show, verify and restore snapshots.", no_args_is_help=True)
    group.command("list")(list_all)
    group.command("show")(show)
    group.command("verify")(verify)
    group.command("restore")(restore)
    app.add_typer(group, name="snapshots")


def list_all(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the snapshots, newest first, with what they claim to be. Proves nothing: see verify."""
    found = store_of(settings(config)).list()
    infos = [info for info in found if isinstance(info, SnapshotInfo)]
    unreadable = [info for info in found if isinstance(info, PassedOver)]
    if as_json:
        listed = [_row(info) for info in infos]
        damaged = [{"file": str(p.path), "error": str(p.error)} for p in unreadable]
        print_json({"snapshots": listed, "damaged": damaged})
        return
    rows: list[list[object]] = [
        [
            info.snapshot_id,
            info.manifest.created[:16].replace("T", " "),
            info.manifest.events,
            f"{info.size / 2**20:,.1f} MiB",
        ]
        for info in infos
    ]
    rows += [[passed.path.stem, "damaged", None, None] for passed in unreadable]
    print_table("snapshots", ["id", "created, UTC", "events", "size"], rows)


def show(snapshot: _Id, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show a snapshot's manifest: what it is of, what it was made with, what its parts are."""
    info = _find(store_of(settings(config)), snapshot)
    manifest = info.manifest.model_dump(mode="json")
    if as_json:
        print_json(_row(info) | {"manifest": manifest})
        return
    table = Table("", Column(info.snapshot_id, overflow="fold"))
    table.add_row("file", Text(str(info.path)))
    for name, value in manifest.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = "\n".join(f"{part['name']}: {part['size']:,} bytes" for part in value)
        table.add_row(name, Text(str(value)))
    results().print(table)


def verify(
    snapshot: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Its ID, or enough of it to tell; without, all."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove snapshots: every byte against the digest and the signature, the state against its own.

    One that is whole but was made with other libraries or settings is no failure: it is passed over
    and the state rebuilt from the stream. The exit status is 1 when one is damaged, or signed with
    another key.
    """
    chosen = settings(config)
    store = store_of(chosen)
    entries = store.list() if snapshot is None else (_find(store, snapshot),)
    with progress() as bar:
        verdicts = [
            (entry.path.stem, *_verdict(store, entry, chosen))
            for entry in bar.track(entries, description="verifying")
        ]
    if as_json:
        print_json([{"id": id_, "ok": ok, "verdict": said} for id_, ok, said in verdicts])
    else:
        table = Table("id", Column("verdict", overflow="fold"))
        for id_, _, said in verdicts:
            table.add_row(id_, Text(said))
        results().print(table)
    if not all(ok for _, ok, _ in verdicts):
        raise typer.Exit(1)


def restore(
    snapshot: _Id,
    force: Annotated[
        bool, typer.Option("--force", help="Even if a worker runs, or the stream is too short.")
    ] = False,
    config: ConfigOption = None,
    address: AddressOption = None,
) -> None:
    """Make an older snapshot the one that the next start recovers from.

    The newer ones are moved into the folder set-aside beside them; nothing is deleted, and moving
    them back undoes it. The next `closeloop run` loads this snapshot, applies everything after it
    again from the stream without publishing, and goes on at the checkpoint. So no decision changes
    and nothing is learned twice: this is for when newer snapshots are not to be trusted, not for
    taking back what was learned.

    Refused while a worker holds the lease, and when the stream no longer reaches back to the
    snapshot.
    """
    chosen = settings(config, address)
    store = store_of(chosen)
    info = _find(store, snapshot)
    store.load(info.path, config_digest=chosen.core.digest)
    if not force:
        _require_restorable(chosen, info)
    newer = []
    for entry in store.list():
        if entry.path == info.path:
            break
        newer.append(entry.path)
    aside = store.directory / SET_ASIDE
    if newer:
        aside.mkdir(exist_ok=True)
    for path in newer:
        path.rename(aside / path.name)
    typer.echo(f"set aside in {aside}: {len(newer)}" if newer else "it is the newest")
    typer.echo(f"the next start loads {info.snapshot_id}")
    typer.echo(f"and applies again what came after {info.manifest.position}")


def _require_restorable(config: Config, info: SnapshotInfo) -> None:
    """Raise unless no worker runs and recovery could start from the snapshot."""
    with connect(config.stream.address) as connection:
        keys = keys_of(config)
        if connection.retrying(lambda: connection.redis.exists(keys.lease)):
            raise LeaseHeld(
                f"a worker holds {keys.lease} and would go on from where it is; stop it, wait for "
                "its lease to end, or use --force"
            )
        reason = unusable(info.manifest, RedisTransport(connection, keys))
        if reason is not None:
            raise SnapshotIncompatible(f"{info.path}: {reason}; choose another, or use --force")


def _row(info: SnapshotInfo) -> dict[str, object]:
    manifest = info.manifest
    return {
        "id": info.snapshot_id,
        "created": manifest.created,
        "events": manifest.events,
        "position": manifest.position,
        "size": info.size,
        "file": str(info.path),
        "file_digest": info.file_digest,
    }


def _find(store: SnapshotStore, wanted: str) -> SnapshotInfo:
    found = [
        info
        for info in store.list()
        if isinstance(info, SnapshotInfo) and wanted in info.snapshot_id
    ]
    exact = [info for info in found if info.snapshot_id == wanted]
    if len(exact or found) != 1:
        many = f"{len(found)} snapshots have" if found else "no snapshot has"
        raise SnapshotError(
            f"{many} {wanted!r} in its ID in {store.directory}; see `closeloop snapshots list`"
        )
    return (exact or found)[0]


def _verdict(
    store: SnapshotStore, entry: SnapshotInfo | PassedOver, config: Config
) -> tuple[bool, str]:
    """Whether a snapshot is what was written, and what to say of it."""
    if isinstance(entry, PassedOver):
        return False, f"damaged: {entry.error}"
    try:
        loaded = store.load(entry.path, config_digest=config.core.digest)
    except SnapshotDamaged as error:
        return False, f"damaged: {error}"
    except SnapshotForeign as error:
        return False, f"foreign: {error}"
    except SnapshotIncompatible as error:
        return True, f"whole, of another set-up: {error}"
    if state_digest(loaded.tree) != loaded.manifest.state_digest:
        return False, "the state doesn't have its digest"
    return True, "whole"
