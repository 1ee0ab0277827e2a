"""The primitives of a model that are worth measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.backend.codegen.llvm import compile_function
from tvmpipe.passes.driver import front
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.graph.primitive_features import function_of, works_of
from tvmpipe.passes.kernels.schedule import schedule_module
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import identity, tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION


@dataclass(frozen=True)
class PrimitiveWorkload:
    """A primitive of a model as a `profiling.workload.Workload`; `function` is its unscheduled TIR function."""

    work: Work
    function: Any
    origin: str

    @property
    def key(self) -> str:
        """The key of its measurements."""
        return identity(self.work.key, SCHEDULE_VERSION, tvm_version())

    @property
    def title(self) -> str:
        """What a person knows it by."""
        return "+".join(self.work.operators)

    @property
    def tensors(self) -> list[tuple[tuple[int, ...], str]]:
        """Shapes and types of the function's parameters."""
        return [(tuple(map(int, one.shape)), str(one.dtype)) for one in self.function.params]

    def compile(self, target: TargetDescription, threads: int) -> bytes:
        """A shared library with the scheduled function as its `main`."""
        import tvm

        module = schedule_module(tvm.IRModule({"main": self.function}), target, threads)
        return compile_function(module["main"], target, threads)


def workloads_of(
    source: Any,
    origin: str,
    options: ImportOptions | None = None,
) -> list[PrimitiveWorkload]:
    """Each distinct primitive of a model (a path or an `onnx.ModelProto`) that runs as compiled code, in order.

    Of all of its buckets, where it has open dimensions.

    Raises ModelError.
    """
    fused = front(source, options)
    workloads: dict[str, PrimitiveWorkload] = {}
    for graph, module in ((fused.graph, fused.module), *((one.graph, one.module) for one in fused.buckets.others)):
        for primitive, work in zip(graph.primitives, works_of(graph, module), strict=True):
            function = function_of(primitive, module)
            if function is not None and not work.view and not primitive.constant:
                workloads.setdefault(work.key, PrimitiveWorkload(work, function, origin))
    return list(workloads.values())


def distinct(workloads: Sequence[PrimitiveWorkload]) -> list[PrimitiveWorkload]:
    """The first workload of each key."""
    return list({workload.work.key: workload for workload in reversed(workloads)}.values())[::-1]
