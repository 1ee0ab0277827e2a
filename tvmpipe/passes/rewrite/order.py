"""Every rewrite of a Relax module between import and primitives, in order, and why each has its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmpipe.errors import UnsupportedModelError, reason_of
from tvmpipe.passes.rewrite.annotate_spreading import annotate_spreading
from tvmpipe.passes.rewrite.block_channels import block_channels
from tvmpipe.passes.rewrite.convolve_along_width import convolve_along_width
from tvmpipe.passes.rewrite.copy_results import copy_results
from tvmpipe.passes.rewrite.delay_dequantisation import delay_dequantisation
from tvmpipe.passes.rewrite.find_attention import find_attention
from tvmpipe.passes.rewrite.find_cached_attention import find_cached_attention
from tvmpipe.passes.rewrite.find_norms import find_norms
from tvmpipe.passes.rewrite.fold_affine import fold_affine
from tvmpipe.passes.rewrite.fold_constants import fold_constants
from tvmpipe.passes.rewrite.fuse_operators import fuse_operators
from tvmpipe.passes.rewrite.join_nodes import flow_of, inherit_nodes, join_nodes
from tvmpipe.passes.rewrite.legalize_operators import legalize_operators
from tvmpipe.passes.rewrite.multiply_integers import multiply_integers
from tvmpipe.passes.rewrite.narrow_weights import narrow_weights
from tvmpipe.passes.rewrite.pack_integers import pack_integers
from tvmpipe.passes.rewrite.pack_weights import pack_weights
from tvmpipe.passes.rewrite.share_results import share_results
from tvmpipe.passes.rewrite.write_states import write_states

After = Callable[[str, Any], None]
"""Called with the name of a rewrite and the module that it made."""


@dataclass(frozen=True)
class Rewrite:
    """`apply` makes a new module of one; `why` says why it stands where it does."""

    name: str
    apply: Callable[[Any], Any]
    why: str


def _tvm(name: str, where: str = "transform") -> Callable[[Any], Any]:
    """TVM's Relax pass of that name, of `tvm.relax.transform` or another module of Relax, with its defaults."""

    def apply(module: Any) -> Any:
        from tvm import relax

        before = flow_of(module)
        return inherit_nodes(before, getattr(getattr(relax, where), name)()(module))

    return apply


REWRITES: tuple[Rewrite, ...] = (
    Rewrite(
        "remove_unused",
        _tvm("DeadCodeElimination"),
        "first, so that results nobody reads (the statistics of a batch norm) do not count as readers",
    ),
    Rewrite(
        "delay_dequantisation",
        delay_dequantisation,
        "before constants are folded, which would make floats of quantised weights; before what looks for such weights",
    ),
    Rewrite(
        "multiply_integers",
        multiply_integers,
        "while dequantised weights are still known as such; what it leaves of them is folded",
    ),
    Rewrite(
        "pack_weights",
        pack_weights,
        "after products of integers, which come first; before constants are folded, which makes floats of such weights",
    ),
    Rewrite(
        "find_norms",
        find_norms,
        "before constants are folded and operators decomposed: it knows norms by the operators that exporters write",
    ),
    Rewrite(
        "fold_constants",
        fold_constants,
        "after norms, whose scales and shifts it views anew; before what asks whether an operand is constant",
    ),
    Rewrite(
        "share_results",
        share_results,
        "once constants are folded, so that more calls are equal; before what makes primitives of them",
    ),
    Rewrite(
        "write_states",
        write_states,
        "before attention is looked for: that over states is known by what writes into them",
    ),
    Rewrite(
        "find_cached_attention",
        find_cached_attention,
        "before find_attention, which would take the same products for attention over all that a state has room for",
    ),
    Rewrite(
        "find_attention",
        find_attention,
        "once scales and masks are constants; before softmax and matmul become loops",
    ),
    Rewrite(
        "convolve_along_width",
        convolve_along_width,
        "once weights are constants; before what reads images: batch norms that are folded, blocks of channels",
    ),
    Rewrite(
        "fold_affine",
        fold_affine,
        "once weights are constants; before a batch norm is decomposed and a convolution's weight is packed",
    ),
    Rewrite(
        "decompose_operators",
        _tvm("DecomposeOpsForInference"),
        "the batch norms that fold_affine left, which have no loops of their own",
    ),
    Rewrite(
        "evaluate_constants",
        _tvm("FoldConstant"),
        "what decomposing made of constants, so that blocks are packed of constants and not of expressions",
    ),
    Rewrite(
        "block_channels",
        block_channels,
        "last of those that read operators: it makes calls of TIR functions of them",
    ),
    Rewrite("pack_integers", pack_integers, "beside block_channels, and for the same reason"),
    Rewrite(
        "dispatch_sort_scan",
        _tvm("DispatchSortScan", "backend"),
        "TVM's loops for sorts and cumulative sums; before legalizing, whose rules for those are for one GPU thread",
    ),
    Rewrite(
        "legalize_operators",
        legalize_operators,
        "every operator that is left becomes a call of a TIR function, which is what fusion fuses",
    ),
    Rewrite(
        "annotate_patterns",
        _tvm("AnnotateTIROpPattern"),
        "fusion asks of each TIR function whether it is elementwise, a reduction or opaque",
    ),
    Rewrite(
        "annotate_spreading",
        annotate_spreading,
        "once patterns are known; before fusion, which would fuse a kernel with what is larger than its result",
    ),
    Rewrite(
        "evaluate_packing",
        _tvm("FoldConstant"),
        "the packing of weights that legalizing left to run, so that it is not fused into a kernel",
    ),
    Rewrite(
        "narrow_weights",
        narrow_weights,
        "once weights are packed, by code for float32; before fusion, which passes a primitive its weights as they are",
    ),
    Rewrite("fuse_operators", fuse_operators, "calls of TIR functions become calls of fused functions"),
    Rewrite("fuse_loops", _tvm("FuseTIR"), "fused functions become one TIR function each: the primitives"),
    Rewrite("remove_unfused", _tvm("DeadCodeElimination"), "functions of operators that were fused are called no more"),
    Rewrite("copy_results", copy_results, "last, so that nothing takes copies for what they copy"),
)


def apply_rewrites(module: Any, model_name: str, after: After | None = None) -> Any:
    """The module of primitives that `REWRITES` make of an imported one.

    Raises UnsupportedModelError for what TVM cannot lower.
    """
    import tvm

    # Constants are evaluated by running them here, hence the host's own target.
    with tvm.target.Target("llvm"):
        for rewrite in REWRITES:
            before = flow_of(module)
            try:
                module = join_nodes(before, rewrite.apply(module))
            except UnsupportedModelError:
                raise
            except Exception as error:  # TVM reports what it cannot legalize with many exception types
                raise UnsupportedModelError(f"TVM cannot lower {model_name}: {reason_of(error)}") from error
            if after is not None:
                after(rewrite.name, module)
    return module
