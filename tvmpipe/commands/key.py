"""`tvmpipe key`."""

from __future__ import annotations

from pathlib import Path

from tvmpipe.commands.outcome import Outcome
from tvmpipe.console import plain
from tvmpipe.runtime.security.keys import ClusterKey


def make_key(path: Path) -> Outcome:
    """Write a new cluster key to `path`. Raises InputError when the file exists or cannot be written."""
    key = ClusterKey.generate(path)
    view = plain(
        f"wrote {path} (fingerprint {key.fingerprint}); copy it to every machine of the cluster and to no other: "
        "whoever holds it can run code on all of them"
    )
    return Outcome({"path": str(path), "fingerprint": key.fingerprint}, view)
