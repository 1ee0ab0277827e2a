"""Calls of TIR functions -> calls of fused functions, which remember their operators and their ONNX nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tvmpipe.passes.frontend.dataflow import operator_name
from tvmpipe.passes.frontend.onnx_nodes import Origin, Origins, nodes_of, renamed
from tvmpipe.passes.graph.primitives import OPERATORS


def fuse_operators(module: Any) -> Any:
    """`module` after TVM's `FuseOps`.

    ::

        a = R.call_tir(matmul, (x, w), ...)      # node "dense"
        b = R.call_tir(tir_tanh, (a,), ...)      # node "activation"
        ->
        b = fused_matmul_tir_tanh(x, w)          # nodes "dense", "activation"

    and `main` says that `fused_matmul_tir_tanh` holds the operators `matmul` and `tanh`.
    """
    from tvm import relax

    functions = {gvar.name_hint for gvar in module.get_global_vars()}
    replay = _Replay(module)
    fused = relax.transform.FuseOps()(module)
    result = renamed(fused, replay.follow(fused))
    result["main"] = result["main"].with_attr(OPERATORS, _operators_inside(fused, functions))
    return result


class _Replay:
    """Finds for each binding of a fused `main` the bindings before fusion that it stands for.

    Equal calls share one fused function, so that the variables inside say nothing of where it is called from. But a
    call of a TIR function is known by what it calls and reads, and what it reads is known by then. Every call and
    every input gets a number, equal ones the same (hash consing): written out, what a call reads would double with
    every residual connection.
    """

    def __init__(self, before: Any) -> None:
        import tvm

        self._numbers: dict[Any, int] = {}  # operator and the numbers of what it reads -> number
        self._fields: dict[int, tuple[int, ...]] = {}  # number of a tuple -> numbers of its fields
        self._made_by: dict[int, list[Any]] = {}  # call -> variables before fusion, of equal calls the first first
        self._stands_for: dict[Any, int] = {}  # variable after fusion -> call
        self._nodes: dict[Any, Origins] = {}
        first: dict[Any, int] = {}
        for binding in _bindings(before):
            call = self._call(binding.value, first)
            first[binding.var] = call
            if isinstance(binding.value, tvm.ir.Call):
                self._made_by.setdefault(call, []).append(binding.var)

    def follow(self, after: Any) -> dict[Any, Origins]:
        """The nodes behind each variable of a fused `main`."""
        for binding in _bindings(after):
            self._follow(binding, after)
        return self._nodes

    def _follow(self, binding: Any, after: Any) -> None:
        import tvm
        from tvm import relax

        value = binding.value
        fused = value.op if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.GlobalVar) else None
        if fused is None:
            call = self._call(value, self._stands_for)
            self._stands_for[binding.var] = call
            source = value.tuple_value if isinstance(value, relax.TupleGetItem) else value
            self._nodes[binding.var] = (
                self._nodes_of(call) if isinstance(value, tvm.ir.Call) else self._nodes.get(source, ())
            )
            return
        function = after[fused]
        inside = {
            parameter: self._resolved(argument, self._stands_for)
            for parameter, argument in zip(function.params, value.args, strict=True)
        }
        found: list[Origin] = []
        for block in function.body.blocks:
            for inner in block.bindings:
                inside[inner.var] = call = self._call(inner.value, inside)
                found += self._nodes_of(call)
        self._stands_for[binding.var] = self._resolved(function.body.body, inside)
        self._nodes[binding.var] = tuple(sorted(set(found)))

    def _nodes_of(self, call: int) -> Origins:
        """The nodes of a call before fusion; of equal calls, those of the next one."""
        variables = self._made_by.get(call, [])
        if not variables:
            return ()
        return nodes_of(variables.pop(0) if len(variables) > 1 else variables[0])

    def _call(self, value: Any, known: Mapping[Any, int]) -> int:
        """The number of what a value computes, of a field of a tuple, or of what the value gives on."""
        import tvm
        from tvm import relax

        if isinstance(value, relax.TupleGetItem):
            whole = self._resolved(value.tuple_value, known)
            if whole in self._fields:
                return self._fields[whole][int(value.index)]
            return self._number("field", whole, value.index)
        if not isinstance(value, tvm.ir.Call):
            return self._resolved(value, known)
        return self._number(operator_name(value), *(self._resolved(argument, known) for argument in value.args))

    def _resolved(self, expression: Any, known: Mapping[Any, int]) -> int:
        import tvm
        from tvm import relax

        if isinstance(expression, relax.Var):
            return known[expression] if expression in known else self._number("input", hash(expression))
        if isinstance(expression, relax.Tuple):
            fields = tuple(self._resolved(field, known) for field in expression.fields)
            number = self._number("tuple", *fields)
            self._fields[number] = fields
            return number
        if isinstance(expression, tvm.ir.GenericConst) and not expression.ty.shape:  # they stay in the fused function
            return self._number("scalar", str(expression.ty.dtype), expression.value.numpy().tobytes())
        if isinstance(expression, tvm.ir.GlobalVar):
            return self._number("function", expression.name_hint)
        if isinstance(expression, tvm.ir.GenericConst):
            return self._number("constant", hash(expression))
        return self._number("other", str(expression))

    def _number(self, *what: Any) -> int:
        return self._numbers.setdefault(what, len(self._numbers))


def _bindings(module: Any) -> Iterator[Any]:
    from tvm import relax

    for block in module["main"].body.blocks:
        yield from (binding for binding in block.bindings if isinstance(binding, relax.VarBinding))


def _operators_inside(module: Any, functions: set[str]) -> dict[str, list[str]]:
    """Function name -> names of the operators fused into it, in order."""
    from tvm import relax

    inside = {name: [_operator_name(name, functions)] for name in functions}
    for gvar, function in module.functions.items():
        if not isinstance(function, relax.Function) or not function.attrs or "Primitive" not in function.attrs:
            continue
        called = [
            binding.value.args[0].name_hint
            for block in function.body.blocks
            for binding in block.bindings
            if operator_name(binding.value) == "relax.call_tir"
        ]
        inside[gvar.name_hint] = [_operator_name(name, functions) for name in called]
    return inside


def _operator_name(function: str, functions: set[str]) -> str:
    """ "conv2d12" -> "conv2d", "tir_tanh" -> "tanh".

    TVM numbers the functions of one operator after the first, and sets some apart from TIR's own by a prefix.
    """
    digits = len(function) - len(function.rstrip("0123456789"))
    for cut in range(len(function) - digits, len(function)):
        if function[:cut] in functions:
            function = function[:cut]
            break
    return function.removeprefix("tir_")
