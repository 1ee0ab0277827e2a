"""A model at one choice of its open dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmpipe.padding import show_extents
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.primitives import PrimitiveGraph


@dataclass(frozen=True)
class Bucket:
    """A model whose open dimensions have the extents `extents`, by name: `module` is the fused `tvm.IRModule`.

    `exact` says of the dimensions along which no smaller sample may be padded why.
    """

    extents: Mapping[str, int]
    exact: Mapping[str, str]
    signature: Signature
    module: Any
    graph: PrimitiveGraph


@dataclass(frozen=True)
class Buckets:
    """What is open of a model: nothing, where `extents` is empty.

    Attributes: `axes` for each input and output with an open dimension the names of its dimensions, "" for fixed ones;
    `pads` what inputs may be padded with; `extents` and `exact` those of the reference, which is the largest bucket and
    the one that is planned; `others` all other buckets.
    """

    axes: Mapping[str, tuple[str, ...]]
    pads: Mapping[str, float]
    extents: Mapping[str, int]
    exact: Mapping[str, str]
    others: tuple[Bucket, ...]

    @property
    def all_extents(self) -> tuple[Mapping[str, int], ...]:
        """Those of each bucket, the reference first."""
        return (self.extents, *(bucket.extents for bucket in self.others)) if self.extents else ()

    @property
    def all_exact(self) -> tuple[Mapping[str, str], ...]:
        """Of each bucket."""
        return (self.exact, *(bucket.exact for bucket in self.others)) if self.extents else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on padding that was asked for and is not done."""
        if not self.pads:
            return ()
        return tuple(
            f"in bucket {show_extents(extents)} a sample must have all of {name!r}: {reason}"
            for extents, exact in zip(self.all_extents, self.all_exact, strict=True)
            for name, reason in exact.items()
        )


NO_BUCKETS = Buckets({}, {}, {}, {}, ())
