"""Watches a tracker for devices that come and go, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from tvmpipe.errors import TvmpipeError
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.transport import deadlines

logger = logging.getLogger(__name__)


class Registry(Protocol):
    """Where devices register."""

    def registered(self) -> Mapping[str, int]:
        """How many devices there are of each key. Raises TvmpipeError."""
        ...

    def look(self, key: str) -> AgentFacts | None:
        """What a device that this head has for no other says of itself; None for a stock RPC server.

        Raises TvmpipeError.
        """
        ...


Known = Callable[[], Mapping[str, str]]
"""Name -> key of each device that is known, whether or not plans may use it."""

Add = Callable[[str, str, AgentFacts], None]
"""A device of this name and key may be planned with. Raises TvmpipeError where it cannot."""

Gone = Callable[[Collection[str]], None]
"""Devices with these keys are not registered any more."""


class Newcomers:
    """Adds each device that registers and that nobody else has, and says which are gone."""

    def __init__(self, registry: Registry, known: Known, add: Add, gone: Gone) -> None:
        self._registry = registry
        self._known = known
        self._add = add
        self._gone = gone
        self._told: dict[str, str] = {}  # key -> why a device of it is not taken
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tvmpipe-newcomers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stopped.set()
        self._thread.join(deadlines.JOIN_S)

    def look(self) -> None:
        """Look once. Raises TrackerError."""
        registered = self._registry.registered()
        known = self._known()
        have = Counter(known.values())
        self._gone([key for key in have if not registered.get(key)])
        for key, total in registered.items():
            for number in range(have[key] + 1, total + 1):
                name = key if number == 1 else f"{key}.{number}"
                if name in known or self._stopped.is_set():
                    continue
                self._take(name, key)

    def _take(self, name: str, key: str) -> None:
        try:
            facts = self._registry.look(key)
            if facts is None:
                self._tell(key, "it is a stock RPC server, which says nothing of itself")
            elif facts.held_by is None:
                self._add(name, key, facts)
                self._told.pop(key, None)
        except TvmpipeError as error:
            self._tell(key, str(error))

    def _tell(self, key: str, why: str) -> None:
        if self._told.get(key) != why:
            logger.warning("the device with key %s is not used: %s", key, why)
            self._told[key] = why

    def _work(self) -> None:
        while not self._stopped.wait(deadlines.NEWCOMERS_S):
            try:
                self.look()
            except TvmpipeError as error:
                self._tell("", str(error))
