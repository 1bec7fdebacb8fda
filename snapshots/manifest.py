"""The manifest of a snapshot: what it is of, what it was made with, what its parts are."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from snapshots.errors import SnapshotIncompatible

FORMAT = 1

PartName = Literal["document", "arrays", "objects"]


class Part(BaseModel):
    """One part of the file, in the order of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PartName
    size: int = Field(ge=0, description="in the file, compressed, in bytes")
    raw_size: int = Field(ge=0, description="decompressed, in bytes")
    sha256: str = Field(description="of the bytes in the file, hex")


class Manifest(BaseModel):
    """All that is known of a snapshot without loading it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(description="version of the file format")
    created: str = Field(description="when it was taken, RFC 3339 in UTC, as the caller said")
    libraries: dict[str, str] = Field(description="versions of all that its state depends on")
    config_digest: str
    lineage: str = Field(description="which run of events it belongs to")
    position: str | None = Field(description="the input ID up to which it holds everything")
    events: int = Field(ge=0)
    state_digest: str = Field(description="`state_digest` of its state")
    decisions_digest: str
    metrics: dict[str, JsonValue] = Field(description="for people; never read by the engine")
    parts: tuple[Part, ...]


@cache
def libraries() -> dict[str, str]:
    """The versions that a state depends on, here and now."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("closeloop", "lightgbm", "numpy", "river"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def require_compatible(manifest: Manifest, name: str, config_digest: str | None) -> None:
    """Raise `SnapshotIncompatible`, which says what differs, unless it fits this process."""
    here = libraries()
    differing = [
        f"{library} {manifest.libraries.get(library)} there and {here.get(library)} here"
        for library in sorted(here.keys() | manifest.libraries.keys())
        if manifest.libraries.get(library) != here.get(library)
    ]
    if config_digest is not None and manifest.config_digest != config_digest:
        differing.append(
            f"config {manifest.config_digest[:12]} there and {config_digest[:12]} here"
        )
    if differing:
        raise SnapshotIncompatible(
            f"{name} was made for another set-up: {'; '.join(differing)}. "
            "Go back to that set-up, or rebuild the state by replaying"
        )
