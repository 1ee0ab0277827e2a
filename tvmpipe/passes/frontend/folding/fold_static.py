"""Fold what is known before a model runs: shapes, and all that is computed from shapes and constants alone.

One walk in topological order. The type of each value is inferred from its node alone, so that what a file declares of
values between its inputs and outputs does not matter; and what reads only known values is run in ONNX Runtime, so that
the numbers are those that the model itself would compute. Equal nodes are kept once: a constant made of a shared
weight is made once, however many nodes ask for it.

Control flow, sequences and optionals are no part of a compiled model: where the walk meets such a node, it takes the
nodes that it amounts to instead, and folds these (expand_*.py). What amounts to no fixed set of nodes stays.
"""

from __future__ import annotations

import onnx

from tvmpipe.passes.frontend.folding.expand_branches import expand_if
from tvmpipe.passes.frontend.folding.expand_loops import expand_loop, expand_scan
from tvmpipe.passes.frontend.folding.expand_sequences import SEQUENCES, expand_identity
from tvmpipe.passes.frontend.folding.expansion import guarded
from tvmpipe.passes.frontend.folding.folder import Folder

EXPANSIONS = {"Identity": expand_identity, "If": expand_if, "Loop": expand_loop, "Scan": expand_scan, **SEQUENCES}


def fold_static(model: onnx.ModelProto, kept: dict[str, str] | None = None) -> onnx.ModelProto:
    """`model` (sorted, inputs static, functions inlined) without the nodes whose results are known.

    Inputs and outputs keep their names and order; their types and `value_info` are what is inferred. What cannot be
    inferred or run here is left as it is. `kept` gets the reason of each node of control flow or sequences that stays,
    by its first result.
    """
    folder = Folder(model, EXPANSIONS, guarded)
    folded = folder.run()
    if kept is not None:
        kept.update(folder.kept)
    return folded
