"""A model without what need not run: folded here, then simplified by onnxslim, and believed only once it is compared.

Folding comes first so that onnxslim never sees arithmetic on shapes, which it may get wrong; and an optimiser's result
is taken only where it computes what the given model does.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from tvmpipe.errors import reason_of
from tvmpipe.passes.frontend.agreement import CannotCompareError, Original
from tvmpipe.passes.frontend.folding.fold_static import fold_static
from tvmpipe.passes.frontend.onnx_nodes import Origins
from tvmpipe.passes.frontend.onnx_values import all_names
from tvmpipe.passes.frontend.trace_nodes import trace_nodes
from tvmpipe.passes.frontend.weightless import on_structure
from tvmpipe.tensors import TensorSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Simplified:
    """A model made smaller, the nodes behind the values that it makes, and notes on what was not done.

    `kept` says of nodes of control flow and sequences that are left why they are, by their first result.
    """

    model: onnx.ModelProto
    nodes: Mapping[str, Origins]
    notes: tuple[str, ...]
    kept: Mapping[str, str]


def simplify(model: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> Simplified:
    """`model` (static inputs, nodes in order) made smaller.

    The result has the same inputs (perhaps without those that nothing reads) and outputs.
    """
    kept: dict[str, str] = {}
    folded = fold_static(model, kept)
    simplified, notes = _believed(model, folded, inputs)
    return Simplified(simplified, trace_nodes(model if simplified is model else folded, simplified), notes, kept)


def _believed(
    model: onnx.ModelProto, folded: onnx.ModelProto, inputs: Sequence[TensorSpec]
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The smallest of the models that computes what `model` does, and notes."""
    slimmed, notes = _slim(folded)
    try:
        original = Original(model, inputs)
    except CannotCompareError as error:
        note = f"{error}, so that nothing shows that simplifying keeps its results: it goes on without onnxslim"
        return folded, _told(note, *notes)
    if slimmed is not None:
        difference = original.difference(slimmed)
        if difference is None:
            return slimmed, notes
        notes = _told(f"onnxslim changed what the model computes and was skipped: {difference}", *notes)
    difference = original.difference(folded)
    if difference is None:
        return folded, notes
    note = f"folding constants changed what the model computes and was skipped: {difference}"
    return model, _told(note, *notes)


def _told(note: str, *others: str) -> tuple[str, ...]:
    logger.warning(note)
    return (*others, note)


def _slim(model: onnx.ModelProto) -> tuple[onnx.ModelProto | None, tuple[str, ...]]:
    """What onnxslim makes of a model; None, and why, where that is of no use."""
    import onnxslim

    def slim(structure: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(structure)
        unwanted = _name_unwanted(copy)
        simplified: onnx.ModelProto = onnxslim.slim(copy)
        for node in simplified.graph.node:
            node.output[:] = ["" if name in unwanted else name for name in node.output]
        return simplified

    try:
        with quiet():
            slimmed = on_structure(model, slim)
    except Exception as error:  # noqa: BLE001  # an optimiser may fail on any valid model; it is not needed then
        return None, _told(f"onnxslim could not simplify the model and was skipped: {reason_of(error)}")
    # It may have dropped what it thinks unused; a changed signature is not acceptable.
    if [value.name for value in slimmed.graph.output] != [value.name for value in model.graph.output]:
        return None, _told("onnxslim changed the outputs of the model and was skipped")
    # Shapes that it infers of outputs may be false: those of uneven parts are.
    del slimmed.graph.output[:]
    slimmed.graph.output.extend(model.graph.output)
    return slimmed, ()


def _name_unwanted(model: onnx.ModelProto) -> frozenset[str]:
    """Give a name to each result that a node leaves out; returns these names.

    onnxslim takes such results, and inputs that are left out, for one tensor called "": every node that makes it comes
    before every node that reads it, and it looks at all paths between them.
    """
    taken = set(all_names(model.graph))
    names: set[str] = set()
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if not name:
                fresh = f"unwanted{len(names)}"
                while fresh in taken:
                    fresh += "_"
                names.add(fresh)
                node.output[place] = fresh
    return frozenset(names)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that is printed meanwhile gets to stdout, which belongs to our caller's data."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
