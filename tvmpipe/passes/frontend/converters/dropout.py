"""Dropout, which drops nothing when a model is used; TVM's converter knows no mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Dropout")
def dropout(node: OnnxNode) -> Any:
    """The input, and a mask that is true everywhere.

    Before opset 7 an attribute says whether the model is used, from 12 on an input whether it is trained; what a model
    in training drops is random, unless the ratio is 0.
    """
    from tvm import relax

    x = node.input(0)
    if node.opset < 7:
        trains = not node.attributes.get("is_test", 0)
    else:
        training = node.known(2, "training_mode") if node.opset >= 12 else None
        trains = training is not None and bool(training.reshape(()))
    if trains:
        ratio = node.known(1, "ratio") if node.opset >= 12 else node.attributes.get("ratio")
        if ratio is None or float(ratio) != 0:
            raise NotImplementedError("in training mode it draws random numbers; export the model for inference")
    if node.result_count < 2:
        return x
    return relax.Tuple([x, relax.const(np.ones(node.shape(0)), "bool" if node.opset >= 10 else str(x.ty.dtype))])
