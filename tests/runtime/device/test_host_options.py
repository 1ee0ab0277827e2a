"""What an agent tells its processes arrives as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.device.rpc_process import RpcServerOptions
from tvmpipe.runtime.emulation.options import Emulation
from tvmpipe.runtime.emulation.speed_probe import ReferenceLoop

SLOW = Emulation(4.0, 1e6, 0.001, ReferenceLoop("pi4", Path("/a/loop.so"), ((1, 16), (16,)), 0.5))


@pytest.mark.parametrize(
    ("key", "emulation"), [(None, Emulation()), (Path("/a/key"), SLOW)], ids=["plain", "emulating"]
)
def test_options_travel_as_json(key: Path | None, emulation: Emulation) -> None:
    host = HostOptions("::", 9200, Path("/a/store"), 1 << 30, key, emulation, 1 << 20)
    assert HostOptions.from_facts(json.loads(json.dumps(host.facts()))) == host
    shown = None if key is None else ("::", 9091)
    server = RpcServerOptions("127.0.0.1", 19091, 20091, ("desk", 9190), "pi", shown, Path("/tmp/a"), host, "ff")
    assert RpcServerOptions.from_facts(json.loads(json.dumps(server.facts()))) == server
