"""The files of a stage, as a device keeps them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # a store knows no bundles
    from tvmpipe.manifest import FileEntry, StageEntry


class StoredFile(NamedTuple):
    """A file by its sha256, the suffix it is kept under, and its size."""

    sha256: str
    suffix: str
    size_bytes: int


def stored_files(stage: StageEntry) -> dict[StoredFile, FileEntry]:
    """The files of a stage as a store keeps them: its library, then its weights, each under the suffix it has."""
    return {
        StoredFile(entry.sha256, PurePosixPath(entry.path).suffix, entry.size_bytes): entry
        for entry in (stage.library, *stage.weight_files)
    }
