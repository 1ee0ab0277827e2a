"""Control groups (v2) for stage hosts, where the agent may make them: they bound the memory that is in use.

https://docs.kernel.org/admin-guide/cgroup-v2.html. Under systemd that takes `Delegate=memory` in the agent's unit.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


class ControlGroup:
    """A control group (v2) of one stage host, below the agent's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._killed_before = 0

    def hold(self, pid: int, most_bytes: int) -> None:
        """Put a process into it, with so much memory in use. Raises OSError."""
        (self._folder / "memory.max").write_text(f"{most_bytes}\n")
        with contextlib.suppress(OSError):  # a kernel without swap
            (self._folder / "memory.swap.max").write_text("0\n")
        (self._folder / "memory.oom.group").write_text("1\n")
        (self._folder / "cgroup.procs").write_text(f"{pid}\n")
        self._killed_before = self._kills()

    @property
    def exceeded(self) -> bool:
        """Whether the system has ended a process of it for want of memory since `hold`."""
        return self._kills() > self._killed_before

    def close(self) -> None:
        """Remove it, when its processes have ended."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _kills(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            for line in (self._folder / "memory.events").read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        return 0


class ControlGroups:
    """The agent's own control group, with those of its hosts in it.

    Raises OSError where the agent may make none: there is no v2 with memory, or it is not delegated to this user.
    """

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> None:
        lines = process.read_text(encoding="utf-8").splitlines()
        own = next((line.partition("::")[2] for line in lines if line.startswith("0::")), None)
        if own is None:
            raise OSError(errno.ENOENT, "no control group of version 2")
        self._folder = root / own.strip("/")
        if "memory" not in (self._folder / "cgroup.controllers").read_text(encoding="ascii").split():
            raise OSError(errno.ENOENT, f"no memory controller in {self._folder}")
        if not os.access(self._folder / "cgroup.subtree_control", os.W_OK):
            raise OSError(errno.EACCES, f"{self._folder} is not delegated to this user")
        # A group whose memory is shared out holds no processes itself.
        mine = self._folder / "agent"
        mine.mkdir(exist_ok=True)
        (mine / "cgroup.procs").write_text(f"{os.getpid()}\n")
        (self._folder / "cgroup.subtree_control").write_text("+memory\n")

    def make(self, name: str) -> ControlGroup:
        """One for a host. Raises OSError."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return ControlGroup(folder)
