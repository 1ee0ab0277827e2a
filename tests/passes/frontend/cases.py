"""Many small ONNX nodes compiled as one model, each compared with what ONNX says that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvmpipe.equality import Expected, compare
from tvmpipe.passes.frontend.folding.evaluate_node import evaluate
from tvmpipe.passes.frontend.import_onnx import import_onnx
from tvmpipe.passes.kernels.legalize import legalizations

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One node: the values of its inputs, those of which are constants in the model, and which outputs it has.

    `expected` says what it makes where neither ONNX Runtime nor the reference implementation can; `reference` asks the
    latter first.
    """

    operator: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Sequence[int] = ()
    outputs: Sequence[bool] = (True,)
    domain: str = ""
    expected: Sequence[Array] = ()
    reference: bool = False


def check_cases(cases: Sequence[Case], opset: int = 23) -> None:
    """Compile the cases as one model, run it, and compare each result."""
    nodes: list[onnx.NodeProto] = []
    inputs: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    wanted: dict[str, Array] = {}
    for number, case in enumerate(cases):
        names = []
        for place, array in enumerate(case.inputs):
            name = "" if array is None else f"{case.operator}{number}.x{place}"
            names.append(name)
            if array is not None:
                (weights if place in case.constants else inputs)[name] = array
        results = [f"{case.operator}{number}.y{place}" if made else "" for place, made in enumerate(case.outputs)]
        nodes.append(helper.make_node(case.operator, names, results, domain=case.domain, **case.attributes))
        made = case.expected or _expected(nodes[-1], inputs | weights, case, opset)
        wanted |= {name: array for name, array in zip(results, made, strict=True) if name}
    graph = helper.make_graph(nodes, "cases", _values(inputs), _values(wanted), _tensors(weights))
    imports = {case.domain for case in cases} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in imports)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 21 else 11)
    results_of = _run(model, inputs)
    wrong = []
    for name, want in wanted.items():
        have = results_of[name]
        assert have.dtype == want.dtype, name
        found = compare({name: have}, Expected({name: want}, half=want.dtype == np.float16))
        if found.verdict == "different":
            wrong.append(f"{name}: {found.sentence}\n{have}\nand not\n{want}")
    assert not wrong, "\n".join(wrong)


def _run(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What TVM computes of the imported model as it is: no rewrite, no schedule, code that compiles fast."""
    import tvm
    from tvm import relax

    imported = import_onnx(model, {}, {})
    module = relax.transform.LegalizeOps(legalizations())(imported.module)
    kept = [str(name) for name in module["main"].attrs["tvmpipe.inputs"]]
    built = relax.build(module, tvm.target.Target({"kind": "llvm", "opt-level": 0}))
    machine = relax.VirtualMachine(built, tvm.cpu())
    made = machine["main"](*(tvm.runtime.tensor(inputs[name].copy()) for name in kept))
    results = [made] if hasattr(made, "numpy") else list(made)
    names = [spec.name for spec in imported.signature.outputs]
    return {name: result.numpy() for name, result in zip(names, results, strict=True)}


def _expected(node: onnx.NodeProto, values: Mapping[str, Array], case: Case, opset: int) -> list[Array]:
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(case.domain, 1)] if case.domain else []
    read = {name: values[name] for name in node.input if name}
    if case.reference:
        made = [np.asarray(array) for array in ReferenceEvaluator(node).run(None, read)]
        wide = any(array.dtype == np.float64 for array in read.values())  # it forgets that some results are not
        return [array.astype(np.float32) if array.dtype == np.float64 and not wide else array for array in made]
    model = helper.make_model(helper.make_graph([], "", [], []), opset_imports=opsets, ir_version=11)
    found = evaluate(node, read, model)
    assert found is not None, f"nothing here runs {node.op_type}"
    return found


def _values(arrays: Mapping[str, Array]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]


def _tensors(arrays: Mapping[str, Array]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]
