"""Devices that register are added once, and those that somebody has or that say nothing are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from tests.runtime.threads import FACTS
from tvmpipe.errors import ClusterError, DeviceError
from tvmpipe.runtime.head.agent_facts import AgentFacts, check_agent_facts
from tvmpipe.runtime.head.newcomers import Newcomers


class Registered:
    """A tracker with so many devices of each key; `held` keys are in use, `silent` ones do not answer."""

    def __init__(self, keys: dict[str, int]) -> None:
        self.keys = keys
        self.held: set[str] = set()
        self.silent: set[str] = set()
        self.stock: set[str] = set()

    def registered(self) -> Mapping[str, int]:
        return self.keys

    def look(self, key: str) -> AgentFacts | None:
        if key in self.silent:
            raise DeviceError(f"{key} does not answer")
        used: dict[str, Any] = {"held_by": "somebody", "held_s": 1.0} if key in self.held else {}
        return None if key in self.stock else check_agent_facts({**FACTS, **used})


class World:
    """Who watches, and what it was told."""

    def __init__(self, keys: dict[str, int]) -> None:
        self.registry = Registered(keys)
        self.known = {"alpha": "alpha", "beta": "beta"}
        self.gone: set[str] = set()
        self.newcomers = Newcomers(self.registry, lambda: self.known, self.add, self.vanish)
        self.newcomers.close()

    def add(self, name: str, key: str, facts: AgentFacts) -> None:
        if key == "vax":
            raise ClusterError("target 'vax' is not known")
        self.known[name] = key

    def vanish(self, keys: Collection[str]) -> None:
        self.gone = set(keys)

    def look(self) -> None:
        self.newcomers._stopped.clear()
        self.newcomers.look()


def test_whoever_registers_is_added_under_a_name_of_its_own() -> None:
    world = World({"alpha": 1, "pi": 3})
    world.look()
    assert world.known == {"alpha": "alpha", "beta": "beta", "pi": "pi", "pi.2": "pi", "pi.3": "pi"}
    assert world.gone == {"beta"}
    world.look()
    assert len(world.known) == 5


def test_those_that_cannot_be_used_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World({"alpha": 1, "beta": 1, "used": 1, "mute": 1, "stock": 1, "vax": 1})
    world.registry.held, world.registry.silent, world.registry.stock = {"used"}, {"mute"}, {"stock"}
    for _ in range(2):
        world.look()
    assert set(world.known) == {"alpha", "beta"}
    assert [record.getMessage() for record in caplog.records] == [
        "the device with key mute is not used: mute does not answer",
        "the device with key stock is not used: it is a stock RPC server, which says nothing of itself",
        "the device with key vax is not used: target 'vax' is not known",
    ]
    world.registry.held.clear()
    world.look()
    assert "used" in world.known
