"""A pipeline under a name, as every way to it sees it: what it is, and one request after the other or many at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tvmpipe.errors import InputError, SampleError, TvmpipeError
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.serve.errors import StoppingError, TooBusyError
from tvmpipe.serve.tensors.datatypes import as_sent, datatype_of
from tvmpipe.serve.tensors.metrics import TensorMetrics
from tvmpipe.tensors import TensorSpec

VERSION = "1"
PLATFORM = "tvmpipe_bundle"


class UnknownModelError(TvmpipeError):
    """A request for another model, or for a version that there is not."""


class LateError(TvmpipeError):
    """A request was not answered within the time that it gave."""


@dataclass(frozen=True)
class InferRequest:
    """What a client asks: inputs by name, the outputs it wants (all where it names none), and within which time."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: Sequence[str] = ()
    id: str = ""
    timeout_s: float | None = None


@dataclass(frozen=True)
class Named:
    """A tensor of an answer; `datatype` as the protocol spells it."""

    name: str
    datatype: str
    array: NDArray[Any]


@dataclass
class TensorModel:
    """Answers requests on a pipeline. For one event loop.

    As many are in the pipeline as it holds, `queue` more wait for a place in the order in which they came.
    """

    name: str
    pipe: Pipeline
    metrics: TensorMetrics
    queue: int
    _places: asyncio.Semaphore = field(init=False)
    _stopping: bool = field(init=False, default=False)
    _there: int = field(init=False, default=0)
    _under_way: set[asyncio.Task[Any]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        if self.pipe.manifest.sequences is not None:
            raise InputError(
                "a model with states is no function of its inputs, which is all that this protocol knows; "
                "give --tokenizer to serve a language model, or compile it with --no-state"
            )
        self._places = asyncio.Semaphore(self.pipe.inflight)
        self.metrics.watch(lambda: self.waiting, lambda: self._there - self.waiting)

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""
        return self.pipe.manifest

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self.pipe.usable and not self._stopping

    @property
    def waiting(self) -> int:
        """Requests that have no place in the pipeline yet."""
        return max(0, self._there - self.pipe.inflight)

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """As the protocol describes tensors: -1 stands for an extent that may differ."""
        return [self._described(spec) for spec in self.manifest.sample_inputs]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The same for what comes out."""
        return [self._described(spec) for spec in self.manifest.model.outputs]

    def check(self, name: str, version: str = "") -> None:
        """Raises UnknownModelError."""
        if name != self.name:
            raise UnknownModelError(f"there is no model {name!r} here; there is {self.name!r}")
        if version not in ("", VERSION):
            raise UnknownModelError(f"model {name!r} has no version {version!r}; it has {VERSION!r}")

    async def infer(self, request: InferRequest) -> list[Named]:
        """The outputs that a request wants, in its order.

        Raises SampleError for names, shapes and types that the model has not, TooBusyError when too many wait,
        LateError, and what the pipeline raises.
        """
        specs = {spec.name: spec for spec in self.manifest.model.outputs}
        wanted = list(request.outputs) or list(specs)
        for name in wanted:
            if name not in specs:
                raise SampleError(f"output {name!r} is not one of the model's; allowed: {', '.join(specs)}")
        began = time.perf_counter()
        task = asyncio.ensure_future(self._run(request, began))
        self._under_way.add(task)
        try:
            result = await asyncio.wait_for(task, request.timeout_s)
        except asyncio.TimeoutError:
            raise LateError(f"no answer within the {request.timeout_s:g} s that the request gave") from None
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise StoppingError from None
        finally:
            self._under_way.discard(task)
        self.metrics.answered(time.perf_counter() - began)
        return [Named(name, datatype_of(specs[name]), as_sent(result[name], specs[name])) for name in wanted]

    def cancel(self) -> None:
        """Give up what is under way, whose clients are told that the server is stopping."""
        self._stopping = True
        for task in self._under_way:
            task.cancel()

    async def _run(self, request: InferRequest, began: float) -> Mapping[str, NDArray[Any]]:
        async with self._place():
            self.metrics.queued(time.perf_counter() - began)
            return await (await self.pipe.submit_async(request.inputs))

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place in the pipeline."""
        if self._there >= self.pipe.inflight + self.queue:
            raise TooBusyError(f"{self.waiting} requests wait already, as many as may (--queue)", 1)
        self._there += 1
        try:
            async with self._places:
                yield
        finally:
            self._there -= 1

    def _described(self, spec: TensorSpec) -> dict[str, Any]:
        shape = [one if isinstance(one, int) else -1 for one in self.manifest.extents_of(spec)]
        return {"name": spec.name, "datatype": datatype_of(spec), "shape": shape}
