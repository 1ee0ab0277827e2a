"""Find attention as ONNX writes it (matmul, scale, mask, softmax, matmul) and make one primitive of it."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.kernels.attention.compute import attention
from tvmpipe.passes.kernels.base import BLOCK, OPAQUE, is_float32, shape_of
from tvmpipe.passes.rewrite.attention_scores import scores_behind


def find_attention(module: Any) -> Any:
    """`module` with the attention in `main` as calls of one function each.

    ::

        a = R.matmul(query, key)       # key is [..., width, length]
        b = R.multiply(a, scale)       # and divide, by constants, in any number
        c = R.add(b, mask)             # in any number, none before a scale
        d = R.nn.softmax(c, axis=-1)
        y = R.matmul(d, value)
        ->
        y = R.call_tir(attention, (query, key, value, mask), ...)
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    definition, readers = definitions_of(module)

    def made_by(variable: Any, *operators: str) -> Any:
        """The call that makes a variable nothing else reads, if it is one of the operators."""
        call = definition.get(variable) if isinstance(variable, relax.DataflowVar) else None
        return call if operator_name(call) in operators and readers.get(variable) == 1 else None

    def match(product: Any) -> tuple[list[Any], float] | None:
        """([query, key, value, *masks], scale) of a matmul that ends an attention."""
        softmax = made_by(product.args[0], "relax.nn.softmax")
        if softmax is None or int(softmax.attrs.axis) not in (-1, len(shape_of(softmax)) - 1):
            return None
        found = scores_behind(softmax.args[0], made_by)
        if found is None:
            return None
        (query, key), scale, masks = found[0].args, *found[1:]
        value = product.args[1]
        return ([query, key, value, *masks], scale) if _fits(query, key, value, masks) else None

    @mutator
    class Fuser(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            found = None
            if operator_name(call) == "relax.matmul" and is_float32(*call.args):
                found = match(call)
            if found is None:
                return super().visit_call_(call)
            tensors, scale = found
            return self.builder_.call_te(
                lambda *placeholders: attention(*placeholders, scale=scale),
                *(self.visit_expr(tensor) for tensor in tensors),
                primfunc_name_hint="attention",
                primfunc_attrs={"op_pattern": OPAQUE},
            )

    return relax.transform.DeadCodeElimination()(mutated(Fuser(module), module))


def _fits(query: Any, key: Any, value: Any, masks: list[Any]) -> bool:
    shapes = [shape_of(tensor) for tensor in (query, key, value)]
    *batch, m, _ = shapes[0]
    n, width = shapes[2][-2:]
    if any(len(shape) < 3 or list(shape[:-2]) != batch for shape in shapes) or width % BLOCK:
        return False
    whole = (*batch, m, n)
    return all(
        len(shape) <= len(whole)
        and all(a in (1, b) for a, b in zip(shape, whole[len(whole) - len(shape) :], strict=True))
        for shape in map(shape_of, masks)
    )
