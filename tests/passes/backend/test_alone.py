"""What TVM imports and then cannot lower or generate code for is left to ONNX Runtime, and faults of ours are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import helper

import tvmpipe
from tests.passes.compiled import model_of, normal
from tvmpipe.errors import UnsupportedModelError, raised_by_tvm
from tvmpipe.passes import driver
from tvmpipe.passes.frontend import importer
from tvmpipe.passes.frontend.arithmetic.quantised import elementwise
from tvmpipe.passes.frontend.converters import converters
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.kernels.base import OPAQUE
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.plan import to_yaml
from tvmpipe.passes.rewrite import order
from tvmpipe.passes.rewrite.order import Rewrite
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import parse_cluster

ONE = parse_cluster('[[device]]\nname = "one"\nthreads = 1\n')


def no_code(node: Any) -> Any:
    """An intrinsic that LLVM has no code for."""
    from tvm import te, tirx

    def loops(x: Any) -> Any:
        return te.compute(x.shape, lambda *at: tirx.call_intrin("float32", "tirx.mma_fill", x(*at)), name="rare")

    return elementwise(node.builder, loops, node.input(0), name="rare", pattern=OPAQUE)


def no_loops(node: Any) -> Any:
    """An operator that TVM has no rule for to lower it with this layout."""
    from tvm import relax

    x = node.input(0)
    blocked = node.builder.emit(relax.op.reshape(x, (1, 1, *x.ty.shape)))
    pooled = node.builder.emit(relax.op.image.resize2d(blocked, (3, 7), method="middling"))
    return relax.op.reshape(pooled, x.ty.shape)


def model() -> onnx.ModelProto:
    chain = [("Erf", "x", "b"), ("MatMul", "b", "c"), ("Tanh", "c", "y")]
    nodes = [
        helper.make_node(kind, [read, *["w"] * (kind == "MatMul")], [made], name=f"the {kind}")
        for kind, read, made in chain
    ]
    return model_of(nodes, {"x": [3, 7]}, {"w": normal(0, 7, 7)})


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def break_(**operators: Callable[[Any], Any]) -> None:
        own = {**converters(), **{("", name): converter for name, converter in operators.items()}}
        monkeypatch.setattr(importer, "converters", lambda: own)

    return break_


def test_what_tvm_cannot_compile_is_left_to_onnx_runtime(broken: Callable[..., None], tmp_path: Path) -> None:
    broken(Erf=no_code, Tanh=no_loops)
    bundle = tvmpipe.build(model(), ONE, cost_model=Roofline())
    codegens = [stage.codegen for stage in bundle.manifest.plan.stages]
    assert codegens == ["onnxruntime", "llvm", "onnxruntime"]
    sample = {"x": normal(1, 3, 7)}
    with run_in_process(bundle) as pipe:
        assert Reference(model().SerializeToString()).compare(pipe.run(sample), sample).equal
    report = next(file for file in bundle.manifest.files if file.path == "report.json")
    facts = json.loads(bundle.path_of(report).read_text())["fallback"]
    assert [list(one["reasons"]) for one in facts] == [["the Erf"], ["the Tanh"]]
    generated, lowered = (reason for one in facts for reason in one["reasons"].values())
    # The plan file says so, too, and what it says is done again.
    plan = next(file for file in bundle.manifest.files if file.path == "plan.yaml")
    text = bundle.path_of(plan).read_text()
    assert yaml.safe_load(text)["onnxruntime"] == {"the Erf": generated, "the Tanh": lowered}
    (tmp_path / "plan.yaml").write_text(text)
    again = driver.plan(driver.front(model()), ONE, BuildOptions(plan=tmp_path / "plan.yaml", cost_model=Roofline()))
    assert to_yaml(again.plan, again.graph, again.signature.sha256) == text
    assert lowered.startswith("TVM cannot lower node 'the Tanh' (image.resize2d): ")
    assert "Unknown resize method" in lowered
    assert generated.startswith("TVM cannot compile node 'the Erf' (rare) for native: unknown intrinsic")


def test_without_fallback_it_is_refused(broken: Callable[..., None]) -> None:
    helps = r"; the {} reads float32\[3,7\]; ONNX Runtime can run it, without --no-fallback \(fallback=False\)$"
    with pytest.raises(UnsupportedModelError, match="^this is why" + helps.format("Erf")):
        driver.front(model(), ImportOptions(fallback=False), left={"the Erf": "this is why"})
    broken(Tanh=no_loops)
    with pytest.raises(UnsupportedModelError, match=r"^TVM cannot lower node 'the Tanh' .*" + helps.format("Tanh")):
        driver.front(model(), ImportOptions(fallback=False))


def test_a_fault_here_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a rewrite: it is raised as it was."""

    def fault(module: Any) -> Any:
        raise KeyError("of ours")

    broken = (Rewrite("broken", fault, "a fault"), *order.REWRITES)
    monkeypatch.setattr(order, "REWRITES", broken)
    with pytest.raises(UnsupportedModelError, match="TVM cannot lower case: 'of ours'") as caught:
        driver.front(model())
    assert isinstance(caught.value.__cause__, KeyError)


def test_who_raised() -> None:
    """Not who was called by TVM, nor who called it with what is no model of the world."""
    import tvm
    from tvm import relax, te, topi

    def called_back(_: object) -> None:
        raise KeyError("of ours")

    x = te.placeholder((2, 3), name="x")
    cases: list[tuple[Callable[[], object], bool]] = [
        (lambda: topi.image.resize2d(x, [0.0] * 4, [1, 1], layout="abc"), True),
        (lambda: relax.BlockBuilder().normalize(relax.op.exp(relax.Var("b", relax.TensorType([2], "bool")))), True),
        (lambda: tvm.get_global_func("no such function"), True),
        (lambda: tvm.runtime.convert(called_back)(1), False),
        (lambda: called_back(1), False),
        (lambda: int("nine"), False),
    ]
    for case, wanted in cases:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # any
            case()
        assert raised_by_tvm(caught.value) == wanted, caught.value
