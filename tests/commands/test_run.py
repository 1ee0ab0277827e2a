"""`tvmpipe run`: results are there whatever happens to the run."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner

from tests.models import chain, save
from tests.waiting import wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.cli import cli
from tvmpipe.commands.run import measure_stream
from tvmpipe.commands.samples import Samples
from tvmpipe.equality import worst
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster

KEYS = ("alpha", "beta", "gamma")


def run(code: int, *arguments: object) -> Any:
    result = CliRunner().invoke(cli, ["run", *map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_results_before_a_loss_are_kept(chain_bundle: Bundle, tmp_path: Path) -> None:
    """An agent dies in the middle: exit code 4, and a sentence that names a file with what was answered before."""
    chain_bundle.save(tmp_path / "bundle")
    folder = tmp_path / "results"
    folder.mkdir()
    one_bytes = 4 * 256 * 4
    with local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path / "agents") as cluster:
        command = [sys.executable, "-m", "tvmpipe", "run", tmp_path / "bundle", "--tracker", cluster.tracker]
        options = ["--random", "100000", "--seed", "3", "-o", folder / "y.npz", "--timeout", "5", "--json"]
        with subprocess.Popen(
            list(map(str, [*command, *options])), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            wait_until(lambda: sum(path.stat().st_size for path in folder.glob(".tvmpipe-*/*.npy")) > 20 * one_bytes)
            assert not (folder / "y.npz").exists()
            cluster.kill("beta")
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 4
    facts = json.loads(out)
    assert facts["error"] == "DeviceLostError"
    (kept,) = folder.iterdir()
    assert kept.name == "y.partial.npz"
    with np.load(kept) as found:
        results = found["y"]
    assert f"; the results of the first {len(results)} of 100000 samples are in {kept}" in facts["message"]
    assert len(results) >= 20
    reference = Reference(chain().SerializeToString())
    samples = Samples(chain_bundle.manifest, [], random=len(results), seed=3)
    some = [(sample, y) for number, (sample, y) in enumerate(zip(samples, results, strict=True)) if number % 7 == 0]
    assert worst(reference.compare({"y": y}, sample) for sample, y in some).equal


def test_what_cannot_be_learned_costs_no_results(chain_bundle: Bundle, tmp_path: Path, agents: LocalCluster) -> None:
    chain_bundle.save(tmp_path / "bundle")
    store, output = tmp_path / "store", tmp_path / "y.npz"
    store.write_text("in the way")
    common = (tmp_path / "bundle", "--tracker", agents.tracker, "--random", 12)
    facts = run(1, *common, "--learn", "--store", store, "-o", output)
    assert facts["message"].endswith(f"; all results are in {output}")
    with np.load(output) as found:
        assert found["y"].shape == (12, 4, 256)


def test_files_random_samples_and_repeats(chain_bundle: Bundle, tmp_path: Path, agents: LocalCluster) -> None:
    chain_bundle.save(tmp_path / "bundle")
    np.save(tmp_path / "x.npy", np.full((4, 256), 0.5, np.float32))
    facts = run(
        0, tmp_path / "bundle", "--tracker", agents.tracker, "-i", tmp_path / "x.npy", "--random", 2, "--repeat", 2,
        "-o", tmp_path / "y.npy",
    )  # fmt: skip
    assert (facts["samples"], facts["output"]) == (6, str(tmp_path / "y.npy"))
    results = np.load(tmp_path / "y.npy")
    reference = Reference(chain().SerializeToString())
    samples = Samples(chain_bundle.manifest, [tmp_path / "x.npy"], random=2, seed=0, repeat=2)
    assert worst(reference.compare({"y": y}, x) for x, y in zip(samples, results, strict=True)).equal


class Stream:
    """What `measure_stream` needs of a pipeline: results at once, of samples that it forgets."""

    def __init__(self, inflight: int) -> None:
        self.inflight = inflight

    def stream(self, samples: Iterable[Any]) -> Iterator[Any]:
        yield from samples


@pytest.mark.parametrize(("inflight", "count"), [(1, 1), (1, 5), (3, 2), (3, 5), (3, 6), (4, 50)])
def test_the_period_is_that_of_the_full_pipeline(monkeypatch: pytest.MonkeyPatch, inflight: int, count: int) -> None:
    """As over the list of all times, which grows with the samples and is not kept."""
    times = np.cumsum(np.random.default_rng(count).uniform(0.1, 1, count)).tolist()
    clock = iter([0.0, *times])
    monkeypatch.setattr("tvmpipe.commands.run.time.perf_counter", lambda: next(clock))
    taken: list[int] = []
    pipe = cast("Any", Stream(inflight))
    facts = measure_stream(pipe, cast("Any", range(count)), count, "running", cast("Any", taken.append))
    monkeypatch.undo()
    first, last = inflight - 1, count - inflight
    if last <= first:
        first, last = 0, count - 1
    period = (times[last] - times[first]) / (last - first) if last > first else times[0]
    assert facts == {
        "samples": count,
        "seconds": times[-1],
        "first_s": times[0],
        "period_s": pytest.approx(period),
    }
    assert taken == list(range(count))


def test_a_long_stream_takes_no_memory() -> None:
    count = 200_000
    tracemalloc.start()
    try:
        measure_stream(cast("Any", Stream(8)), cast("Any", range(count)), count, "running", lambda _: None)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_an_elastic_run(tmp_path: Path) -> None:
    """With a bundle for one device, on two."""
    model, cluster_file = save(chain(6, width=1024), tmp_path), tmp_path / "cluster.toml"
    cluster_file.write_text('[[device]]\nname = "alpha"\nthreads = 1\nslowdown = 50\n')
    compiled = CliRunner().invoke(
        cli, ["compile", str(model), "--cluster", str(cluster_file), "--elastic", "-o", str(tmp_path / "bundle")]
    )
    assert compiled.exit_code == 0, compiled.output
    options = ("--slowdown", "50", "--threads", "1")
    with local_cluster([LocalAgent(key, options=options) for key in KEYS[:2]], store=tmp_path / "agents") as cluster:
        command = ["run", str(tmp_path / "bundle"), "--tracker", cluster.tracker, "--random", "600"]
        refused = CliRunner().invoke(cli, [*command, "--cluster", "auto"])
        assert refused.exit_code == 1
        assert "--cluster auto is for elastic pipelines: give --elastic, too" in refused.output
        ran = CliRunner().invoke(cli, [*command, "--elastic", "--cluster", "auto", "--json"])
    assert ran.exit_code == 0, ran.output
    assert {stage["device"] for stage in json.loads(ran.stdout)["stages"]} == {"alpha", "beta"}
    assert "a plan for alpha, beta takes" in ran.stderr
