"""Col2Im: columns of blocks added up to an image."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Col2Im")
def col2_im(node: OnnxNode) -> Any:
    """[N, C x block, columns] -> [N, C, image]: each element of the image is the sum of the blocks that cover it."""
    import tvm
    from tvm import te

    image = [int(extent) for extent in node.required(1, "image_shape")]
    block = [int(extent) for extent in node.required(2, "block_shape")]
    rank = len(image)
    dilations = list(node.attributes.get("dilations", [1] * rank))
    strides = list(node.attributes.get("strides", [1] * rank))
    pads = list(node.attributes.get("pads", [0] * 2 * rank))
    columns = [
        (image[d] + pads[d] + pads[d + rank] - dilations[d] * (block[d] - 1) - 1) // strides[d] + 1 for d in range(rank)
    ]
    batch, rows, _ = node.shape(0)
    size = 1
    for extent in block:
        size *= extent

    def added(x: Any) -> Any:
        offsets = [te.reduce_axis((0, extent), name=f"k{d}") for d, extent in enumerate(block)]

        def element(n: Any, c: Any, *place: Any) -> Any:
            row, column, inside = c, tvm.tirx.const(0, "int64"), []
            for d in range(rank):
                row = row * block[d] + offsets[d]
                begin = place[d] + pads[d] - offsets[d] * dilations[d]
                number = tvm.tirx.floordiv(begin, strides[d])
                inside += [begin >= 0, tvm.tirx.floormod(begin, strides[d]) == 0, number < columns[d]]
                column = column * columns[d] + number
            value = tvm.tirx.if_then_else(tvm.tirx.all(*inside), x[n, row, column], tvm.tirx.const(0, x.dtype))
            return te.sum(value, axis=offsets)

        return te.compute((batch, rows // size, *image), element, name="col2im")

    return node.builder.emit_te(added, node.input(0))
