"""A head on a system that is not Linux, as far as that can be tried on Linux: without what only Linux has.

Files below /proc and /sys cannot be read, functions that macOS lacks are gone, and nothing says whose a connection is.
It compiles, and runs a pipeline on agents of Linux with a cluster key.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.models import chain, save
from tests.waiting import PATIENCE_S
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.security.keys import ClusterKey

_CLUSTER = '[[device]]\nname = "alpha"\nthreads = 1\n[[device]]\nname = "beta"\nthreads = 1\n'

_HEAD = """
import ctypes, json, os, select, signal, socket, sys

for module, names in (
    (os, ("sched_getaffinity", "sched_setaffinity", "posix_fallocate", "fdatasync", "memfd_create", "splice")),
    (socket, ("TCP_KEEPIDLE", "TCP_INFO", "TCP_USER_TIMEOUT", "SO_PEERCRED", "SO_BINDTODEVICE")),
    (select, ("epoll",)),
    (signal, ("SIGRTMIN",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

tried = set()

def without_linux(event, arguments):
    if event != "open" or not isinstance(arguments[0], str) or not arguments[0].startswith(("/proc/", "/sys/")):
        return
    frame, files = sys._getframe(1), []
    while frame is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    if any("tvmpipe/" in name for name in files[:6]) and not any("psutil" in name for name in files):
        tried.add(arguments[0])
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

import sysconfig, onnx, onnxruntime, onnxslim, psutil, pulp, pydantic, rich.console, tvm, xgboost, zmq
from pydantic import BaseModel
from tvm import relax
sysconfig.get_config_vars()
sys.platform = "darwin"  # libraries have looked at it already
import tvmpipe.runtime.security.peer_owner as peer_owner
from pathlib import Path
peer_owner._TABLES = (Path("/nonexistent/tcp"),)
sys.addaudithook(without_linux)

import numpy as np
import tvmpipe
from tests.models import chain
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import compare
from tvmpipe.reference.results import Reference

model, cluster, tracker, key = sys.argv[1:]
bundle = tvmpipe.build(model, cluster, failover=True)
reference = Reference(chain().SerializeToString())
samples = random_samples(bundle.manifest, 8, seed=1)
with tvmpipe.connect(bundle, tracker, cluster_key=key, failover=True, connect_timeout_s=30) as pipe:
    results = list(pipe.stream(samples))
    facts = {"devices": list(pipe.devices), "sent": pipe.sent_bytes}
facts["equal"] = [compare(r, reference.expect(s)).equal for r, s in zip(results, samples, strict=True)]
facts["tried"] = sorted(tried)
print(json.dumps(facts))
"""


def test_a_head_needs_nothing_of_linux(tmp_path: Path) -> None:
    model, key = save(chain(), tmp_path), tmp_path / "key"
    ClusterKey.generate(key)
    (tmp_path / "cluster.toml").write_text(_CLUSTER)
    agents = [LocalAgent(name, options=("--cluster-key", str(key))) for name in ("alpha", "beta")]
    with local_cluster(agents, store=tmp_path / "store") as cluster:
        done = subprocess.run(
            [sys.executable, "-c", _HEAD, str(model), str(tmp_path / "cluster.toml"), cluster.tracker, str(key)],
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["equal"] == [True] * 8
    assert facts["sent"] > 0
