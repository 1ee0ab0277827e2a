"""What processes have in memory, each piece once however many of them share it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+)\s*(.*)")


@dataclass(frozen=True)
class Resident:
    """Bytes of a process that are in memory: its own, and those of each file that it has mapped."""

    own_bytes: int
    file_bytes: dict[str, int]

    @property
    def all_bytes(self) -> int:
        """What Linux calls its resident set."""
        return self.own_bytes + sum(self.file_bytes.values())


def resident(pid: int) -> Resident:
    """Of a process. Raises OSError when it has ended."""
    own, files, mapped = 0, dict[str, int](), ""
    with Path(f"/proc/{pid}/smaps").open(encoding="utf-8", errors="replace") as lines:
        rss = 0
        for line in lines:
            if mapping := _MAPPING.match(line):
                mapped = mapping[2] if mapping[1] != "0" else ""
            elif line.startswith("Rss:"):
                rss = int(line.split()[1]) * 1024
            elif line.startswith("Anonymous:"):
                anonymous = int(line.split()[1]) * 1024
                own += anonymous
                if mapped:
                    files[mapped] = files.get(mapped, 0) + rss - anonymous
    return Resident(own, files)


def together(processes: Iterable[Resident]) -> int:
    """Bytes of processes on a machine of their own: what each has for itself, and each file once."""
    own, files = 0, dict[str, int]()
    for process in processes:
        own += process.own_bytes
        for name, size in process.file_bytes.items():
            files[name] = max(size, files.get(name, 0))
    return own + sum(files.values())
