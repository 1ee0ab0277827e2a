"""The processes of an agent."""

from __future__ import annotations

import psutil


def stage_host(agent: psutil.Process) -> psutil.Process:
    """The one living process below an agent that hosts stages; those that have ended meanwhile are passed over."""
    (host,) = (process for process in agent.children(recursive=True) if _hosts(process))
    return host


def _hosts(process: psutil.Process) -> bool:
    try:
        return any("host_process" in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
