"""Arm code gives the right numbers: primitives run under QEMU, with a small C program in place of TVM's runtime."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.passes.compiled import normal
from tests.passes.kernels.bytes_and_sums import convolved, extremes, packed_columns, packed_convolution, unpacked
from tests.passes.kernels.cross import (
    Primitive,
    batched_matmul_primitive,
    conv2d_primitive,
    integer_conv2d_primitive,
    integer_matmul_primitive,
    machine_code,
    matmul_primitive,
    on_halves,
    softmax_primitive,
    weight_only_primitive,
    winograd_primitive,
)
from tests.passes.kernels.packed_weights import packed_weight
from tvmpipe.passes.kernels.channel_blocks import pack_constant
from tvmpipe.passes.kernels.conv2d.compute import pack_weight
from tvmpipe.passes.kernels.half_weights import narrowed
from tvmpipe.passes.kernels.matmul.compute import pack_columns
from tvmpipe.passes.kernels.weight_only_matmul.compute import operands_of
from tvmpipe.passes.kernels.winograd.compute import transform_weight
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.target import TargetDescription

EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
HARNESS = Path(__file__).with_name("harness.c")
TRIPLE = "aarch64-linux-musl"

pytestmark = pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed (Debian: qemu-user)")

Array = NDArray[np.float32]
LETTERS = {"float32": "", "float16": "h", "uint16": "w", "uint8": "u", "int8": "s", "int32": "i"}


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness as an object file, compiled once."""
    import tvm_ffi

    path = tmp_path_factory.mktemp("harness") / "harness.o"
    includes = [f"-I{tvm_ffi.libinfo.find_include_path()}", f"-I{tvm_ffi.libinfo.find_dlpack_include_path()}"]
    _zig("-c", "-O1", "-ffreestanding", "-o", str(path), *includes, str(HARNESS))
    return path


def _zig(*arguments: str) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", TRIPLE, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def emulate(
    primitive: Primitive,
    target: str | TargetDescription,
    harness: Path,
    folder: Path,
    inputs: Sequence[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: str = "float32",
) -> NDArray[Any]:
    """The result, of the given shape and type, of a primitive compiled for `target`."""
    assert EMULATOR is not None
    machine_code(primitive, target, threads=2).write_to_file(str(folder / "primitive.o"), "o")
    _zig("-static", "-nostdlib", "-o", str(folder / "program"), str(harness), str(folder / "primitive.o"))
    arguments = []
    for place, array in enumerate(inputs):
        path = folder / f"input{place}"
        path.write_bytes(np.ascontiguousarray(array).tobytes())
        arguments.append(f"{path}:{_type(array.shape, array.dtype.name)}")
    arguments.append(f"{folder / 'result'}:{_type(shape, dtype)}")
    result = subprocess.run(
        [EMULATOR, str(folder / "program"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, f"exit {result.returncode}: {result.stderr}"
    return np.fromfile(folder / "result", dtype).reshape(shape)


def _type(shape: tuple[int, ...], dtype: str) -> str:
    return "x".join(map(str, shape)) + LETTERS[dtype]


def assert_close(have: Array, want: NDArray[np.float64]) -> None:
    assert np.isfinite(have).all()
    assert np.abs(have - want).max() <= 1e-5 * np.abs(want).max()


def convolve(x: Array, weight: Array) -> NDArray[np.float64]:
    """Blocks `[1, K/16, H, W, 16]` of the image `[1, C, H, W]` convolved, padded to keep its size."""
    reach = weight.shape[-1] // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    result = np.einsum("nchwrs,kcrs->nkhw", windows, weight.astype(np.float64), optimize=True)
    return pack_constant(result, weight.shape[0])


@pytest.mark.parametrize("target", ["pi4", "pi5"])
@pytest.mark.parametrize(("m", "k", "n"), [(29, 67, 70), (29, 68, 70), (7, 64, 48), (2, 8, 16), (1, 64, 33), (6, 4, 5)])
def test_matmul(harness: Path, tmp_path: Path, target: str, m: int, k: int, n: int) -> None:
    x, w = normal(1, m, k), normal(2, k, n)
    have = emulate(matmul_primitive(m, k, n), target, harness, tmp_path, [x, pack_columns(w)], (m, -(-n // 16) * 16))
    assert_close(have[:, :n], x.astype(np.float64) @ w)
    assert not have[:, n:].any()


@pytest.mark.parametrize(("batch", "m", "k"), [(1, 11, 64), (3, 7, 64), (2, 3, 12)])
def test_matmul_of_a_batch(harness: Path, tmp_path: Path, batch: int, m: int, k: int) -> None:
    x, w = normal(1, batch, m, k), normal(2, k, 48)
    have = emulate(matmul_primitive(m, k, 48, batch), "pi5", harness, tmp_path, [x, pack_columns(w)], (batch, m, 48))
    assert_close(have, x.astype(np.float64) @ w)


@pytest.mark.parametrize(("batch", "m", "k", "n"), [(1, 11, 64, 48), (3, 29, 64, 29), (2, 13, 13, 64), (4, 6, 20, 80)])
def test_batched_matmul(harness: Path, tmp_path: Path, batch: int, m: int, k: int, n: int) -> None:
    x, y = normal(1, batch, m, k), normal(2, batch, k, n)
    primitive = batched_matmul_primitive(batch, m, k, n)
    have = emulate(primitive, "pi4", harness, tmp_path, [x, y], (batch, m, -(-n // 16) * 16))
    assert_close(have[..., :n], x.astype(np.float64) @ y)


@pytest.mark.parametrize("channels", [3, 24])
def test_conv2d(harness: Path, tmp_path: Path, channels: int) -> None:
    x, w = normal(1, 1, channels, 19, 19), normal(2, 40, channels, 3, 3)
    want = convolve(x, w)
    blocked = channels >= 16
    inputs = [pack_constant(x, channels) if blocked else x, pack_weight(w, blocked_input=blocked)]
    assert_close(emulate(conv2d_primitive(channels, 40, 19), "pi5", harness, tmp_path, inputs, want.shape), want)


@pytest.mark.parametrize(("target", "kind"), [("pi4", np.float16), ("pi5", ml_dtypes.bfloat16)], ids=str)
def test_half_weights(harness: Path, tmp_path: Path, target: str, kind: type) -> None:
    x, w = normal(1, 7, 64), normal(2, 64, 48).astype(kind).astype(np.float32)
    half = narrowed(pack_columns(w), (np.dtype(kind).name,))
    assert half is not None
    primitive = on_halves(matmul_primitive(7, 64, 48), half.dtype.name)
    have = emulate(primitive, target, harness, tmp_path, [x, half], (7, 48))
    assert_close(have, x.astype(np.float64) @ w)


@pytest.mark.parametrize(("m", "bits", "zeros"), [(1, 4, "integers"), (3, 8, "one"), (9, 4, "floats")])
def test_packed_weights(harness: Path, tmp_path: Path, m: int, bits: int, zeros: str) -> None:
    weight, real = packed_weight(101, 40, bits, 16, zeros)
    x = normal(1, m, 101)
    inputs = [x, *operands_of(weight, x.shape)]
    have = emulate(weight_only_primitive(m, 101, weight), "pi4", harness, tmp_path, inputs, (m, 48))
    assert_close(have[:, :40], x.astype(np.float64) @ real)


@pytest.mark.parametrize(("m", "size"), [(2, 13), (4, 27)])
def test_winograd(harness: Path, tmp_path: Path, m: int, size: int) -> None:
    x, w = normal(1, 1, 24, size, size), normal(2, 40, 24, 3, 3)
    want = convolve(x, w)
    inputs = [pack_constant(x, 24), transform_weight(w, m)]
    primitive = winograd_primitive(24, 40, size, m)
    assert_close(emulate(primitive, "pi4", harness, tmp_path, inputs, want.shape), want)


@pytest.mark.parametrize("n", [11, 48, 53])
def test_softmax(harness: Path, tmp_path: Path, n: int) -> None:
    x = normal(1, 13, n, scale=10.0)
    power = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    have = emulate(softmax_primitive(13, n), "pi4", harness, tmp_path, [x], (13, n))
    assert_close(have, power / power.sum(axis=1, keepdims=True))


INTEGERS = {
    "smull": find_target("pi4"),
    "sdot": find_target("pi5"),
    "usdot": dataclasses.replace(find_target("pi5"), name="i8mm", features=("+dotprod", "+i8mm")),
}


@pytest.mark.parametrize("target", INTEGERS.values(), ids=INTEGERS)
def test_integers(harness: Path, tmp_path: Path, target: TargetDescription) -> None:
    """Sums of extreme bytes are exact: of rows and columns that fill no tile, signed or not, and under a window."""
    weight = extremes(1, "int8", 70, 37)
    for signed in (False, True):
        x = extremes(2, "int8" if signed else "uint8", 13, 70)
        primitive = integer_matmul_primitive(13, 70, 37, signed=signed, zero=-3 if signed else 7)
        have = emulate(primitive, target, harness, tmp_path, [x, *packed_columns(weight)], (13, 48), "int32")
        assert (have[:, :37] == (x.astype(np.int64) - (-3 if signed else 7)) @ weight.astype(np.int64)).all()
    for channels in (3, 20):
        x, kernel = extremes(3, "uint8", 1, channels, 9, 9), extremes(4, "int8", 24, channels, 3, 3)
        primitive = integer_conv2d_primitive(channels, 24, 9, zero=130)
        arrays = packed_convolution(x, kernel)
        have = emulate(primitive, target, harness, tmp_path, arrays, (1, 2, 9, 9, 16), "int32")
        assert (unpacked(have, 24) == convolved(x, kernel, 130)).all()
