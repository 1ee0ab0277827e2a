"""ConvTranspose with all of its attributes; TVM's knows no output shape, and its convolutions no dilation."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts
from tvmpipe.passes.kernels.base import shape_of

_LAYOUTS = {1: ("conv1d", "NCW", "OIW"), 2: ("conv2d", "NCHW", "OIHW"), 3: ("conv3d", "NCDHW", "OIDHW")}


@converts("ConvTranspose")
def conv_transpose(node: OnnxNode) -> Any:
    """[N, C, ...] and [C, M / group, ...] -> [N, M, ...].

    Where `output_shape` says more than the input reaches, the rest is zeros and the bias. Dilated kernels, and
    groups that no kernel takes, are a convolution of the input with zeros between its elements.
    """
    import tvm
    from tvm import relax

    x, weight, bias = (node.input(place) for place in range(3))
    rank = len(node.shape(0)) - 2
    if rank not in _LAYOUTS:
        raise NotImplementedError(f"convolutions of {rank} axes; 1 to 3 can be compiled")
    strides = list(node.attributes.get("strides", [1] * rank))
    dilations = list(node.attributes.get("dilations", [1] * rank))
    extra = list(node.attributes.get("output_padding", [0] * rank))
    groups = int(node.attributes.get("group", 1))
    begins, ends, behind = _pads(node, strides, dilations, extra)
    # Kernels of this package take groups; TVM's rule, for what is left to it, does not.
    grouped = groups == 1 or (rank <= 2 and str(x.ty.dtype) == "float32" and isinstance(weight, tvm.ir.GenericConst))
    if all(dilation == 1 for dilation in dilations) and grouped:
        name, data, _ = _LAYOUTS[rank]
        function = getattr(relax.op.nn, f"{name}_transpose")
        made = function(x, weight, strides, [*begins, *ends], extra, dilations, groups, data, f"IO{data[2:]}")
    else:
        made = _as_convolution(node, strides, dilations, extra, groups, begins, ends)
    if any(behind):
        widths = [0] * 4 + [width for more in behind for width in (0, more)]
        made = relax.op.nn.pad(node.emit(made), widths)
    if bias is None:
        return made
    return relax.op.add(node.emit(made), relax.op.reshape(bias, (1, -1, *[1] * rank)))


def _pads(
    node: OnnxNode, strides: list[int], dilations: list[int], extra: list[int]
) -> tuple[list[int], list[int], list[int]]:
    """What is cut off before and behind each axis, and how many zeros are added behind."""
    spatial, kernel = node.shape(0)[2:], node.shape(1)[2:]
    rank = len(spatial)
    auto = node.attributes.get("auto_pad", b"NOTSET")
    pads = list(node.attributes.get("pads", [0] * 2 * rank))
    wanted = node.attributes.get("output_shape")
    told = False
    if wanted is not None:
        wanted, told = list(wanted)[-rank:], True
    elif auto in (b"SAME_UPPER", b"SAME_LOWER"):
        wanted = [extent * stride for extent, stride in zip(spatial, strides, strict=True)]
    if wanted is None:
        given = pads if auto == b"NOTSET" else [0] * 2 * rank
        return given[:rank], given[rank:], [0] * rank
    begins, ends, behind = [], [], []
    for d in range(rank):
        full = (spatial[d] - 1) * strides[d] + extra[d] + (kernel[d] - 1) * dilations[d] + 1
        total = max(0, full - wanted[d])
        begin = total // 2 if auto == b"SAME_UPPER" else total - total // 2
        begins.append(begin)
        ends.append(total - begin)
        behind.append(max(0, wanted[d] - full) if told else 0)  # as ONNX infers it
    return begins, ends, behind


def _as_convolution(
    node: OnnxNode,
    strides: list[int],
    dilations: list[int],
    extra: list[int],
    groups: int,
    begins: list[int],
    ends: list[int],
) -> Any:
    """The convolution of the input, with zeros between its elements, with the kernel turned around."""
    from tvm import relax, topi

    x, weight = node.input(0), node.input(1)
    channels, per_group, *kernel = node.shape(1)
    rank = len(kernel)
    if any(stride > 1 for stride in strides):
        x = node.builder.emit_te(topi.nn.dilate, x, [1, 1, *strides])
    for axis in range(2, 2 + rank):
        weight = node.emit(relax.op.flip(weight, axis))
    weight = node.emit(relax.op.reshape(weight, (groups, channels // groups, per_group, *kernel)))
    weight = node.emit(relax.op.permute_dims(weight, [0, 2, 1, *range(3, 3 + rank)]))
    weight = node.emit(relax.op.reshape(weight, (groups * per_group, channels // groups, *kernel)))
    reach = [(extent - 1) * dilation for extent, dilation in zip(kernel, dilations, strict=True)]
    front = [length - begin for length, begin in zip(reach, begins, strict=True)]
    back = [length - end + more for length, end, more in zip(reach, ends, extra, strict=True)]
    name, data, weights = _LAYOUTS[rank]
    # What is cut off may be more than the kernel reaches.
    cut = [max(0, -pad) for pad in front], [max(0, -pad) for pad in back]
    function = getattr(relax.op.nn, name)
    padding = [max(0, pad) for pad in (*front, *back)]
    made = node.emit(
        function(x, weight, padding=padding, dilation=dilations, groups=groups, data_layout=data, kernel_layout=weights)
    )
    if not any((*cut[0], *cut[1])):
        return made
    shape = shape_of(made)
    stops = [shape[2 + d] - cut[1][d] for d in range(rank)]
    return relax.op.strided_slice(made, list(range(2, 2 + rank)), cut[0], stops)
