"""Hashes of files, and whether one can be written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tvmpipe.errors import InputError


def hash_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk, so that a file that was renamed there is there after a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path, what: str) -> None:
    """Refuse before long work what could not be written after it. Raises InputError."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{what} {path} is not a file in a folder that exists and may be written to")
