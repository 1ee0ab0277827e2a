"""An Arm device beside an x86-64 one: a real aarch64 Python with TVM's aarch64 wheel, run by qemu-user."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import tvmpipe
from tests.arm_userland import ArmUserland, UnavailableError, arm_userland
from tests.models import branchy, save
from tests.runtime.processes import stage_host
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import compare
from tvmpipe.process import die_with_parent
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.transport.tracker import wait_for_keys

PATIENCE_S = 180.0  # what the emulator makes of some seconds, on a machine that does other things too

CLUSTER = """
[[device]]
name = "desk"
threads = 1

[[device]]
name = "pi"
target = "pi4"
threads = 2
"""


@pytest.fixture(scope="module")
def userland(pytestconfig: pytest.Config) -> ArmUserland:
    assert pytestconfig.cache is not None
    try:
        return arm_userland(Path(pytestconfig.cache.mkdir("arm_userland")))
    except UnavailableError as error:
        pytest.skip(f"there can be no Arm device: {error}")


@pytest.fixture
def spread(tmp_path: Path) -> Bundle:
    """`branchy` over both devices, there and back, and a plan for each of them alone."""
    from tvmpipe.passes import driver

    model, cluster = save(branchy(), tmp_path), tmp_path / "cluster.toml"
    cluster.write_text(CLUSTER)
    names = list(driver.front(model).graph.by_name())
    plan = tmp_path / "plan.yaml"
    plan.write_text("placement:\n" + "".join(f"  {name}: {('desk', 'pi')[i % 2]}\n" for i, name in enumerate(names)))
    return tvmpipe.build(model, cluster, plan=plan, failover=True)


@pytest.fixture
def pi(userland: ArmUserland, tmp_path: Path) -> Iterator[tuple[LocalCluster, subprocess.Popen[bytes]]]:
    """A tracker with an x86-64 agent, `desk`, and an aarch64 one, `pi`, of which the process is given too."""
    with local_cluster([LocalAgent("desk")], store=tmp_path / "store") as cluster, (tmp_path / "log").open("wb") as log:
        options = ["--tracker", cluster.tracker, "--key", "pi", "--threads", "2", "--store", str(tmp_path / "pi")]
        process = subprocess.Popen(
            [userland.python, "-m", "tvmpipe", "agent", *options],
            env=userland.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            wait_for_keys(cluster.tracker, ["pi"], PATIENCE_S)
            yield cluster, process
        finally:
            _cut_power(process)


def _cut_power(agent: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(agent.pid, signal.SIGKILL)
    agent.wait()


def _mapped(pid: int) -> str:
    """The files that a process has mapped; nothing of a session that was closed meanwhile."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_pipeline_of_x86_and_arm_goes_on_with_arm_alone(
    spread: Bundle, pi: tuple[LocalCluster, subprocess.Popen[bytes]]
) -> None:
    cluster, agent = pi
    samples = random_samples(spread.manifest, 16, seed=5)
    reference = Reference(branchy().SerializeToString())
    with tvmpipe.connect(
        spread,
        cluster.tracker,
        inflight=4,
        failover=True,
        connect_timeout_s=PATIENCE_S,
        start_timeout_s=PATIENCE_S,
        recover_s=PATIENCE_S,
    ) as pipe:
        assert set(pipe.devices) == {"desk", "pi"}
        main = psutil.Process(agent.pid)
        mapped = {process.pid: _mapped(process.pid) for process in (main, *main.children(recursive=True))}
        running = {pid: files for pid, files in mapped.items() if files}
        assert len(running) >= 3, "the agent, its RPC server and a stage host"
        assert all("aarch64-linux-gnu" in files for files in running.values())
        assert not any("libtvm_compiler" in files for files in running.values())
        assert "libtvm_runtime.so" in running[stage_host(main).pid]

        for number, (result, sample) in enumerate(zip(pipe.stream(samples), samples, strict=True)):
            assert compare(result, reference.expect(sample)).equal, number
            if number == 5:
                cluster.kill("desk")
        assert pipe.devices == ("pi",)
