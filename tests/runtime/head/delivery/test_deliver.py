"""Agents get their files from the head and from each other, once, and go on where a head was killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import tvmpipe
from tests.models import chain, save
from tests.waiting import PATIENCE_S
from tvmpipe.bundle import Bundle
from tvmpipe.commands.progress import describe_delivery
from tvmpipe.errors import DeviceError
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.device.stored_file import stored_files
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.head.delivery.progress import DeviceProgress
from tvmpipe.targets.description.cluster import parse_cluster

KEYS = ("alpha", "beta", "gamma")


def file_bytes(bundle: Bundle) -> int:
    """The libraries and weights of all plans, each once."""
    stages = [stage for plan in bundle.manifest.plans for stage in plan.stages]
    return sum(one.size_bytes for one in {one for stage in stages for one in stored_files(stage)})


def test_what_all_devices_need_is_sent_once(spare_bundle: Bundle, tmp_path: Path) -> None:
    """With failover each device has what it needs for any plan, which is nearly everything."""
    told: list[Sequence[DeviceProgress]] = []
    with local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster:
        with tvmpipe.connect(spare_bundle, cluster.tracker, failover=True, on_delivery=told.append) as pipe:
            assert pipe.sent_bytes == file_bytes(spare_bundle)
        kept = sum(path.stat().st_size for path in tmp_path.rglob("*.*") if path.is_file())
        assert kept > 1.5 * file_bytes(spare_bundle)
        assert sum(one.wanted_bytes for one in told[-1]) == kept
        assert sum(one.from_devices_bytes for one in told[-1]) == kept - file_bytes(spare_bundle)
        assert all(one.received_bytes == one.wanted_bytes for one in told[-1])
        with tvmpipe.connect(spare_bundle, cluster.tracker, failover=True) as pipe:
            assert pipe.sent_bytes == 0


_KILLED = """
import os, sys, time
import tvmpipe
from tvmpipe.runtime.head.delivery.chunk_server import ChunkServer

count = ChunkServer._count
def count_and_end(self, name, chunk):
    count(self, name, chunk)
    if self.received_bytes(name) > 8 << 20:
        os.kill(os.getpid(), 9)
ChunkServer._count = count_and_end
tvmpipe.connect(*sys.argv[1:])
"""


def test_a_head_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    model = chain(layers=2, width=2048)
    bundle = tvmpipe.build(save(model, tmp_path), parse_cluster('[[device]]\nname = "alpha"\nthreads = 1\n'))
    path = bundle.save(tmp_path / "bundle")
    size = file_bytes(bundle)
    assert size > 32 << 20
    with local_cluster([LocalAgent("alpha")], store=tmp_path / "store") as cluster:
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, str(path), cluster.tracker], check=False, timeout=PATIENCE_S
        )
        assert killed.returncode == -9
        with tvmpipe.connect(bundle, cluster.tracker, wait_s=PATIENCE_S) as pipe:
            assert 0 < pipe.sent_bytes <= size - (8 << 20)
            x = np.random.default_rng(0).standard_normal((4, 2048), dtype=np.float32)
            assert Reference(model.SerializeToString()).compare(pipe.run({"x": x}), {"x": x}).equal


def test_what_the_callback_raises_is_raised(spare_bundle: Bundle, tmp_path: Path) -> None:
    def broken(_: Sequence[DeviceProgress]) -> None:
        raise ZeroDivisionError("of the caller's")

    with (
        local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster,
        pytest.raises((ZeroDivisionError, DeviceError), match="of the caller's"),
    ):
        tvmpipe.connect(spare_bundle, cluster.tracker, on_delivery=broken)


def test_progress_in_words() -> None:
    assert describe_delivery(DeviceProgress("pi4", 600 << 20, 0, 0, 0.0)) == "pi4: 0 B of 600.0 MiB of its files"
    assert describe_delivery(DeviceProgress("pi4", 600 << 20, 120 << 20, 0, 10.0)) == (
        "pi4: 120.0 MiB of 600.0 MiB of its files, 12.0 MiB/s, about 40.00 s left"
    )
