"""What a pass is, and the state that passes hand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from tvmpipe.manifest import Encoding
from tvmpipe.targets.cost.model import CostModel
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.tensors import TensorSpec

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle
    from tvmpipe.passes.backend.lower import StageLibrary
    from tvmpipe.passes.backend.partition import Stage
    from tvmpipe.passes.graph.primitives import PrimitiveGraph
    from tvmpipe.passes.planning.cost_table import CostTable
    from tvmpipe.passes.planning.plan import Plan
    from tvmpipe.runtime.security.keys import ClusterKey

Objective = Literal["throughput", "latency"]


@dataclass(frozen=True)
class Options:
    """What a user may ask of a compilation.

    Attributes: `shapes` input name -> dimensions and `dims` name of an open dimension -> extent, needed only where the
    file leaves them open; `pins` node name -> device name; `plan_file` an edited plan to follow instead of searching
    one; `records` a folder of measured schedules to use, `tune` how many schedules of each hot primitive to measure
    and add to it, on the devices of `tracker`, with `cluster_key` where they ask for one; `replicate` whether devices
    may take samples in turn; `failover` whether to plan for the loss of each device; `compress` how links that bound
    the plan may encode; `robust` whether the plan is for costs at the upper ends of their intervals.
    """

    objective: Objective = "throughput"
    time_limit_s: float = 60.0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    plan_file: Path | None = None
    records: Path | None = None
    tune: int = 0
    tracker: str | None = None
    cluster_key: ClusterKey | None = None
    replicate: bool = False
    failover: bool = False
    compress: Encoding = "none"
    robust: bool = False
    cost_model: CostModel = field(default_factory=Roofline)


@dataclass(frozen=True)
class Signature:
    """The model as its users see it: `sha256` of the file with its external data, inputs, outputs."""

    name: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Spare:
    """What to run when the device `lost` is gone: a plan without it, and its stages once they are cut."""

    lost: str
    plan: Plan
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class CompileState:
    """Everything known so far; each pass returns a copy with its own fields filled in.

    `source` is a path or an `onnx.ModelProto`; `module` a `tvm.IRModule`; `notes` sentences for the report; `tell`
    is for a pass that takes long to say how it is getting on; `unplanned` the state before it had `plan`;
    `stages` those of `plan`, `libraries` of every plan's stages.
    """

    source: Any
    cluster: Cluster
    options: Options
    notes: tuple[str, ...] = ()
    tell: Callable[[str], None] | None = None
    module: Any = None
    signature: Signature | None = None
    graph: PrimitiveGraph | None = None
    costs: CostTable | None = None
    plan: Plan | None = None
    spares: tuple[Spare, ...] = ()
    unplanned: CompileState | None = None
    stages: tuple[Stage, ...] = ()
    libraries: tuple[StageLibrary, ...] = ()
    bundle: Bundle | None = None


class Pass(Protocol):
    """A frozen dataclass with a `name` and one method."""

    @property
    def name(self) -> str:
        """What progress and dumps call it."""
        ...

    def apply(self, state: CompileState) -> CompileState:
        """The state with this pass's result in it."""
        ...


@runtime_checkable
class Detailed(Protocol):
    """A pass that can say how much there is to do."""

    def detail(self, state: CompileState) -> str:
        """A few words for progress; "" for none."""
        ...


def required(value: Any, name: str) -> Any:
    """`value`, which an earlier pass must have filled in."""
    if value is None:
        raise RuntimeError(f"the pass that makes {name!r} has not run")
    return value
