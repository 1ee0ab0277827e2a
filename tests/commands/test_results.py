"""Results to a file as they come: what is in it, when it is there, and what is kept when a run ends early."""

from __future__ import annotations

import io
import os
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.runtime import manifests
from tvmpipe.bundle import Bundle
from tvmpipe.commands.results import ResultWriter, check_output
from tvmpipe.errors import DeviceLostError, InputError
from tvmpipe.manifest import Manifest
from tvmpipe.tensors import TensorSpec

Results = list[dict[str, NDArray[Any]]]

SPECS = [
    ("scores", (2, 3), "float32"),
    ("../a b/\u6f22", (), "int64"),
    ("file", (4,), "bool"),
    ("none", (0, 2), "float16"),
]


def with_outputs(manifest: Manifest, specs: list[tuple[str, tuple[int, ...], str]]) -> Manifest:
    outputs = tuple(TensorSpec(name=name, shape=shape, dtype=dtype) for name, shape, dtype in specs)
    return manifest.model_copy(update={"model": manifest.model.model_copy(update={"outputs": outputs})})


def results_of(manifest: Manifest, count: int) -> Results:
    generator = np.random.default_rng(count)
    return [
        {
            spec.name: np.asarray(generator.integers(-9, 9, spec.shape)).astype(spec.dtype)
            for spec in manifest.model.outputs
        }
        for _ in range(count)
    ]


def write(path: Path, manifest: Manifest, results: Results) -> None:
    with ResultWriter(path, manifest, len(results)) as writer:
        for result in results:
            writer.take(result)
        assert not path.exists()
        assert writer.finish() == path


def nothing_else(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 12), kinds=st.sets(st.sampled_from(SPECS), min_size=1))
def test_an_npz_is_what_numpy_would_write(
    chain_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, count: int, kinds: set[Any]
) -> None:
    """Arrays by name; several samples' stacked along a new first axis."""
    folder = tmp_path_factory.mktemp("npz")
    manifest = with_outputs(chain_bundle.manifest, sorted(kinds))
    results = results_of(manifest, count)
    write(folder / "y.npz", manifest, results)
    nothing_else(folder, "y.npz")
    with np.load(folder / "y.npz") as found:
        assert set(found.files) == {name for name, *_ in kinds}
        for name in found.files:
            want = results[0][name] if count == 1 else np.stack([result[name] for result in results])
            np.testing.assert_array_equal(found[name], want, strict=True)


@pytest.mark.parametrize("count", [1, 5])
def test_an_npy_is_byte_for_byte_numpys(chain_bundle: Bundle, tmp_path: Path, count: int) -> None:
    results = results_of(chain_bundle.manifest, count)
    write(tmp_path / "y.npy", chain_bundle.manifest, results)
    nothing_else(tmp_path, "y.npy")
    stream = io.BytesIO()
    np.save(stream, results[0]["y"] if count == 1 else np.stack([result["y"] for result in results]))
    assert (tmp_path / "y.npy").read_bytes() == stream.getvalue()


def test_memory_does_not_grow_with_the_samples(chain_bundle: Bundle, tmp_path: Path) -> None:
    count = 50_000
    manifest = with_outputs(chain_bundle.manifest, SPECS[:1])
    (result,) = results_of(manifest, 1)
    tracemalloc.start()
    try:
        with ResultWriter(tmp_path / "y.npz", manifest, count) as writer:
            for _ in range(count):
                writer.take(result)
            writer.finish()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20
    with np.load(tmp_path / "y.npz") as found:
        assert found["scores"].shape == (count, 2, 3)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_what_was_answered_before_an_error_is_kept(chain_bundle: Bundle, tmp_path: Path, suffix: str) -> None:
    """Under a name that says so, which the error tells; what was kept before stays, and so does an older result."""
    results = results_of(chain_bundle.manifest, 3)
    output = tmp_path / f"y{suffix}"
    output.write_text("older")
    for number, mark in enumerate(("partial", "partial2"), start=1):
        kept = tmp_path / f"y.{mark}{suffix}"
        with pytest.raises(DeviceLostError) as caught, ResultWriter(output, chain_bundle.manifest, 9) as writer:
            for result in results[:number]:
                writer.take(result)
            raise DeviceLostError("device d was lost", device="d", sample=number)
        assert str(caught.value) == f"device d was lost; the results of the first {number} of 9 samples are in {kept}"
        assert caught.value.device == "d"
        loaded = np.load(kept)
        np.testing.assert_array_equal(
            loaded["y"] if suffix == ".npz" else loaded, np.stack([result["y"] for result in results[:number]])
        )
    assert output.read_text() == "older"
    nothing_else(tmp_path, output.name, f"y.partial{suffix}", f"y.partial2{suffix}")


def test_nothing_answered_leaves_nothing(chain_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DeviceLostError, match=r"^gone$"), ResultWriter(tmp_path / "y.npz", chain_bundle.manifest, 9):
        raise DeviceLostError("gone", device="d")
    nothing_else(tmp_path)


def test_an_interrupted_run_says_where_its_results_are(
    chain_bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), ResultWriter(tmp_path / "y.npz", chain_bundle.manifest, 9) as writer:
        writer.take(results_of(chain_bundle.manifest, 1)[0])
        raise KeyboardInterrupt
    assert "the results of the first 1 of 9 samples are in" in capfd.readouterr().err
    nothing_else(tmp_path, "y.partial.npz")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_only_what_it_could_not_hold(chain_bundle: Bundle, small_disk: Path) -> None:
    """There is no room for an archive beside the arrays, so they are kept as they are."""
    manifest = with_outputs(chain_bundle.manifest, [("wide", (512,), "float32"), ("flag", (), "bool")])
    results = results_of(manifest, 1) * 1000
    taken = 0
    with pytest.raises(InputError) as caught, ResultWriter(small_disk / "y.npz", manifest, len(results)) as writer:
        for result in results:
            writer.take(result)
            taken += 1
    assert 100 < taken < 256 // 2
    kept = small_disk / "y.partial"
    assert str(caught.value) == (
        f"output {small_disk / 'y.npz'} cannot be written: No space left on device; "
        f"the results of the first {taken} of 1000 samples are in {kept}, a file for each of wide, flag"
    )
    nothing_else(small_disk, "y.partial")
    wide, flag = (np.load(kept / f"output{place}.npy") for place in range(2))
    assert wide.shape == (taken, 512)
    assert flag.shape == (taken,)
    np.testing.assert_array_equal(wide, np.broadcast_to(results[0]["wide"], wide.shape))


def test_a_disk_that_is_full_at_the_end(chain_bundle: Bundle, small_disk: Path) -> None:
    """All was answered, and all is kept."""
    manifest = with_outputs(chain_bundle.manifest, [("wide", (512,), "float32")])
    results = results_of(manifest, 100)
    with pytest.raises(InputError, match="the first 100 of 100 samples are in"):
        write(small_disk / "y.npz", manifest, results)
    np.testing.assert_array_equal(
        np.load(small_disk / "y.partial" / "output0.npy"), np.stack([result["wide"] for result in results])
    )


def test_what_cannot_be_an_output_is_refused_at_once(branchy_bundle: Bundle, tmp_path: Path) -> None:
    check_output(None, branchy_bundle.manifest, 1)
    check_output(tmp_path / "y.npz", branchy_bundle.manifest, 1)
    for path, message in (
        (tmp_path / "y.npy", "the model has 2 outputs"),
        (tmp_path / "y.txt", "must end in .npz"),
        (tmp_path / "none" / "y.npz", "is not a file in a folder that exists"),
    ):
        with pytest.raises(InputError, match=message):
            check_output(path, branchy_bundle.manifest, 1)


def test_results_of_several_sizes_are_written_one_by_one(tmp_path: Path) -> None:
    buckets = manifests.in_buckets(manifests.chain("a"), (8, 4, 2), {"x": 0.0})
    results = [{"y": np.full((count, 3), count, np.float32)} for count in (2, 8, 3)]
    with ResultWriter(tmp_path / "y.npz", buckets, len(results)) as writer:
        for result in results:
            writer.take(result)
        writer.finish()
    with np.load(tmp_path / "y.npz") as found:
        assert sorted(found) == ["y/0", "y/1", "y/2"]
        for number, result in enumerate(results):
            np.testing.assert_array_equal(found[f"y/{number}"], result["y"])
    check_output(tmp_path / "y.npy", buckets, 1)
    with pytest.raises(InputError, match="the shape of 'y' differs from sample to sample"):
        check_output(tmp_path / "y.npy", buckets, 2)
