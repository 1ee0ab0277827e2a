"""`tvmpipe agent --user-limits`: a stage host gets the memory that its stages promised, and no more.

What its process allocates is bounded by RLIMIT_DATA, which counts private memory that can be written. (RLIMIT_AS counts
libraries and what glibc reserves for each thread besides.) An allocation beyond it fails, where the system would
otherwise look for a process to kill.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tvmpipe.errors import DeviceError
from tvmpipe.units import format_size

if TYPE_CHECKING:
    from tvmpipe.runtime.device.spec import HostSpec
    from tvmpipe.runtime.device.stage_host import Stages

_SPARE_BYTES = 64 << 20  # of the process, whatever it runs
_THREAD_BYTES = 16 << 20  # a stack, and what its allocator keeps
_INEXACT = 0.25  # of what is promised: ONNX Runtime's activations are known no better
_SMALL_BYTES = 1 << 20
_SMALL_SAMPLES, _LARGE_SAMPLES = 16, 4  # of a batch


def allowed_bytes(spec: HostSpec, offered_bytes: int) -> int:
    """What a process may allocate for an opening, besides what it has when it holds none.

    That is what its stages promised, a quarter more, and what samples take that come and go; of the former no more
    than the agent offers.
    """
    samples = _SMALL_SAMPLES if spec.limit_bytes < _SMALL_BYTES else _LARGE_SAMPLES
    under_way = 2 * spec.max_batches * samples * spec.limit_bytes
    promised = min(int(spec.memory_bytes * (1 + _INEXACT)), max(offered_bytes, spec.memory_bytes))
    return promised + under_way + _SPARE_BYTES + spec.threads * _THREAD_BYTES


def data_bytes() -> int:
    """What this process has now of what RLIMIT_DATA counts."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    (line,) = (line for line in lines if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024


def allow(size: int | None) -> None:
    """From now on this process has no more of that, or, with None, what it was started with."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if size is None:
        size = most
    resource.setrlimit(resource.RLIMIT_DATA, (size if most == resource.RLIM_INFINITY else min(size, most), most))


def is_want_of_memory(error: BaseException) -> bool:
    """Whether an error is that of an allocation; one of our own, which says more, is not.

    What C++ throws comes through TVM as text.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError):
        return not str(error) or str(error).startswith("Unable to allocate")  # Python's and numpy's
    return "bad_alloc" in str(error)


def exceeded(spec: HostSpec, allowed: int) -> str:
    """The sentence about an opening that asked for more."""
    stages = ", ".join(stage.name for stage in spec.stages)
    return (
        f"stages {stages} take more memory than they promised, {format_size(spec.memory_bytes)}: with room for the "
        f"process and samples under way they were held to {format_size(allowed)} (--user-limits)"
    )


class LimitedStages:
    """Stages of a bounded process: where one asks for too much, that is the device's failure and no sample's."""

    def __init__(self, stages: Stages, spec: HostSpec, allowed: int) -> None:
        self._stages = stages
        self._sentence = exceeded(spec, allowed)

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """As that of the stages. Raises DeviceError too where one asks for too much."""
        try:
            return self._stages.run(stage, batch, inputs)
        except Exception as error:
            if is_want_of_memory(error):
                raise DeviceError(self._sentence) from error
            raise
