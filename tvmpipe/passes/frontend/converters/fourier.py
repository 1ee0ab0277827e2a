"""DFT and STFT as products with a matrix that is made here: transforms of speech and images are short."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts
from tvmpipe.passes.kernels.base import shape_of

_LARGEST_BYTES = 256 << 20


@converts("DFT")
def dft(node: OnnxNode) -> Any:
    """The discrete Fourier transform of one axis; the last axis holds real parts, or real and imaginary ones.

    The axis is cropped or padded with zeros to `dft_length`. `inverse` and `onesided` together make real numbers of
    the first half of a spectrum.
    """
    rank = len(node.shape(0))
    given = node.known(2, "axis") if node.opset >= 20 else np.array(node.attributes.get("axis", 1))
    axis = -2 if given is None else int(given.reshape(()))
    length = node.known(1, "dft_length")
    inverse, onesided = (bool(node.attributes.get(name, 0)) for name in ("inverse", "onesided"))
    return _transformed(
        node, node.input(0), axis % rank, None if length is None else int(length.reshape(())), inverse, onesided
    )


@converts("STFT")
def stft(node: OnnxNode) -> Any:
    """The transform of frames of a signal [batch, length, 1 or 2], weighted by a window.

    The result is [batch, frames, bins, 2].
    """
    from tvm import relax

    signal, window = node.input(0), node.input(2)
    step = int(node.required(1, "frame_step").reshape(()))
    length = node.known(3, "frame_length")
    default = node.shape(0)[1] if window is None else node.shape(2)[0]
    frame = default if length is None else int(length.reshape(()))
    begins = np.arange(0, node.shape(0)[1] - frame + 1, step)
    places = begins[:, None] + np.arange(frame)
    frames = node.emit(relax.op.take(signal, relax.const(places, "int64"), axis=1))
    if window is not None:
        frames = node.emit(relax.op.multiply(frames, relax.op.reshape(window, (frame, 1))))
    return _transformed(node, frames, 2, None, False, bool(node.attributes.get("onesided", 1)))


def _transformed(node: OnnxNode, x: Any, axis: int, length: int | None, inverse: bool, onesided: bool) -> Any:
    from tvm import relax

    shape = shape_of(x)
    matrix = _matrix(shape[axis], shape[-1], length, inverse, onesided)
    bins, parts = matrix.shape[2:]
    if 8 * matrix.size > _LARGEST_BYTES:
        raise NotImplementedError(f"a transform of length {shape[axis]} is too long for a product with a matrix")
    before = [place for place in range(len(shape) - 1) if place != axis]
    rows = node.emit(relax.op.permute_dims(x, [*before, axis, len(shape) - 1]))
    outer = [shape[place] for place in before]
    rows = node.emit(relax.op.reshape(rows, (*outer, shape[axis] * shape[-1])))
    weights = relax.const(matrix.reshape(shape[axis] * shape[-1], bins * parts), str(x.ty.dtype))
    product = node.emit(relax.op.matmul(rows, weights))
    product = node.emit(relax.op.reshape(product, (*outer, bins, parts)))
    back = list(range(len(before)))
    back.insert(axis, len(before))
    return relax.op.permute_dims(product, [*back, len(shape) - 1])


def _matrix(extent: int, parts: int, length: int | None, inverse: bool, onesided: bool) -> NDArray[np.float64]:
    """What the transform makes of each element of its input: [extent, parts, bins, parts of the result]."""
    units = np.eye(extent) + 0j
    both = np.stack((units, 1j * units) if parts == 2 else (units,), axis=1)  # [extent, parts, extent]
    if inverse and onesided:
        return np.fft.irfft(both, n=length or 2 * (extent - 1), axis=2)[..., None]
    spectrum = (np.fft.ifft if inverse else np.fft.fft)(both, n=length, axis=2)
    if onesided:
        spectrum = spectrum[..., : spectrum.shape[-1] // 2 + 1]
    return np.stack((spectrum.real, spectrum.imag), axis=-1)
