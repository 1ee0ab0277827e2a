"""What an agent says of itself, checked before anything relies on it: whatever answers there may be no agent."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tvmpipe.errors import InputError
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.device.totals import BUCKETS_S
from tvmpipe.runtime.transport.address import parse_address
from tvmpipe.text import clean

_SHOWN = 200  # characters of what is wrong
_MOST = 1 << 63

_Count = Annotated[int, Field(ge=0, lt=_MOST)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]
_Port = Annotated[int, Field(gt=0, lt=65536)]
_Histogram = Annotated[list[_Count], Field(min_length=len(BUCKETS_S) + 1, max_length=len(BUCKETS_S) + 1)]
_Sum = Annotated[float, Field(ge=-1e12, le=1e12)]  # of differences of a clock that is set meanwhile
_Counts = tuple[_Count, _Sum, _Sum, _Sum, _Histogram]
"""As `StageCount.to_list` writes it."""


def _address(value: Any) -> Any:
    """It is of the form HOST:PORT, where it is text."""
    if isinstance(value, str):
        try:
            parse_address(value, "link")
        except InputError as error:
            raise ValueError(str(error)) from None
    return value


class _Told(BaseModel):
    """Another agent of the same version may tell more."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class EmulatedFacts(_Told):
    """What it behaves as; `like` names the machine that it is so many times slower than, None: its own."""

    slowdown: Annotated[float, Field(gt=0, le=1e9)]
    bandwidth_bps: Annotated[float, Field(gt=0)] | None
    latency_s: _Seconds
    like: str | None


class StageTotal(_Told):
    """What a stage has done as a device of a bundle; `counts` as `StageCount.to_list`."""

    stage: str
    device: str
    counts: _Counts


class TotalsFacts(_Told):
    """What it has done since it started."""

    sessions: _Count
    refused: _Count
    stages: list[StageTotal]


class LastStatus(Status):
    """What its host told last, `age_s` ago."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    counts: dict[str, _Counts]  # type: ignore[assignment]  # the same lists, of which more is known here
    busy: tuple[str, int, _Seconds] | None
    memory_bytes: _Count
    age_s: _Seconds


class AgentFacts(_Told):
    """All that an agent says of itself.

    Attributes: `tvmpipe` and `tvm` its versions; `machine` its architecture and `features` what its processor has
    beyond that, as LLVM spells it; `threads` and `memory_bytes` what it offers; `link_address` where others reach its
    stage link, None where it is at `link_port` of its own address, and `beside_port` of another opening; `address_why`
    why it is reached where it is; `held_by` and `held_s` who has it and since when; `host` the state of its stage host;
    `status` what that said last; `server_up` whether its RPC server runs and `server_starts` how often it was started.
    """

    tvmpipe: str
    tvm: Annotated[str, Field(alias="apache-tvm")]
    machine: str
    threads: Annotated[int, Field(gt=0, lt=_MOST)]
    memory_bytes: _Count
    pid: _Count
    link_address: Annotated[str | None, BeforeValidator(_address)]
    address_why: str
    link_port: _Port
    beside_port: _Port | None
    runners: list[str]
    features: list[str]
    emulated: EmulatedFacts | None
    held_by: str | None
    held_s: _Seconds | None
    host: str | None
    host_message: str
    host_pid: _Count | None
    status: LastStatus | None
    samples_per_s: dict[str, _Seconds]
    totals: TotalsFacts
    server_up: bool
    server_starts: _Count

    @model_validator(mode="after")
    def _check(self) -> AgentFacts:
        if (self.held_by is None) != (self.held_s is None):
            raise ValueError("held_by and held_s go together")
        return self

    @property
    def versions(self) -> dict[str, str]:
        """As `own_versions`."""
        return {"tvmpipe": self.tvmpipe, "apache-tvm": self.tvm}

    @property
    def serves(self) -> bool:
        """Whether it holds stages for an opening, or will soon."""
        return self.host in ("waiting", "loading", "ready")

    def to_dict(self) -> dict[str, Any]:
        """As the agent told it, and nothing else."""
        return self.model_dump(mode="json", by_alias=True)


def check_agent_facts(told: Any) -> AgentFacts:
    """The facts that a `DeviceManager` tells. Raises ValueError saying what is wrong."""
    try:
        return AgentFacts.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = clean(".".join(str(part) for part in first["loc"]))[:_SHOWN]
        what = clean(first["msg"])[:_SHOWN]
        raise ValueError(f"{where}: {what}" if where else what) from None
