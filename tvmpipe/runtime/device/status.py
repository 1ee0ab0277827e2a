"""What a stage host tells the head, and its agent, of itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from tvmpipe.runtime.device.totals import Span


class Status(BaseModel):
    """What a host tells the head with each heartbeat.

    Attributes: `sent_s` its wall clock; `counts` as `StageCount.to_list` by stage; `busy` stage, batch and seconds
    it has taken so far; `cut` peers whose connection broke; `failure` stage, batch and message; `last` whether the
    host ends with this; `unlinked` peers that it has not reached so far.
    """

    model_config = ConfigDict(extra="forbid")

    session: str
    device: str
    sent_s: float
    counts: dict[str, list[Any]]
    busy: tuple[str, int, float] | None
    cut: list[str]
    failure: tuple[str, int, str] | None
    refused: int
    memory_bytes: int
    last: bool
    unlinked: list[str] = []
    spans: list[Span] = []
