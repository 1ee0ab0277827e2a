"""The processes of an agent."""

from __future__ import annotations

import time
from typing import Any

import psutil

from tests.waiting import PATIENCE_S
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.tools.cluster_status import device_with_key
from tvmpipe.runtime.transport.rpc_session import open_session
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog


def stage_host(agent: psutil.Process) -> psutil.Process:
    """The one living process below an agent that hosts stages; those that have ended meanwhile are passed over."""
    (host,) = (process for process in agent.children(recursive=True) if _hosts(process))
    return host


def _hosts(process: psutil.Process) -> bool:
    try:
        return any("host_process" in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def agent_facts(cluster: LocalCluster, key: str) -> dict[str, Any]:
    """What the agent with a key says of itself."""
    watchdog = Watchdog()
    try:
        with Tracker(cluster.tracker) as tracker:
            session = open_session(tracker, device_with_key(key), watchdog, time.monotonic() + PATIENCE_S)
        try:
            agent = AgentClient.of(session)
            assert agent is not None
            return agent.facts.to_dict()
        finally:
            session.close()
    finally:
        watchdog.stop()


def rpc_port(cluster: LocalCluster, name: str) -> int:
    """Where TVM's own server of an agent listens: not in the agent's main process, which has the TLS server."""
    agent = psutil.Process(cluster.process(name).pid)
    (port,) = (
        connection.laddr.port
        for process in agent.children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    )
    return int(port)


def listening(process: int) -> list[int]:
    """The TCP ports that a process listens on."""
    connections = psutil.Process(process).net_connections("tcp")
    return [one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN]
