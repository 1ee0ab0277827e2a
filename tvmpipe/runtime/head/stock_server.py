"""Stages on a stock TVM RPC server, which cannot host them: this process does, and has each one computed over RPC.

Every tensor then goes through here and over TVM RPC, and weights are sent each time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from numpy.typing import NDArray
from tvm.runtime.vm import VirtualMachine

from tvmpipe.errors import DeviceError
from tvmpipe.manifest import Files, StageEntry
from tvmpipe.runtime.device.hosting import HostedSession
from tvmpipe.runtime.device.spec import HostSpec
from tvmpipe.runtime.device.weights import read_weights
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.rpc_session import SLOWEST_UPLOAD_BPS, RpcSession
from tvmpipe.runtime.transport.sockets import Sockets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _RemoteStage:
    """Handles of what lies on the device: virtual machine, input buffers, and the tuple of weights if any."""

    machine: Any
    inputs: tuple[Any, ...]
    weights: tuple[Any, ...]


class RemoteStages:
    """Stages loaded over a session; what `LoadedStages` is for an agent."""

    def __init__(self, session: RpcSession, files: Files, stages: Sequence[StageEntry]) -> None:
        self._session = session
        self._stages: dict[str, _RemoteStage] = {}
        self.sent_bytes = 0
        for stage in stages:
            if stage.codegen != "llvm":
                raise DeviceError(
                    f"stage {stage.name} needs the runner {stage.codegen!r}, and device {session.device.name} is a "
                    "stock TVM RPC server; start `tvmpipe agent` there"
                )
            more_s = stage.weight_bytes / SLOWEST_UPLOAD_BPS
            with session.guard(f"loading stage {stage.name}", stage=stage.name, more_s=more_s):
                self._stages[stage.name] = self._load(files, stage)

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a stage; raises DeviceLostError."""
        loaded = self._stages[stage]
        with self._session.guard(f"running stage {stage} of batch {batch}", stage=stage, sample=batch):
            for remote, array in zip(loaded.inputs, inputs, strict=True):
                remote.copyfrom(array)
            loaded.machine.set_input("main", *loaded.inputs, *loaded.weights)
            loaded.machine.invoke_stateful("main")
            return [tensor.numpy() for tensor in loaded.machine.get_outputs("main")]

    def _load(self, files: Files, stage: StageEntry) -> _RemoteStage:
        remote = self._session.remote
        cpu = remote.cpu()
        path = files.path_of(stage.library)
        name = f"{stage.library.sha256}.so"
        remote.upload(bytearray(path.read_bytes()), name)
        machine = VirtualMachine(remote.load_module(name), cpu)
        self.sent_bytes += path.stat().st_size + stage.weight_bytes
        inputs = tuple(tvm.runtime.empty(t.spec.shape, t.spec.dtype, cpu) for t in stage.inputs)
        return _RemoteStage(machine, inputs, self._weights(files, stage, cpu))

    def _weights(self, files: Files, stage: StageEntry, cpu: Any) -> tuple[Any, ...]:
        """The weights as one object on the device, made from TVM's tensor cache there."""
        if not stage.weight_names:
            return ()
        remote = self._session.remote
        update = remote.get_function("vm.builtin.tensor_cache.update")
        arrays = read_weights([files.path_of(entry) for entry in stage.weight_files], stage.weight_names)
        for place, array in enumerate(arrays):
            buffer = tvm.runtime.empty(array.shape, array.dtype.name, cpu).copyfrom(array)
            update(f"{stage.name}_{place}", buffer, True)
        gather = remote.get_function("vm.builtin.param_array_from_cache")
        return (gather(stage.name, len(stage.weight_names)),)


class StockServer:
    """The thread that hosts a stock server's stages in this process, until `stop`."""

    def __init__(
        self, spec: HostSpec, runner: RemoteStages, sockets: Callable[[], Sockets], address: tuple[str, int]
    ) -> None:
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(spec, runner, sockets, address), name=f"tvmpipe-{spec.device}", daemon=True
        )
        self._thread.start()
        self._ready.wait(deadlines.JOIN_S)

    def stop(self) -> None:
        """End the thread; the session that it computes over must have been closed before."""
        self._stopped.set()
        self._thread.join(timeout=deadlines.JOIN_S)

    def _work(
        self, spec: HostSpec, runner: RemoteStages, sockets: Callable[[], Sockets], address: tuple[str, int]
    ) -> None:
        with sockets() as own:
            session = HostedSession(spec, runner, own, address, self._stopped)
            self._ready.set()
            session.serve()
