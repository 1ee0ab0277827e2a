"""What import and rewrites share: who makes and who reads the variables of `main`, and how a mutator is run over it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any


def definitions_of(module: Any) -> tuple[dict[Any, Any], dict[Any, int]]:
    """(variable -> the expression bound to it, variable -> how many bindings read it), of `main`'s dataflow blocks."""
    from tvm import relax

    definition: dict[Any, Any] = {}
    for block in module["main"].body.blocks:
        if isinstance(block, relax.DataflowBlock):
            definition.update((binding.var, binding.value) for binding in block.bindings)
    return definition, {variable: len(users) for variable, users in readers_of(module).items()}


def readers_of(module: Any) -> dict[Any, list[Any]]:
    """Variable -> the variables whose bindings read it, in the order they run, in `main`'s dataflow blocks."""
    from tvm import relax

    readers: dict[Any, list[Any]] = {}
    for block in module["main"].body.blocks:
        if isinstance(block, relax.DataflowBlock):
            place = {binding.var: number for number, binding in enumerate(block.bindings)}
            for variable, users in relax.analysis.udchain(block).items():
                readers[variable] = sorted(users, key=lambda user: place.get(user, len(place)))
    return readers


def operator_name(value: Any) -> str:
    """The name of the operator that an expression calls ("relax.add"), "" for another expression."""
    return str(getattr(getattr(value, "op", None), "name", ""))


def calls_any(module: Any, operators: Collection[str]) -> bool:
    """Whether `main` calls one of these operators ("relax.add")."""
    return any(
        operator_name(getattr(binding, "value", None)) in operators
        for block in module["main"].body.blocks
        for binding in block.bindings
    )


def mutated(mutator: Any, module: Any) -> Any:
    """A copy of `module` with what a `PyExprMutator` made for it makes of `main`, and the functions that it added."""
    with closed_blocks(mutator.builder_):
        main = mutator.visit_expr(module["main"])
    result = mutator.builder_.get()
    result["main"] = main
    return result


@contextlib.contextmanager
def closed_blocks(builder: Any) -> Iterator[None]:
    """Where the body raises, ends the blocks that `builder` has begun.

    TVM would complain of them on stderr when it destroys the builder, long after the reason.
    """
    try:
        yield
    except Exception:
        with contextlib.suppress(Exception):  # raised where there is none left
            while True:
                builder._end_block()
        raise
