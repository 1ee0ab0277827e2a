"""What a device keeps: files by the sha256 of their bytes, so that nothing is sent twice."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

from tvmpipe.files import hash_file
from tvmpipe.runtime.process import cache_folder


def default_store() -> Path:
    """Where an agent keeps files unless told otherwise."""
    return cache_folder() / "tvmpipe" / "store"


class Store:
    """A directory of files named by their sha256. A file appears only when its bytes have been checked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str, suffix: str) -> Path:
        """Where the file with this hash lies or would lie."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not re.fullmatch(r"\.[a-z]+", suffix):
            raise ValueError("a file of the store is named by 64 hex digits and a suffix")
        return self.root / (sha256 + suffix)

    def has(self, sha256: str, suffix: str) -> bool:
        """Whether the file is there."""
        return self.path(sha256, suffix).is_file()

    def append(self, sha256: str, suffix: str, chunk: bytes) -> None:
        """Add the next bytes of a file that this process is receiving."""
        with self._partial(sha256, suffix).open("ab") as out:
            out.write(chunk)

    def commit(self, sha256: str, suffix: str) -> None:
        """Keep the file whose bytes have all been appended. Raises ValueError when their hash differs."""
        partial = self._partial(sha256, suffix)
        received = hash_file(partial)
        if received != sha256:
            partial.unlink()
            raise ValueError(f"the bytes received have sha256 {received}, not {sha256}")
        os.replace(partial, self.path(sha256, suffix))

    def clean(self) -> None:
        """Remove what transfers have left whose process is gone; another agent may share this folder."""
        for partial in self.root.glob(".part-*"):
            process = partial.name.split("-")[1]
            if not process.isdigit() or not psutil.pid_exists(int(process)):
                partial.unlink(missing_ok=True)

    def _partial(self, sha256: str, suffix: str) -> Path:
        return self.root / f".part-{os.getpid()}-{self.path(sha256, suffix).name}"
