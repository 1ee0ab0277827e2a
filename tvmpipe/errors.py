"""Every error a caller can meet.

::

    TvmpipeError                      exit code
    +-- InputError                    1   what the user gave is wrong
    |   +-- ModelError                    the ONNX file
    |   |   +-- UnsupportedModelError     an operator or a dynamic shape TVM cannot take
    |   +-- ClusterError                  cluster.toml
    |   +-- PlanError                     plan.yaml or a pin
    |   +-- BundleError                   the artifact
    |   +-- SampleError                   an input tensor: name, shape or dtype
    |   +-- TokenizerError                tokenizer.json or a file beside it
    |   +-- SequenceError                 steps: of a model without states, after the last, beyond the context
    +-- InfeasibleError               3   no plan fits the devices
    +-- DeviceError                   4   something on the other end of a wire
        +-- TrackerError                  the tracker cannot be reached
        +-- DeviceUnavailableError        no free device with that key
        |   +-- DeviceHeldError               another head has it
        +-- DeviceLostError               a device died, hung or refused in the middle of work
        +-- StageError                    a stage raised for one sample
        +-- QueueFullError                the pipeline holds as many samples or sequences as it may

Each message is one sentence that says what was wrong, where, and what is allowed.
"""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path


class TvmpipeError(Exception):
    """Base of all errors raised on purpose by tvmpipe."""

    exit_code = 1


class InputError(TvmpipeError):
    """What the user gave is wrong."""


class ModelError(InputError):
    """The ONNX file is missing, damaged, or not a model."""


class UnsupportedModelError(ModelError):
    """The model is valid, but something in it cannot be compiled."""


class ClusterError(InputError):
    """The cluster file is wrong."""


class PlanError(InputError):
    """A plan file or a pin does not fit the model or the cluster."""


class BundleError(InputError):
    """The bundle is missing, incomplete, altered, or of another format version."""


class SampleError(InputError):
    """An input tensor has the wrong name, shape or dtype."""


class TokenizerError(InputError):
    """The tokenizer or a file beside it is missing, damaged, or lacks what is asked of it."""


class SequenceError(InputError):
    """A sequence that cannot be had, or that cannot do what is asked of it."""


class InfeasibleError(TvmpipeError):
    """No placement satisfies memory and pins."""

    exit_code = 3


class DeviceError(TvmpipeError):
    """Something on the other end of a wire failed."""

    exit_code = 4


class TrackerError(DeviceError):
    """The tracker cannot be reached or does not speak TVM's tracker protocol."""


class DeviceUnavailableError(DeviceError):
    """The tracker has no free device with the key that the bundle asks for."""


class DeviceHeldError(DeviceUnavailableError):
    """Another head has the device; `again_s` is when it wants to be asked again, in seconds."""

    def __init__(self, message: str, again_s: float = 0.5) -> None:
        super().__init__(message)
        self.again_s = again_s


class DeviceLostError(DeviceError):
    """A device died, hung or refused while it had work.

    Attributes: `device` (name in the bundle), `stage` (name, or None outside a stage),
    `sample` (id, or None outside a sample).
    """

    def __init__(self, message: str, *, device: str, stage: str | None = None, sample: int | None = None) -> None:
        super().__init__(message)
        self.device = device
        self.stage = stage
        self.sample = sample


class StageError(DeviceError):
    """A stage raised for one sample; the device and the pipeline go on."""


class QueueFullError(DeviceError):
    """The pipeline already holds as many samples in flight, or sequences, as it may."""


def reason_of(error: object) -> str:
    """Why something failed, in one line: the last of an exception's text (or of what a process said) that says it.

    C++ puts the reason last, but for what its destructors complain of and for the frames of a traceback; those lines
    are skipped, and places in TVM's source cut off. An exception without a text gives its type.
    """
    lines = (_SOURCE_PLACE.sub("", line.strip()) for line in reversed(str(error).splitlines()))
    reason = next((line for line in lines if line and not _NOISE.match(line)), "")
    return reason or (type(error).__name__ if isinstance(error, BaseException) else "no reason given")


def raised_by_tvm(error: BaseException) -> bool:
    """Whether TVM raised it, in C++ or in Python: not whoever called TVM wrongly by its own count, nor whom TVM called.

    The place that raised tells: an exception keeps those that it passed, in C++ too.
    """
    places = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    homes = tuple(
        f"{Path(str(sys.modules[name].__file__)).parent}/" for name in ("tvm", "tvm_ffi") if name in sys.modules
    )
    return bool(places) and (places[-1].startswith(homes) or places[-1].endswith((".cc", ".cpp", ".h", ".pxi")))


_NOISE = re.compile(
    r"""(Warning:\ )?BlockBuilder\ destroyed\ with\ remaining\ blocks!
    | Traceback\ \(most\ recent\ call\ last\) | (During\ handling|The\ above\ exception)\ .*exception
    | File\ " | Stack\ trace | \[bt\] | \d+:\ .*\.(cc|so|py)\b | note:\ run\ with\ `TVM_BACKTRACE
    | [\^~\s]+$""",
    re.VERBOSE,
)
_SOURCE_PLACE = re.compile(r"^\[\d\d:\d\d:\d\d\] \S+\.(cc|h|cpp):\d+: ")
