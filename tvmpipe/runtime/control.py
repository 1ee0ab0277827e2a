"""What a head asks of an agent: to be its, to keep files, to host stages. Tensors do not come this way."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tvmpipe.errors import DeviceError, DeviceHeldError, DeviceUnavailableError
from tvmpipe.manifest import FileEntry, StageEntry
from tvmpipe.runtime.address import format_address
from tvmpipe.runtime.keeper import Claim
from tvmpipe.runtime.rpc_session import SLOWEST_UPLOAD_BPS, RpcSession
from tvmpipe.runtime.spec import HostSpec
from tvmpipe.runtime.versions import difference, work_together
from tvmpipe.units import format_duration, format_size

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 4 << 20
_MACHINES = {"x86_64": ("x86_64", "amd64"), "aarch64": ("aarch64", "arm64")}
_POLL_S = 0.05


class AgentControl:
    """An agent behind a session. Raises DeviceError when it refuses, DeviceLostError when it is gone."""

    def __init__(self, session: RpcSession, keeper: Any, facts: dict[str, Any]) -> None:
        self.session = session
        self.facts = facts
        self._keeper = keeper

    @classmethod
    def of(cls, session: RpcSession) -> AgentControl | None:
        """The agent that answers; None for a stock RPC server."""
        with session.guard("asking what it is"):
            keeper = session.function("tvmpipe.keeper")
            return None if keeper is None else cls(session, keeper, _ask(keeper, {"do": "info"}))

    @property
    def link_address(self) -> str:
        """Where its stage link listens, as HOST:PORT."""
        given: str | None = self.facts["link_address"]
        return given or format_address(self.session.address.host, self.facts["link_port"])

    def check(self, stages: Iterable[StageEntry]) -> None:
        """Refuse before anything is sent: wrong architecture, too little memory."""
        device = self.session.device
        wanted = device.triple.split("-", 1)[0]
        if self.facts["machine"].lower() not in _MACHINES.get(wanted, (wanted,)):
            raise DeviceError(
                f"device {device.name} is a {self.facts['machine']} machine, its stages were compiled for {wanted}"
            )
        need = sum(entry.memory_bytes for entry in stages)
        if need > self.facts["memory_bytes"]:
            raise DeviceError(
                f"device {device.name} offers {format_size(self.facts['memory_bytes'])} of memory, "
                f"its stages need {format_size(need)}"
            )

    def reserve(self, claim: Claim) -> None:
        """Get the device for this head. Raises DeviceHeldError naming who has it, DeviceError for other versions."""
        if not work_together(self.facts):
            raise DeviceError(f"device {self.session.device.name} cannot be used: {difference(self.facts)}")
        with self.session.guard("asking for it"):
            answer = _ask(self._keeper, {"do": "reserve", "claim": claim.model_dump()})
        if "held_by" in answer:
            device = self.session.device
            raise DeviceHeldError(
                f"device {device.name} (key {device.key}) is in use by {answer['held_by']}, "
                f"for {format_duration(answer['held_s'])} so far"
            )

    def send(self, bundle: Bundle, stages: Iterable[StageEntry]) -> int:
        """Send the libraries and weights that the device's store lacks. Returns the bytes sent."""
        sent = 0
        files: dict[tuple[str, str], FileEntry] = {}
        for stage in stages:
            files[stage.library.sha256, ".so"] = stage.library
            files |= {(file.sha256, ".safetensors"): file for file in stage.weight_files}
        for (_, suffix), file in files.items():
            size = bundle.path_of(file).stat().st_size
            with self.session.guard(f"sending {file.path}", more_s=size / SLOWEST_UPLOAD_BPS):
                sent += self._send(bundle, file, suffix)
        return sent

    def open(self, claim: Claim, spec: HostSpec, ready: Callable[[], bool], deadline: float) -> None:
        """Have the stages hosted; returns once they are loaded and `ready` says that they are heard of."""
        device = self.session.device
        with self.session.guard("starting its stages"):
            answer = _ask(
                self._keeper, {"do": "open", "claim": claim.model_dump(), "spec": spec.model_dump(mode="json")}
            )
            if "held_by" in answer:
                raise DeviceUnavailableError(f"device {device.name} was taken by {answer['held_by']}")
        while True:
            with self.session.guard("loading its stages"):
                state = _ask(self._keeper, {"do": "state", "claim": claim.model_dump()})
            if state["state"] in ("failed", "expired"):
                raise DeviceError(f"device {device.name} cannot host its stages: {state['message']}")
            if state["state"] == "ready" and ready():
                return
            if time.monotonic() > deadline:
                if state["state"] == "ready":
                    raise DeviceError(
                        f"device {device.name} has loaded its stages but cannot reach this head at "
                        f"{spec.status_address}; `tvmpipe doctor` tells more"
                    )
                raise DeviceError(f"device {device.name} did not load its stages in time")
            time.sleep(_POLL_S)

    def release(self, claim: Claim) -> None:
        """Give the device back."""
        with self.session.guard("giving it back"):
            _ask(self._keeper, {"do": "release", "claim": claim.model_dump()})

    def _send(self, bundle: Bundle, file: FileEntry, suffix: str) -> int:
        has, append, commit = (self._function(f"tvmpipe.store_{verb}") for verb in ("has", "append", "commit"))
        if has(file.sha256, suffix):
            return 0
        sent = 0
        with bundle.path_of(file).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                append(file.sha256, suffix, bytearray(chunk))
                sent += len(chunk)
        commit(file.sha256, suffix)
        return sent

    def _function(self, name: str) -> Any:
        function = self.session.function(name)
        if function is None:
            raise DeviceError(f"the agent on device {self.session.device.name} has no {name}; it is of another version")
        return function


def _ask(keeper: Any, request: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(str(keeper(json.dumps(request))))
    if "error" in answer:
        raise DeviceError(f"the agent refused: {answer['error']}")
    return answer
