"""What several tests share: a model, a cluster file, compiled bundles, and running agents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tvmpipe
from tests.models import branchy, chain, save
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster

# Targets every x86-64 or aarch64 host can run; what differs is what a test needs to differ.
THREE = "".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in ("alpha", "beta", "gamma"))

_STARTS_AGENTS = re.compile(r"\b(agents|local_cluster|LocalAgent)\b")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal test files to workers whole, and those that start agents to two: they wait more than they compute.

    More at a time, and what they wait for would starve.
    """
    for item in items:
        agents = "agents of the head" if "head" in item.path.parts else "other agents"
        group = agents if _STARTS_AGENTS.search(Path(item.path).read_text()) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that this machine's user has measured or kept gets into a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def cluster_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three equal devices: alpha, beta, gamma."""
    path = tmp_path_factory.mktemp("cluster") / "cluster.toml"
    path.write_text(THREE)
    return path


@pytest.fixture(scope="session")
def branchy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(branchy(), tmp_path_factory.mktemp("branchy"))


@pytest.fixture(scope="session")
def chain_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(chain(), tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def spread_plan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, list[str]], Path]:
    """Writes a plan file that deals the primitives of a model to devices by a repeating pattern."""
    from tvmpipe.passes import driver

    folder = tmp_path_factory.mktemp("plans")
    names: dict[Path, list[str]] = {}

    def write(model: Path, pattern: list[str]) -> Path:
        if model not in names:
            names[model] = list(driver.front(model).graph.by_name())
        lines = [f"  {name}: {pattern[i % len(pattern)]}" for i, name in enumerate(names[model])]
        path = folder / f"plan{len(list(folder.iterdir()))}.yaml"
        path.write_text("placement:\n" + "\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def branchy_bundle(branchy_path: Path, cluster_path: Path, spread_plan: Callable[[Path, list[str]], Path]) -> Bundle:
    """`branchy` over three devices in many stages."""
    plan = spread_plan(branchy_path, ["alpha", "alpha", "beta", "gamma"])
    return tvmpipe.build(branchy_path, cluster_path, plan=plan)


@pytest.fixture(scope="session")
def chain_bundle(chain_path: Path, cluster_path: Path, spread_plan: Callable[[Path, list[str]], Path]) -> Bundle:
    """`chain` in three stages, one per device."""
    plan = spread_plan(chain_path, ["alpha", "alpha", "beta", "beta", "gamma", "gamma"])
    return tvmpipe.build(chain_path, cluster_path, plan=plan)


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A tracker and agents alpha, beta, gamma; tests that harm an agent start their own."""
    store = tmp_path_factory.mktemp("store")
    with local_cluster([LocalAgent(key) for key in ("alpha", "beta", "gamma")], store=store) as cluster:
        yield cluster
