"""What a head asks of an agent: to be its, to keep files, to host stages. Tensors do not come this way."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tvmpipe.errors import DeviceError, DeviceHeldError, DeviceUnavailableError
from tvmpipe.manifest import StageEntry, memory_bytes_of
from tvmpipe.runtime.device.spec import Claim, HostSpec
from tvmpipe.runtime.device.stored_file import StoredFile
from tvmpipe.runtime.device.transfer import Begun, Transfer
from tvmpipe.runtime.head.agent_facts import AgentFacts, check_agent_facts
from tvmpipe.runtime.head.options import Limits
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address
from tvmpipe.runtime.transport.rpc_session import RpcSession
from tvmpipe.runtime.transport.versions import difference, work_together
from tvmpipe.units import format_duration, format_size

logger = logging.getLogger(__name__)

_MACHINES = {"x86_64": ("x86_64", "amd64"), "aarch64": ("aarch64", "arm64")}
_LOAD_BPS = 20e6  # a device that reads its own store more slowly than this counts as lost
_STATES = {
    "starting": "starting Python",
    "importing": "importing TVM",
    "waiting": "ending what it computed before",
    "loading": "loading stages",
}


class NoRoom(DeviceError):
    """A device cannot get a second opening ready beside what it serves."""


class AgentClient:
    """An agent behind a session. Raises DeviceError when it refuses, DeviceLostError when it is gone.

    It refers to no function of the agent's: TVM ends a session, of which a process may have 32, only when nothing does.
    """

    def __init__(self, session: RpcSession, facts: AgentFacts) -> None:
        self.session = session
        self.facts = facts

    @classmethod
    def of(cls, session: RpcSession) -> AgentClient | None:
        """The agent that answers; None for a stock RPC server."""
        with session.guard("asking what it is"):
            if session.function("tvmpipe.device_manager") is None:
                return None
            told = _ask(session, {"do": "info"})
        try:
            return cls(session, check_agent_facts(told))
        except ValueError as error:
            raise DeviceError(
                f"device {session.device.name} says of itself what no agent of this version does ({error}): "
                "it is of another version or no tvmpipe agent"
            ) from None

    @property
    def link_address(self) -> str:
        """Where its stage link listens, as HOST:PORT."""
        return self.facts.link_address or format_address(self.session.address.host, self.facts.link_port)

    @property
    def beside_address(self) -> str | None:
        """Where the link of an opening beside the one that it serves would listen; None where it has but one."""
        port = self.facts.beside_port
        return None if port is None else format_address(self.session.address.host, port)

    def check(self, stages: Sequence[StageEntry], state_bytes: int = 0) -> None:
        """Refuse before anything is sent: wrong architecture, no runner, too little memory, also for states."""
        device = self.session.device
        wanted = device.triple.split("-", 1)[0]
        if self.facts.machine.lower() not in _MACHINES.get(wanted, (wanted,)):
            raise DeviceError(
                f"device {device.name} is a {self.facts.machine} machine, its stages were compiled for {wanted}"
            )
        missing = next((stage for stage in stages if stage.codegen not in self.facts.runners), None)
        if missing is not None:
            raise DeviceError(
                f"device {device.name} cannot run stage {missing.name}, which the code generator {missing.codegen!r} "
                f"compiled: it has runners for {', '.join(self.facts.runners)}{_install(missing.codegen)}"
            )
        need = memory_bytes_of(stages) + state_bytes
        if need > self.facts.memory_bytes:
            states = f", {format_size(state_bytes)} of them for the states of sequences" if state_bytes else ""
            raise DeviceError(
                f"device {device.name} offers {format_size(self.facts.memory_bytes)} of memory, "
                f"its stages need {format_size(need)}{states}"
            )

    def reserve(self, claim: Claim, more_s: float = 0.0, wait_s: float = 0.0) -> None:
        """Get the device for this head, or keep it, for a lease and `more_s`.

        `wait_s` is for how long this head will ask again when another has it: it then gets its turn.

        Raises DeviceHeldError saying who has it, DeviceError for other versions.
        """
        if not work_together(self.facts.versions):
            raise DeviceError(f"device {self.session.device.name} cannot be used: {difference(self.facts.versions)}")
        with self.session.guard("asking for it"):
            request = {"do": "reserve", "claim": claim.model_dump(), "more_s": more_s, "wait_s": wait_s}
            answer = _ask(self.session, request)
        if "held_by" in answer:
            device = self.session.device
            raise DeviceHeldError(
                f"device {device.name} (key {device.key}) is in use by {answer['held_by']}, "
                f"for {format_duration(answer['held_s'])} so far",
                float(answer["again_s"]),
            )

    def prepare_files(self, wanted: Iterable[StoredFile]) -> tuple[list[StoredFile], list[StoredFile]]:
        """Those of the files that the device's store lacks, for which it has made room; and of these, what it has in
        part. The others stay as long as the session."""
        with self.session.guard("looking at what it has"):
            answer = self._call("store_prepare", json.dumps([one._asdict() for one in wanted]))
        missing, begun = ([StoredFile(**one) for one in answer[part]] for part in ("missing", "begun"))
        return missing, begun

    def begin_transfer(self, transfer: Transfer, begun_bytes: int, alive: Callable[[float], None]) -> Begun:
        """Have the device take in files, and give them to others. `alive` is told how long it may not answer: it reads
        `begun_bytes` of what it has in part."""
        more_s = begun_bytes / _LOAD_BPS
        alive(more_s)
        with self.session.guard("beginning to take files", more_s=more_s):
            return Begun.model_validate(self._call("receive_begin", transfer.model_dump_json()))

    def work_on_transfer(self, seconds: float, describe: Callable[[str], str]) -> int:
        """Have the device take in files for so long at most. Returns how many it still lacks; `describe` words what it
        says went wrong."""
        with self.session.guard("receiving files"):
            return int(self._call("receive_work", seconds, describe=describe)["missing"])

    def end_transfer(self) -> None:
        """The device gives no files to others any more."""
        with self.session.guard("ending a transfer of files"):
            self._call("receive_end")

    def open(
        self,
        claim: Claim,
        spec: HostSpec,
        port: int,
        ready: Callable[[], bool],
        limits: Limits,
        pause: Callable[[float], None],
        *,
        beside: bool = False,
    ) -> None:
        """Have the stages hosted at a link port; returns once they are loaded and `ready` says that they are heard of.

        With `beside` what the device serves goes on. `pause` waits for some seconds; what it raises ends this. Raises
        NoRoom when the device cannot host both.
        """
        device = self.session.device
        request = {"do": "prepare" if beside else "open", "claim": claim.model_dump(), "port": port}
        with self.session.guard("starting its stages"):
            answer = _ask(self.session, {**request, "spec": spec.model_dump(mode="json")})
        if "held_by" in answer:
            raise DeviceUnavailableError(f"device {device.name} was taken by {answer['held_by']}")
        if "no_room" in answer:
            raise NoRoom(f"device {device.name} cannot host another plan beside the running one: {answer['no_room']}")
        if "failed" in answer:
            raise DeviceError(f"device {device.name} cannot host its stages: {answer['failed']}")
        poll_s = deadlines.STATE_POLL_S
        while True:
            with self.session.guard("loading its stages"):
                state = _ask(self.session, {"do": "state", "claim": claim.model_dump(), "session": spec.session})
            if state["state"] in ("failed", "expired", "idle"):
                why = state["message"] or "what it hosted was ended"
                raise DeviceError(f"device {device.name} cannot host its stages: {why}")
            if state["state"] == "ready" and ready():
                return
            self._check_limits(spec, state, limits)
            pause(poll_s)
            poll_s = min(deadlines.LONGEST_STATE_POLL_S, 1.1 * poll_s)  # each question costs a small device something

    def wait_until_linked(self, claim: Claim, session: str, limit_s: float, pause: Callable[[float], None]) -> None:
        """Return once stages that were opened beside others have reached all their peers. Raises NoRoom."""
        device = self.session.device
        deadline = time.monotonic() + limit_s
        while True:
            with self.session.guard("connecting its stages"):
                state = _ask(self.session, {"do": "state", "claim": claim.model_dump(), "session": session})
            if state["state"] != "ready":
                raise DeviceError(
                    f"device {device.name} cannot host its stages: {state['message'] or 'they were ended'}"
                )
            unlinked: list[str] | None = state["unlinked"]
            if unlinked == []:
                return
            if time.monotonic() > deadline:
                peers = ", ".join(unlinked or ["its peers"])
                raise NoRoom(f"device {device.name} does not reach {peers} at the ports beside those in use")
            pause(deadlines.STATE_POLL_S)

    def _check_limits(self, spec: HostSpec, state: dict[str, Any], limits: Limits) -> None:
        """Raise DeviceError, saying what was waited for, when the device has taken longer than it may."""
        took: dict[str, float] = state["took"]
        device = self.session.device
        if state["state"] == "ready":
            if took["ready"] <= limits.connect_s:
                return
            raise DeviceError(
                f"device {device.name} has loaded its stages but cannot reach this head at "
                f"{spec.status_address}; `tvmpipe doctor` tells more"
            )
        if state["state"] == "loading":
            what, so_far_s = "loading", took["loading"]
            allowed_s = limits.start_s + sum(stage.weight_bytes for stage in spec.stages) / _LOAD_BPS
        else:
            what, so_far_s = "starting", sum(took.get(phase, 0.0) for phase in ("starting", "importing", "waiting"))
            allowed_s = limits.start_s
        if so_far_s > allowed_s:
            parts = [
                f"{_STATES[phase]} {format_duration(seconds)}" for phase, seconds in took.items() if seconds > 0.01
            ]
            raise DeviceError(
                f"device {device.name} did not get its stages ready: {what} may take {format_duration(allowed_s)} "
                f"(--start-timeout); so far it took for {', '.join(parts)}"
            )

    def activate(self, claim: Claim, session: str) -> None:
        """What was opened beside takes the place of what the device serves, which ends."""
        with self.session.guard("changing over"):
            answer = _ask(self.session, {"do": "activate", "claim": claim.model_dump(), "session": session})
        if "failed" in answer:
            raise DeviceError(f"device {self.session.device.name} cannot change over: {answer['failed']}")

    def discard(self, claim: Claim, session: str) -> None:
        """End what was opened beside."""
        with self.session.guard("ending what was prepared"):
            _ask(self.session, {"do": "discard", "claim": claim.model_dump(), "session": session})

    def release(self, claim: Claim) -> None:
        """Give the device back."""
        with self.session.guard("giving it back"):
            _ask(self.session, {"do": "release", "claim": claim.model_dump()})

    def _call(self, name: str, *arguments: Any, describe: Callable[[str], str] = str) -> dict[str, Any]:
        """What the store answers. Raises DeviceError with what went wrong there."""
        answer: dict[str, Any] = json.loads(str(self._function(f"tvmpipe.{name}")(*arguments)))
        if "error" in answer:
            raise DeviceError(
                f"device {self.session.device.name} cannot take the stages' files: {describe(answer['error'])}"
            )
        return answer

    def _function(self, name: str) -> Any:
        function = self.session.function(name)
        if function is None:
            raise DeviceError(f"the agent on device {self.session.device.name} has no {name}; it is of another version")
        return function


def _install(codegen: str) -> str:
    """What would help, as the end of a sentence."""
    return "" if codegen == "llvm" else f"; there, install it with: pip install 'tvmpipe[{codegen}]'"


def _ask(session: RpcSession, request: dict[str, Any]) -> dict[str, Any]:
    manager = session.function("tvmpipe.device_manager")
    if manager is None:
        raise DeviceError(f"the session with device {session.device.name} was closed")
    answer: Any = json.loads(str(manager(json.dumps(request))))
    del manager
    if not isinstance(answer, dict):
        raise DeviceError(
            f"device {session.device.name} answers with what is no JSON object: "
            "it is of another version or no tvmpipe agent"
        )
    if "error" in answer:
        raise DeviceError(f"the agent refused: {answer['error']}")
    return answer
