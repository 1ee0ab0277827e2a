"""If: the branch that is known to run, or both and a choice between their results."""

from __future__ import annotations

import onnx

from tvmpipe.passes.frontend.folding.expansion import choose, inline, known_scalar, truth
from tvmpipe.passes.frontend.folding.folder import Folder
from tvmpipe.passes.frontend.onnx_values import attribute_of


def expand_if(folder: Folder, node: onnx.NodeProto) -> None:
    """Take the nodes of one branch where the condition is known, of both where it depends on data.

    Both are only computed where that changes nothing but time: neither is random, what they make has fixed shapes, and
    integer divisions and indices that would fail in the branch that does not count are made harmless (`guarded`).
    """
    then, other = attribute_of(node, "then_branch"), attribute_of(node, "else_branch")
    known = known_scalar(folder, node.input[0])
    if known is not None:
        results = inline(folder, then if known else other, {}, "")
    else:
        with folder.whole():
            condition = truth(folder, node.input[0])
            with folder.speculation():
                made, otherwise = inline(folder, then, {}, "then"), inline(folder, other, {}, "else")
            pairs = zip(made, otherwise, strict=True)
            results = [choose(folder, condition, yes, no) for yes, no in pairs]
    for name, result in zip(node.output, results, strict=False):
        folder.bind(name, result)
