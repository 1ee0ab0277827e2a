"""RoiAlign in both modes; TVM's importer moves regions by half a pixel before it scales them, ONNX after."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("RoiAlign")
def roi_align(node: OnnxNode) -> Any:
    """[N, C, H, W] and regions [R, 4] -> [R, C, output_height, output_width].

    Mode avg is the mean of samples between four elements each; mode max is the largest of those elements, weighted as
    for the mean.
    """
    from tvm import relax

    x, regions, batch = (node.input(place) for place in range(3))
    default = b"half_pixel" if node.opset >= 16 else b"output_half_pixel"
    aligned = node.attributes.get("coordinate_transformation_mode", default) == b"half_pixel"
    dtype = str(regions.ty.dtype)
    scaled = node.emit(relax.op.multiply(regions, node.const(float(node.attributes.get("spatial_scale", 1.0)), 1)))
    if aligned:
        scaled = node.emit(relax.op.subtract(scaled, node.const(0.5, 1)))
    size = (int(node.attributes.get("output_height", 1)), int(node.attributes.get("output_width", 1)))
    samples = int(node.attributes.get("sampling_ratio", 0))
    if node.attributes.get("mode", b"avg") == b"max":
        return node.builder.emit_te(_largest(size, samples, aligned), x, scaled, batch)
    numbered = relax.op.concat([relax.op.astype(relax.op.expand_dims(batch, 1), dtype), scaled], axis=1)
    return relax.op.vision.roi_align(x, node.emit(numbered), size, 1.0, samples, aligned, "NCHW", "avg")


def _largest(size: tuple[int, int], samples: int, aligned: bool) -> Any:
    """What computes mode max: (x, scaled regions, batch indices) -> [R, C, *size]."""
    from tvm import te, tirx

    def largest(x: Any, regions: Any, batch: Any) -> Any:
        count, channels = regions.shape[0], x.shape[1]
        extents = (x.shape[2], x.shape[3])

        def number(value: float) -> Any:
            return tirx.const(value, x.dtype)

        def axis(region: Any, d: int, cell: Any) -> tuple[Any, Any]:
            """A reduction over the samples of a cell along an axis, and the sample's coordinate."""
            begin, end = regions[region, 1 - d], regions[region, 3 - d]
            length = end - begin if aligned else te.max(end - begin, number(1))
            part = length / number(size[d])
            grid = tirx.const(samples, "int32") if samples > 0 else tirx.Cast("int32", te.ceil(part))
            inner = te.reduce_axis((0, grid), name=f"sample{d}")
            step = (tirx.Cast(x.dtype, inner) + number(0.5)) * part / tirx.Cast(x.dtype, grid)
            return inner, begin + tirx.Cast(x.dtype, cell) * part + step

        def element(region: Any, channel: Any, row: Any, column: Any) -> Any:
            (i, y), (j, z) = axis(region, 0, row), axis(region, 1, column)
            outside, corners = [], []
            for coordinate, extent in ((y, extents[0]), (z, extents[1])):
                last = tirx.Cast(x.dtype, extent - 1)
                outside += [coordinate < number(-1), coordinate > tirx.Cast(x.dtype, extent)]
                inside = te.min(te.max(coordinate, number(0)), last)
                low = tirx.Cast("int32", te.floor(inside))
                rest = inside - te.floor(inside)
                corners.append(((low, number(1) - rest), (te.min(low + 1, extent - 1), rest)))
            image = tirx.Cast("int32", batch[region])
            values = [x[image, channel, a, b] * u * v for a, u in corners[0] for b, v in corners[1]]
            value = te.max(te.max(values[0], values[1]), te.max(values[2], values[3]))
            return te.max(tirx.if_then_else(tirx.any(*outside), number(0), value), axis=[i, j])

        return te.compute((count, channels, *size), element, name="roi_max")

    return largest
