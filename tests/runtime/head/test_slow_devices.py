"""Devices that take long to start Python, as small boards do: a pause before anything else in each stage host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import tvmpipe
from tests.runtime.processes import agent_facts
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster

KEYS = ("alpha", "beta", "gamma")
SLOW_S = 8.0
SITE = """
import sys, time
if any(word.endswith("host_process") for word in sys.orig_argv):
    time.sleep({seconds})
"""


@contextmanager
def slow_cluster(folder: Path, seconds: float) -> Iterator[LocalCluster]:
    """Agents whose stage hosts start with a pause; nothing in the product knows of it."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(seconds=seconds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=":")
        with local_cluster([LocalAgent(key) for key in KEYS], store=folder / "store") as cluster:
            yield cluster


def test_a_slow_device_gets_the_time_it_needs_to_start(chain_bundle: Bundle, tmp_path: Path) -> None:
    """More than finding a device may take."""
    with (
        slow_cluster(tmp_path, SLOW_S) as cluster,
        tvmpipe.connect(chain_bundle, cluster.tracker, connect_timeout_s=SLOW_S / 2) as pipe,
    ):
        pipe.run({"x": np.ones((4, 256), np.float32)})


def test_what_was_waited_for_is_said_and_the_next_try_goes_on_with_it(chain_bundle: Bundle, tmp_path: Path) -> None:
    with slow_cluster(tmp_path, SLOW_S) as cluster:
        said = (
            r"device \w+ did not get its stages ready: starting may take 1\.50 s \(--start-timeout\); "
            r"so far it took for starting Python 1\.\d+ s"
        )
        for _ in range(2):
            with pytest.raises(DeviceError, match=said):
                tvmpipe.connect(chain_bundle, cluster.tracker, start_timeout_s=1.5)
        pids = {key: agent_facts(cluster, key)["host_pid"] for key in KEYS}
        assert [agent_facts(cluster, key)["held_by"] for key in KEYS] == [None] * 3
        with tvmpipe.connect(chain_bundle, cluster.tracker) as pipe:
            pipe.run({"x": np.ones((4, 256), np.float32)})
            assert {key: agent_facts(cluster, key)["host_pid"] for key in KEYS} == pids
        wait_until(lambda: all(agent_facts(cluster, key)["host"] is None for key in KEYS))


def test_a_stage_that_takes_long_to_load_is_told_from_a_slow_start(chain_bundle: Bundle, tmp_path: Path) -> None:
    with slow_cluster(tmp_path, 0.0) as cluster:
        site = tmp_path / "site" / "sitecustomize.py"
        site.write_text(LOADS_SLOWLY)
        with pytest.raises(
            DeviceError,
            match=r"loading may take 8\.\d* s \(--start-timeout\); so far it took .*importing TVM .*, loading stages 8",
        ):
            tvmpipe.connect(chain_bundle, cluster.tracker, start_timeout_s=8.0)


LOADS_SLOWLY = """
import sys, threading, time
if any(word.endswith("host_process") for word in sys.orig_argv):
    def slow():
        while not hasattr(sys.modules.get("tvmpipe.runtime.device.load_stages"), "LoadedStages"):
            time.sleep(0.001)
        sys.modules["tvmpipe.runtime.device.load_stages"].LoadedStages.__init__ = lambda *_: time.sleep(60)
    threading.Thread(target=slow, daemon=True).start()
"""


def test_a_slow_device_goes_on_though_its_head_has_little_patience_for_calls(
    chain_bundle: Bundle, tmp_path: Path
) -> None:
    """A call to a device, and a stage, may take `timeout_s`; that it starts is not one."""
    with (
        slow_cluster(tmp_path, SLOW_S / 2) as cluster,
        tvmpipe.connect(chain_bundle, cluster.tracker, timeout_s=SLOW_S / 4, connect_timeout_s=PATIENCE_S) as pipe,
    ):
        pipe.run({"x": np.ones((4, 256), np.float32)})
