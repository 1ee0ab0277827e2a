"""Small modules before and after a rewrite, to be read and to be compared: `python -m tests.passes.rewrite.golden`.

A file `REWRITE.CASE.before.relax` is a Relax module as TVMScript, and `REWRITE.CASE.after.relax` what the rewrite of
that name in `REWRITES` makes of it. `REWRITE.CASE.unchanged.relax` is a module that the rewrite must leave as it is.
Comments at the top of a file say what the harness needs:

    # constants: weight=uniform(0.5,1.5) scale=2.0    parameters that are constants, and their numbers (default: normal;
                                                      half: normal, rounded to float16; counted: 0, 1, 2, ..)
    # first: legalize_operators annotate_patterns      rewrites to apply before, where TVMScript would be long

In what is printed, constants are parameters again; small ones show their numbers. Each variable of a `before` counts as
an ONNX node of its own name, and the comments at the end of an `after` say which of them each variable comes from.
TIR functions are left out but for their names: what kernels compute is tested with the kernels.

To write all `after` files anew: `python -m tests.passes.rewrite.golden --write`, and look at the difference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.onnx_nodes import Origin, nodes_of, renamed
from tvmpipe.passes.graph.primitives import is_tensor_constant
from tvmpipe.passes.rewrite.join_nodes import flow_of, join_nodes
from tvmpipe.passes.rewrite.order import REWRITES

FOLDER = Path(__file__).parent
_SHOWN = 4  # constants of at most so many numbers show them
_BY_NAME = {rewrite.name: rewrite for rewrite in REWRITES}


@dataclass(frozen=True)
class Case:
    """A module to rewrite; `path` is the file that has it."""

    path: Path

    @property
    def rewrite(self) -> str:
        return self.path.name.split(".")[0]

    @property
    def name(self) -> str:
        return ".".join(self.path.name.split(".")[:2])

    @property
    def unchanged(self) -> bool:
        """Whether the rewrite must leave the module as it is."""
        return self.path.name.endswith(".unchanged.relax")

    @property
    def after(self) -> Path:
        return self.path.with_name(f"{self.name}.after.relax")


def cases() -> list[Case]:
    """All cases, in the order of their names."""
    paths = (path for path in FOLDER.glob("*.relax") if path.name.split(".")[-2] in ("before", "unchanged"))
    return [Case(path) for path in sorted(paths)]


def rewritten(case: Case) -> tuple[str, str]:
    """The module of a case before and after its rewrite, as text."""
    module = _read(case.path.read_text(encoding="utf-8"))
    before = text_of(module)
    return before, text_of(_apply(case.rewrite, module))


def text_of(module: Any) -> str:
    """`main` as TVMScript, constants as parameters, and what each variable comes from."""
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    constants: list[Any] = []

    @mutator
    class Lifter(PyExprMutator):  # type: ignore[misc]
        def visit_generic_const_(self, constant: Any) -> Any:
            if not is_tensor_constant(constant) or not constant.ty.shape:
                return constant
            constants.append((relax.Var(f"constant{len(constants)}", constant.ty), constant.value.numpy()))
            return constants[-1][0]

    main = module["main"]
    variables = flow_of(module).variables
    body = Lifter(module).visit_expr(main)
    function = relax.Function([*body.params, *(variable for variable, _ in constants)], body.body, body.ret_ty)
    functions = sorted(gvar.name_hint for gvar in module.get_global_vars() if gvar.name_hint != "main")
    script = function.with_attr("global_symbol", "main").script(show_meta=False)
    lines = [line for line in script.splitlines() if line and not line.startswith("# from")]
    lines += [f"# {variable.name}: {_numbers(array)}" for variable, array in constants if array.size <= _SHOWN]
    lines += [f"# functions: {', '.join(functions)}"] if functions else []
    return (
        "\n".join([*lines, "# from:", *(f"#   {variable.name} <- {_labels(variable)}" for variable in variables)])
        + "\n"
    )


def _labels(variable: Any) -> str:
    return ", ".join(origin.label for origin in nodes_of(variable)) or "-"


def _numbers(array: NDArray[Any]) -> str:
    return " ".join(f"{number:.4g}" for number in array.reshape(-1))


def _apply(name: str, module: Any) -> Any:
    import tvm

    before = flow_of(module)
    with tvm.target.Target("llvm"):
        return join_nodes(before, _BY_NAME[name].apply(module))


def _read(text: str) -> Any:
    """The module of a file, its constants bound and its variables named after themselves."""
    import tvm
    from tvm import relax

    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    function = tvm.script.from_source(text)
    module = tvm.IRModule({"main": function})
    shapes = {parameter.name: parameter.ty for parameter in function.params}
    bound = {}
    for place, (name, recipe) in enumerate(re.findall(r"(\w+)(?:=(\S+))?", _field(header, "constants"))):
        shape = tuple(int(extent) for extent in shapes[name].shape)
        bound[name] = _array(recipe, shape, np.dtype(str(shapes[name].dtype)), place)
    module = relax.transform.BindParams("main", bound)(module)
    variables = [binding.var for block in module["main"].body.blocks for binding in block.bindings]
    module = renamed(module, {v: (Origin(place, v.name),) for place, v in enumerate(variables)})
    for name in _field(header, "first").split():
        module = _apply(name, module)
    return module


def _field(header: str, name: str) -> str:
    found = re.search(rf"^# {name}: (.*)$", header, re.MULTILINE)
    return found.group(1) if found else ""


def _array(recipe: str, shape: tuple[int, ...], dtype: np.dtype[Any], seed: int) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    if recipe.startswith("uniform("):
        low, high = (float(number) for number in recipe[8:-1].split(","))
        return random.uniform(low, high, shape).astype(dtype)
    if recipe == "counted":
        return np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    if recipe == "half":
        return random.standard_normal(shape).astype(np.float16).astype(dtype)
    return np.full(shape, float(recipe), dtype) if recipe else random.standard_normal(shape).astype(dtype)
