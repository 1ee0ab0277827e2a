"""Weights are read as safetensors' own reader reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tvmpipe.runtime.device.weights import read_weights

TYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


def tensors(seed: int) -> dict[str, NDArray[np.generic]]:
    """One or more of every type; among their shapes are a number, nothing, and sizes that 64 does not divide."""
    random = np.random.default_rng(seed)
    shapes = [(), (0,), (3, 0, 2), (1,), (5, 7), (33, 3, 3), (64,)]
    return {
        f"{dtype}{shape}": random.integers(0, 100, shape).astype(dtype)
        for dtype in TYPES
        for shape in shapes[: len(shapes) if dtype == "f4" else 5]
    }


def test_every_type_and_shape(tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    given = {**tensors(1), "only in b": np.arange(6, dtype="f4").reshape(2, 3)}
    save_file({name: array for name, array in given.items() if name != "only in b"}, files[0], {"some": "notes"})
    save_file({"only in b": given["only in b"]}, files[1])
    expected = {**load_file(files[0]), **load_file(files[1])}
    names = sorted(given, reverse=True)
    loaded = read_weights(files, names)
    for name, array in zip(names, loaded, strict=True):
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape
        assert np.array_equal(array, expected[name]), name
        assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize("kept", [0, 5, 8, 40])
def test_a_file_without_its_header_is_no_safetensors_file(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file(tensors(2), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"^w\.safetensors is no safetensors file, or a part of one$"):
        read_weights([path], ["f4(5, 7)"])


def test_something_else_is_no_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x7fELF" + bytes(range(200, 256)) * 9)
    with pytest.raises(ValueError, match=r"^w\.safetensors is no safetensors file"):
        read_weights([path], ["w"])


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": np.ones((10, 10), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"^w\.safetensors ends 8 bytes before one of its tensors$"):
        read_weights([path], ["w"])


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": np.ones(4, np.float32)}, path)
    for files, where in (([path], "w.safetensors"), ([], "no files")):
        with pytest.raises(ValueError, match=f"weight v is in none of {where}"):
            read_weights(files, ["w", "v"] if files else ["v"])


def test_a_type_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": np.ones(4, np.complex64), "v": np.ones(4, np.float32)}, path)
    with pytest.raises(ValueError, match=r"^w\.safetensors has a tensor of type C64; known are F16, "):
        read_weights([path], ["v"])
