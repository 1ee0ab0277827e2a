"""Which inputs of a model decide shapes: the tests of the onnx package give them at run time, models have constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from tvmpipe.passes.frontend.onnx_values import reads

_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
_WINDOWS = "Hann Hamming Blackman"

DECIDING: Mapping[str, Sequence[int]] = {
    **{f"Reduce{name}": (1,) for name in _REDUCTIONS.split()},
    **{f"{name}Window": (0,) for name in _WINDOWS.split()},
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "If": (0,),
    "Loop": (0, 1),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Operator -> places of the inputs that decide its results' shapes, or which axes and elements it reads."""

_OF_FORM = ("Shape", "Size", "SequenceLength", "OptionalHasElement")  # what they make depends on no element


def deciding_inputs(model: onnx.ModelProto) -> set[str]:
    """Inputs of the model that reach such a place, through nodes that compute shapes from them."""
    maker = {name: node for node in model.graph.node for name in node.output if name}
    wanted = [
        node.input[place]
        for node in model.graph.node
        for place in DECIDING.get(node.op_type, ())
        if place < len(node.input)
    ]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in maker and maker[name].op_type not in _OF_FORM:
            wanted.extend(reads(maker[name]))
    return seen & {value.name for value in model.graph.input if value.type.HasField("tensor_type")}
