"""Samples of several sizes through one pipeline: compiled, sent and held once, whatever the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import tvmpipe
from tests.conftest import THREE
from tests.models import save
from tests.passes.open_models import VOCABULARY, bert_like, mean_like, open_resnet
from tests.waiting import wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.cli import cli
from tvmpipe.consistency import inconsistency
from tvmpipe.equality import Expected, compare
from tvmpipe.errors import SampleError
from tvmpipe.manifest import memory_bytes_of
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster

Arrays = dict[str, NDArray[Any]]


def agrees(reference: Reference, sample: Arrays, results: Arrays) -> None:
    """Assert that results are right without any noise allowed for, and of the sample's own extents."""
    comparison = compare(results, Expected(reference.run(sample)))
    assert comparison.equal, comparison.sentence


@pytest.fixture(scope="module")
def bert(cluster_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A BERT on three devices, for a sequence of up to 3, 6 or 12 tokens."""
    path = save(bert_like(), tmp_path_factory.mktemp("bert"))
    return tvmpipe.build(
        path,
        cluster_path,
        shapes={"ids": [1, {3, 6, 12}]},
        dims={"batch": 1},
        pads={"ids": 0, "mask": 0},
        time_limit_s=2,
    )


def texts(count: int, longest: int) -> Iterator[Arrays]:
    random = np.random.default_rng(7)
    for _ in range(count):
        length = int(random.integers(1, longest + 1))
        mask = np.ones((1, length), np.int64)
        mask[0, int(random.integers(1, length + 1)) :] = 0  # of some the end is left out
        yield {"ids": random.integers(1, VOCABULARY, (1, length)), "mask": mask}


def test_texts_of_forty_lengths_through_three_buckets_and_three_devices_are_right(
    bert: Bundle, agents: LocalCluster
) -> None:
    assert [dict(bucket.extents) for bucket in bert.manifest.buckets] == [{"sequence": n} for n in (12, 6, 3)]
    assert bert.manifest.plan.devices == ("alpha", "beta", "gamma")
    reference = Reference(bert_like().SerializeToString())
    samples = list(texts(40, 12))
    with tvmpipe.connect(bert, agents.tracker) as pipe:
        results = list(pipe.stream(samples))
        for sample, result in zip(samples, results, strict=True):
            agrees(reference, sample, result)
        counts = pipe.counts()
        with pytest.raises(SampleError, match="no bucket takes a sample of sequence=13; the buckets are sequence=3, "):
            pipe.run({name: np.ones((1, 13), np.int64) for name in ("ids", "mask")})
    lengths = [sample["ids"].shape[1] for sample in samples]
    done = {stage.bucket: counts[stage.name].samples for stage in bert.manifest.plan.stages}
    assert done == {
        0: sum(n > 6 for n in lengths),
        1: sum(3 < n <= 6 for n in lengths),
        2: sum(n <= 3 for n in lengths),
    }


def shares_weights(bundle: Bundle, own_bytes: int) -> None:
    """Assert that buckets have the same weights on the same devices but for `own_bytes`, and that each is kept once."""
    plan = bundle.manifest.plan
    for device in plan.devices:
        here = [stage for stage in plan.stages if stage.device == device]
        first = {name for stage in here if stage.bucket == 0 for name in stage.weight_names}
        every = {name for stage in here for name in stage.weight_names}
        assert len(every - first) <= (len(bundle.manifest.buckets) - 1 if own_bytes else 0)
        weights = sum(stage.weight_bytes for stage in here if stage.bucket == 0)
        activations = sum(stage.activation_bytes for stage in here if stage.bucket == 0)
        assert 0 <= memory_bytes_of(here) - weights - activations <= own_bytes + 1024 * len(every - first)
    files = [file for file in bundle.manifest.files if file.path.startswith("weights/")]
    needed = sum(stage.weight_bytes for stage in plan.stages if stage.bucket == 0)
    headers = 128 * len({name for stage in plan.stages for name in stage.weight_names}) + 128 * len(files)
    assert needed < sum(file.size_bytes for file in files) < needed + own_bytes + headers


def test_buckets_share_their_weights_on_each_device(bert: Bundle) -> None:
    shares_weights(bert, own_bytes=(6 + 3) * 16 * 4)  # positions are a slice of a table, which each has its own of


def test_images_in_batches_of_one_to_eight_through_one_bundle(tmp_path: Path) -> None:
    model, bundle, cluster = save(open_resnet(), tmp_path), tmp_path / "images.tvmpipe", tmp_path / "cluster.toml"
    cluster.write_text('[[device]]\nname = "alpha"\nthreads = 1\n')
    arguments = ["compile", str(model), "--cluster", str(cluster), "-o", str(bundle), "--shape", "x=N,3,16,16"]
    asked = CliRunner().invoke(cli, [*arguments, "--bucket", "N=1,2,4,8", "--pad", "x=0"])
    assert asked.exit_code == 0, asked.output
    reference, images = Reference(open_resnet().SerializeToString()), np.random.default_rng(5)
    loaded = tvmpipe.load(bundle)
    shares_weights(loaded, own_bytes=0)
    with run_in_process(loaded) as pipe:
        for count in (1, 2, 3, 4, 7, 8):
            sample = {"x": images.normal(size=(count, 3, 16, 16)).astype(np.float32)}
            result = pipe.run(sample)
            assert result["y"].shape == (count, 10)
            agrees(reference, sample, result)


@pytest.fixture(scope="module")
def mean(cluster_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A mean over 2 or 5 steps, which no pad leaves as it is, on two devices, with plans for the loss of each."""
    folder = tmp_path_factory.mktemp("mean")
    cluster, plan = folder / "cluster.toml", folder / "plan.yaml"
    cluster.write_text(THREE)
    plan.write_text('placement:\n  "*relu*": alpha\n  "*mean*": beta\n  "*matmul*": beta\n  "*take*": beta\n')
    model = save(mean_like(), folder)
    return tvmpipe.build(
        model, cluster, plan=plan, buckets={"steps": [2, 5]}, pads={"x": 0}, failover=True, time_limit_s=1
    )


def test_a_model_that_padding_changes_takes_exact_shapes_only_and_says_why(mean: Bundle) -> None:
    large, small = mean.manifest.buckets
    assert "a sample of steps=4 padded to steps=5 gives other results: largest difference" in large.exact["steps"]
    assert "a sample of steps=1 padded to steps=2 gives other results" in small.exact["steps"]
    assert "a sample must have all of &#x27;steps&#x27;" in (mean.root / "report.html").read_text()
    reference = Reference(mean_like().SerializeToString())
    with run_in_process(mean) as model:
        for steps in (5, 2):
            sample = {"x": np.random.default_rng(steps).normal(size=(1, steps, 16)).astype(np.float32)}
            agrees(reference, sample, model.run(sample))
        with pytest.raises(SampleError, match=r"no bucket takes a sample of steps=4; .*as large as one of them"):
            model.run({"x": np.zeros((1, 4, 16), np.float32)})


def test_the_loss_of_a_device_in_mid_stream_loses_no_sample_of_any_bucket(mean: Bundle, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    samples = [{"x": random.normal(size=(1, steps, 16)).astype(np.float32)} for steps in random.choice((2, 5), 60)]
    reference = Reference(mean_like().SerializeToString())
    with (
        local_cluster([LocalAgent(key) for key in ("alpha", "beta", "gamma")], store=tmp_path) as cluster,
        tvmpipe.connect(mean, cluster.tracker, failover=True) as pipe,
    ):

        def live() -> Iterator[Arrays]:
            yield from samples[:30]
            cluster.kill("beta")
            wait_until(lambda: pipe.lost == ("beta",))
            yield from samples[30:]

        results = list(pipe.stream(live()))
        for sample, result in zip(samples, results, strict=True):
            agrees(reference, sample, result)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bucket": 5}, "is of bucket 5, which there is not"),
        ({"bucket": 0}, "of another bucket"),
    ],
)
def test_a_manifest_that_mixes_buckets_is_refused(mean: Bundle, change: dict[str, int], said: str) -> None:
    manifest = mean.manifest
    *stages, last = manifest.plan.stages
    stages.append(last.model_copy(update=change))
    changed = manifest.model_copy(
        update={"plans": (manifest.plan.model_copy(update={"stages": tuple(stages)}), *manifest.plans[1:])}
    )
    assert inconsistency(manifest) is None
    fault = inconsistency(changed)
    assert fault is not None
    assert said in fault
