"""A session with one device over TVM RPC: upload stages, run them, lose the device in bounded time."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import tvm
from numpy.typing import NDArray
from safetensors import safe_open
from tvm import relax, rpc

from tvmpipe.errors import DeviceError, DeviceLostError
from tvmpipe.manifest import DeviceEntry, FileEntry, StageEntry
from tvmpipe.runtime.tracker import DeviceAddress
from tvmpipe.runtime.watchdog import Expired, Watchdog, close_connections
from tvmpipe.units import format_size

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 4 << 20
_SLOWEST_UPLOAD_BPS = 1e6  # a device that takes weights more slowly than this counts as lost
_MACHINES = {"x86_64": ("x86_64", "amd64"), "aarch64": ("aarch64", "arm64")}


@dataclass(frozen=True)
class StageTimes:
    """Seconds one sample spent in one stage: tensors to the device, compute, tensors back."""

    receive_s: float
    compute_s: float
    send_s: float


class Session(Protocol):
    """What the executor needs of a device."""

    device: DeviceEntry
    agent: dict[str, Any] | None

    def load(self, bundle: Bundle, stages: list[StageEntry]) -> int:
        """Make stages ready to run. Returns the bytes sent for it."""
        ...

    def run(self, stage: str, sample: int, inputs: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], StageTimes]:
        """Run a loaded stage. Returns its outputs in the bundle's order, and how long it took."""
        ...

    def close(self) -> None:
        """Give the device back; whoever waits in `run` gets an error."""
        ...


@dataclass(frozen=True)
class _LoadedStage:
    """Handles of what lies on the device: virtual machine, input buffers, and the tuple of weights if any."""

    machine: Any
    inputs: tuple[Any, ...]
    weights: tuple[Any, ...]


class DeviceSession:
    """One device, for use by one thread at a time. Every wait ends after `timeout_s`.

    Raises DeviceLostError from any method once the device stops answering; the session is then dead.
    """

    def __init__(
        self,
        device: DeviceEntry,
        address: DeviceAddress,
        watchdog: Watchdog,
        timeout_s: float,
        connect_timeout_s: float,
    ) -> None:
        self.device = device
        address = self.address = _resolve(address, device.name)
        self._watchdog = watchdog
        self._timeout_s = timeout_s
        self._peer = (address.host, address.port)
        self._stages: dict[str, _LoadedStage] = {}
        with self._guard(f"connecting to {address.host}:{address.port}", timeout_s=connect_timeout_s):
            self._remote = _connect(address, connect_timeout_s)
            self._cpu = self._remote.cpu()
            self.agent = self._agent_facts()
            if self.agent is not None:
                # An agent does not bind threads to cores, so that this only sets how many work.
                self._remote.get_function("runtime.config_threadpool")(1, device.threads)

    def load(self, bundle: Bundle, stages: list[StageEntry]) -> int:
        """Bring stages onto the device, sending only what it lacks. Returns the bytes sent."""
        self._check(stages)
        sent = 0
        for entry in stages:
            patience_s = self._timeout_s + entry.weight_bytes / _SLOWEST_UPLOAD_BPS
            with self._guard(f"loading stage {entry.name}", stage=entry.name, timeout_s=patience_s):
                library, sent_library = self._library(bundle, entry)
                weights, sent_weights = self._weights(bundle, entry)
                sent += sent_library + sent_weights
                machine = relax.VirtualMachine(library, self._cpu)
                inputs = tuple(
                    tvm.runtime.empty(tensor.spec.shape, tensor.spec.dtype, self._cpu) for tensor in entry.inputs
                )
                self._stages[entry.name] = _LoadedStage(machine, inputs, weights)
        return sent

    def run(self, stage: str, sample: int, inputs: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], StageTimes]:
        """Run a loaded stage on one sample. Returns its outputs in the bundle's order, and how long it took."""
        loaded = self._stages[stage]
        with self._guard(f"running stage {stage} of sample {sample}", stage=stage, sample=sample):
            started = time.perf_counter()
            for remote, array in zip(loaded.inputs, inputs, strict=True):
                remote.copyfrom(array)
            loaded.machine.set_input("main", *loaded.inputs, *loaded.weights)
            received = time.perf_counter()
            loaded.machine.invoke_stateful("main")
            computed = time.perf_counter()
            outputs = [tensor.numpy() for tensor in loaded.machine.get_outputs("main")]
            sent = time.perf_counter()
        return outputs, StageTimes(received - started, computed - received, sent - computed)

    def close(self) -> None:
        """Give the device back: what is loaded is dropped and the connection closed."""
        # The connection first: freeing handles over one whose peer hangs would wait for ever.
        close_connections(self._peer)
        self._stages.clear()
        self._remote = None

    def _agent_facts(self) -> dict[str, Any] | None:
        """What a tvmpipe agent says of itself; None for a stock RPC server."""
        try:
            info = self._remote.get_function("tvmpipe.info")
        except (AttributeError, RuntimeError):
            logger.warning(
                "device %s is a stock RPC server: weights are sent each time, and it uses its own number of threads",
                self.device.name,
            )
            return None
        facts: dict[str, Any] = json.loads(str(info()))
        return facts

    def _check(self, stages: list[StageEntry]) -> None:
        """Refuse before sending anything: wrong architecture, too little memory."""
        if self.agent is None:
            return
        wanted = self.device.triple.split("-", 1)[0]
        if self.agent["machine"].lower() not in _MACHINES.get(wanted, (wanted,)):
            raise DeviceError(
                f"device {self.device.name} is a {self.agent['machine']} machine, its stages were compiled for {wanted}"
            )
        need = sum(entry.memory_bytes for entry in stages)
        if need > self.agent["memory_bytes"]:
            raise DeviceError(
                f"device {self.device.name} offers {format_size(self.agent['memory_bytes'])} of memory, "
                f"its stages need {format_size(need)}"
            )

    def _library(self, bundle: Bundle, entry: StageEntry) -> tuple[Any, int]:
        if self.agent is not None:
            sent = self._send_to_store(bundle, entry.library, ".so")
            return self._remote.get_function("tvmpipe.load_library")(entry.library.sha256), sent
        path = bundle.path_of(entry.library)
        name = f"{entry.library.sha256}.so"
        self._remote.upload(bytearray(path.read_bytes()), name)
        return self._remote.load_module(name), path.stat().st_size

    def _weights(self, bundle: Bundle, entry: StageEntry) -> tuple[tuple[Any, ...], int]:
        """The stage's weights as one object on the device, made from TVM's tensor cache there."""
        if entry.weights is None:
            return (), 0
        if self.agent is not None:
            sent = self._send_to_store(bundle, entry.weights, ".safetensors")
            self._remote.get_function("tvmpipe.load_weights")(entry.weights.sha256, entry.name)
        else:
            sent = entry.weight_bytes
            update = self._remote.get_function("vm.builtin.tensor_cache.update")
            with safe_open(bundle.path_of(entry.weights), framework="numpy") as file:
                for position in range(entry.weight_count):
                    array = file.get_tensor(f"w{position}")
                    buffer = tvm.runtime.empty(array.shape, array.dtype.name, self._cpu).copyfrom(array)
                    update(f"{entry.name}_{position}", buffer, True)
        gather = self._remote.get_function("vm.builtin.param_array_from_cache")
        return (gather(entry.name, entry.weight_count),), sent

    def _send_to_store(self, bundle: Bundle, file: FileEntry, suffix: str) -> int:
        if self._remote.get_function("tvmpipe.store_has")(file.sha256, suffix):
            return 0
        append = self._remote.get_function("tvmpipe.store_append")
        sent = 0
        with bundle.path_of(file).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                append(file.sha256, suffix, bytearray(chunk))
                sent += len(chunk)
        self._remote.get_function("tvmpipe.store_commit")(file.sha256, suffix)
        return sent

    @contextlib.contextmanager
    def _guard(
        self, doing: str, *, stage: str | None = None, sample: int | None = None, timeout_s: float | None = None
    ) -> Iterator[None]:
        """A deadline (by default the session's) and error translation for calls into TVM."""
        try:
            with self._watchdog.limit(self._peer, self._timeout_s if timeout_s is None else timeout_s):
                yield
        except DeviceError:
            raise
        except Expired as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # TVM reports a lost peer with many exception types
            reason = _last_line(error)
        else:
            return
        raise DeviceLostError(
            f"device {self.device.name} (key {self.device.key}, {self.address.host}:{self.address.port}) failed "
            f"while {doing}: {reason}",
            device=self.device.name,
            stage=stage,
            sample=sample,
        )


def _resolve(address: DeviceAddress, device: str) -> DeviceAddress:
    """The same with a numeric host, under which the connection can be found again."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        message = f"device {device} registered as {address.host!r}, a name that cannot be resolved here"
        raise DeviceError(message) from None
    return replace(address, host=str(found[0][4][0]))


def _connect(address: DeviceAddress, timeout_s: float) -> Any:
    """`rpc.connect` with a deadline for the TCP handshake too, during which there is no connection to close."""
    result: list[Any] = []

    def connect() -> None:
        try:
            result.append(rpc.connect(address.host, address.port, address.match_key))
        except Exception as error:  # noqa: BLE001  # handed to the caller below
            result.append(error)

    thread = threading.Thread(target=connect, name="tvmpipe-connect", daemon=True)
    thread.start()
    thread.join(timeout_s + 1.0)
    if not result:
        raise Expired(f"no answer within {timeout_s:g} s")
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    # What TVM's client says when its peer is gone in the middle of a message.
    lost = any(sign in text for sign in ("kShutdown", "RPCCode::kReturn", "Socket", "sockfd"))
    return "the connection was closed" if lost else text
