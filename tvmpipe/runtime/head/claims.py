"""Which agents a head has: finding them, claiming them so that heads cannot lock each other out, giving them back.

A device has one TVM RPC session at a time and belongs to one head. Heads take both in one order, that of the devices'
tracker keys, and wait for nothing else while they keep others from it; so one of those that wait always gets through.
Whoever waits for a device that another head has keeps no session meanwhile, and asks as often as the agent says.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tvmpipe.errors import DeviceError, DeviceHeldError, DeviceUnavailableError, TvmpipeError
from tvmpipe.manifest import DeviceEntry
from tvmpipe.runtime.device.spec import Claim
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.attempt import Attempt, for_each
from tvmpipe.runtime.head.opened import OpenError
from tvmpipe.runtime.head.options import Limits
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.rpc_session import RpcSession, open_session
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog

logger = logging.getLogger(__name__)


@dataclass
class Reached:
    """A device that answers: an agent, or a stock server."""

    session: RpcSession
    agent: AgentClient | None
    renewed: float = field(default_factory=time.monotonic)

    def renew(self, claim: Claim, more_s: float = 0.0) -> None:
        """Tell the agent that its head lives, if that is due."""
        if self.agent is not None and (more_s or time.monotonic() - self.renewed > deadlines.RENEW_S):
            self.agent.reserve(claim, more_s)
            self.renewed = time.monotonic()


class Claims:
    """The devices of one head. `claim` is for one thread at a time, `back` and `give_back` for any."""

    def __init__(self, tracker: str, key: ClusterKey | None, limits: Limits, claim: Claim) -> None:
        self.own_claim = claim
        self._tracker = tracker
        self._key = key
        self._limits = limits
        self._watchdog = Watchdog()
        self._lock = threading.Lock()
        self._places: dict[str, tuple[str, int]] = {}  # device -> under what its agent registered
        self._lost: dict[str, float] = {}  # since when they are looked for
        self.held: set[str] = set()  # devices whose agents have been told that this head has them

    def claim(self, devices: Sequence[DeviceEntry], attempt: Attempt, reached: dict[str, Reached]) -> None:
        """Get all of `devices`, each with a session, into `reached`; waits while other heads have some.

        Those that it has already keep nobody waiting and are reached at the same time, the others one after the
        other. Raises OpenError; what is in `reached` then is the caller's to close.
        """
        with self._lock:
            known = [device for device in devices if device.name in self.held and device.name not in self._lost]

        def reach(device: DeviceEntry) -> None:
            with contextlib.suppress(DeviceHeldError):  # this head has lost it: its turn comes below
                reached[device.name] = self._reach(device, attempt)

        for_each(known, reach, attempt)
        pending = [device for device in devices if device.name not in reached]
        parked: dict[str, float] = {}  # claimed, without a session; when the agent last heard of this head
        deadline = time.monotonic() + self._limits.wait_s
        told = False
        while pending or parked:
            names = [device.name for device in pending] or list(parked)
            device = min((device for device in devices if device.name in names), key=_order)
            parked.pop(device.name, None)  # its one session is this call's: renewing it would wait for that
            try:
                one = self._reach_beside(device, devices, reached, parked, attempt, deadline)
            except DeviceHeldError as error:
                if time.monotonic() >= deadline:
                    raise OpenError(device.name, error) from None
                if not told:
                    logger.warning("%s; waiting", error)
                told = True
                parked |= self._park(reached)
                # What comes later in the order is not kept while we wait, nor are other agents with the same key,
                # which heads cannot put into an order.
                later = [other for other in devices if other.name in parked and other.key >= device.key]
                self.give_back(later)
                for other in later:
                    del parked[other.name]
                until = min(time.monotonic() + error.again_s, deadline)
                while (left := until - time.monotonic()) > 0:
                    attempt.pause(min(left, deadlines.CLAIM_POLL_S))
                    self._renew(devices, reached, parked, attempt)
                pending = [one for one in devices if one.name not in reached and one.name not in parked]
            except TvmpipeError as error:
                raise OpenError(device.name, error) from error
            else:
                reached[device.name] = one
                pending = [one for one in devices if one.name not in reached and one.name not in parked]

    def back(self, device: DeviceEntry, attempt: Attempt) -> bool:
        """Whether a lost device can be had again: its agent, or one with its key that this head has for no other."""
        with self._lock:
            self._lost.setdefault(device.name, time.monotonic())
        try:
            with Tracker(self._tracker, timeout_s=deadlines.BACK_S) as tracker, attempt.waits_on(tracker):
                session = self._session(tracker, device, time.monotonic() + deadlines.BACK_S)
        except DeviceError:
            return False
        try:
            with attempt.waits_on(session):
                session.timeout_s = deadlines.BACK_S
                agent = AgentClient.of(session)
                if agent is not None:
                    agent.reserve(self.own_claim)
                    self._note(device, session)
                    if agent.facts.host == "failed":
                        # From here it looked as if a link broke; the agent knows more.
                        logger.warning("device %s: %s", device.name, agent.facts.host_message)
        except DeviceError:
            return False
        finally:
            session.close()
        return True

    def registered(self) -> dict[str, int]:
        """How many devices the tracker has of each key. Raises TrackerError."""
        with Tracker(self._tracker, timeout_s=deadlines.TRACKER_S) as tracker:
            return {status.key: status.total for status in tracker.status() if status.total}

    def look(self, device: DeviceEntry, attempt: Attempt) -> AgentFacts | None:
        """What a device says of itself that this head has for no other; None for a stock RPC server.

        Raises DeviceError.
        """
        with Tracker(self._tracker, timeout_s=deadlines.BACK_S) as tracker, attempt.waits_on(tracker):
            session = self._session(tracker, device, time.monotonic() + deadlines.BACK_S)
        try:
            with attempt.waits_on(session):
                session.timeout_s = deadlines.BACK_S
                agent = AgentClient.of(session)
                return None if agent is None else agent.facts
        finally:
            session.close()

    def give_back(self, devices: Iterable[DeviceEntry]) -> None:
        """Make these free for others, as far as they answer.

        The first in their order comes last: whoever waits for it gets all.
        """
        with self._lock:
            mine = sorted((device for device in devices if device.name in self.held), key=_order)
        with contextlib.suppress(OpenError):
            for_each(mine[1:], self._release)
            for_each(mine[:1], self._release)

    def released(self, device: str) -> None:
        """It was told already that it is free."""
        with self._lock:
            self.held.discard(device)

    def close(self) -> None:
        """End the thread that watches over calls."""
        self._watchdog.stop()

    def _reach(self, device: DeviceEntry, attempt: Attempt, until: float = 0.0) -> Reached:
        """A session with a device that this head then has. Raises DeviceHeldError when another has it.

        `until` (monotonic) is for how long this head will ask again then.
        """
        attempt.check()
        with (
            Tracker(self._tracker, timeout_s=min(deadlines.TRACKER_S, self._limits.connect_s)) as tracker,
            attempt.waits_on(tracker),
        ):
            deadline = time.monotonic() + max(self._limits.connect_s, self._limits.wait_s)
            session = self._session(tracker, device, deadline)
        try:
            with attempt.waits_on(session):
                session.timeout_s = self._limits.timeout_s
                agent = AgentClient.of(session)
                if agent is None:
                    return Reached(session, None)
                agent.reserve(self.own_claim, wait_s=max(0.0, until - time.monotonic()))
                self._note(device, session)
                return Reached(session, agent)
        except BaseException:
            session.close()
            raise

    def _session(self, tracker: Tracker, device: DeviceEntry, deadline: float) -> RpcSession:
        """A session with the agent that was this device before, or with one that this head has for no other."""
        with self._lock:
            others = {place for name, place in self._places.items() if name != device.name and name not in self._lost}
            before = self._places.get(device.name)
            lost_s = time.monotonic() - self._lost.get(device.name, math.inf)
        known = (status for status in tracker.status() if status.key == device.key)
        registered = {_bare(address) for status in known for address in status.addresses}
        if (
            before is not None
            and before not in others
            and _written(before) in registered
            and lost_s < deadlines.SAME_AGENT_S
        ):
            return open_session(tracker, device, self._watchdog, deadline, self._key, lambda place: place == before)
        if registered and registered <= {_written(place) for place in others}:
            raise DeviceUnavailableError(
                f"no device with key {device.key!r} is registered at {tracker.address} for {device.name} besides those "
                "that are other devices of this plan"
            )
        return open_session(tracker, device, self._watchdog, deadline, self._key, lambda place: place not in others)

    def _note(self, device: DeviceEntry, session: RpcSession) -> None:
        with self._lock:
            self._places[device.name] = session.registered
            self._lost.pop(device.name, None)
            self.held.add(device.name)

    def _reach_beside(
        self,
        device: DeviceEntry,
        devices: Sequence[DeviceEntry],
        reached: Mapping[str, Reached],
        parked: dict[str, float],
        attempt: Attempt,
        until: float,
    ) -> Reached:
        """Reach a device, in a thread, while those that are claimed hear that their head lives."""
        done: list[Reached] = []
        failed: list[Exception] = []

        def reach() -> None:
            try:
                done.append(self._reach(device, attempt, until))
            except Exception as error:  # noqa: BLE001  # raised again below
                failed.append(error)

        thread = threading.Thread(target=reach, name="tvmpipe-reach", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(deadlines.CLAIM_POLL_S)
                self._renew(devices, reached, parked, attempt)
        except BaseException:
            attempt.interrupt()  # it was given up
            thread.join()
            for one in done:
                one.session.close()
            raise
        if failed:
            raise failed.pop()  # not [0]: what refers to itself keeps its frames, and sessions in them
        return done[0]

    def _renew(
        self,
        devices: Sequence[DeviceEntry],
        reached: Mapping[str, Reached],
        parked: dict[str, float],
        attempt: Attempt,
    ) -> None:
        """Tell all that are claimed, where it is due. Those in `parked` that another head has are taken out."""
        for name, one in reached.items():
            try:
                one.renew(self.own_claim)
            except TvmpipeError as error:
                attempt.give_up(f"device {name} was lost meanwhile")
                attempt.interrupt()
                raise OpenError(name, error) from error

        def renew(device: DeviceEntry) -> None:
            try:
                self._reach(device, attempt).session.close()
                parked[device.name] = time.monotonic()
            except DeviceHeldError:
                del parked[device.name]

        due = [name for name, heard in parked.items() if time.monotonic() - heard > deadlines.RENEW_S]
        for_each([device for device in devices if device.name in due], renew, attempt)

    def _park(self, reached: dict[str, Reached]) -> dict[str, float]:
        """Close all sessions with agents, which stay claimed."""
        agents = {name: one.renewed for name, one in reached.items() if one.agent is not None}
        for name in agents:
            reached.pop(name).session.close()
        return agents

    def _release(self, device: DeviceEntry) -> None:
        with contextlib.suppress(DeviceError):  # it is gone, and with it what it held for us
            with Tracker(self._tracker, timeout_s=deadlines.RELEASE_S) as tracker:
                session = self._session(tracker, device, time.monotonic() + deadlines.RELEASE_S)
            try:
                session.timeout_s = deadlines.RELEASE_S
                agent = AgentClient.of(session)
                if agent is not None:
                    agent.release(self.own_claim)
            finally:
                session.close()
        self.released(device.name)


def _order(device: DeviceEntry) -> tuple[str, str]:
    return device.key, device.name


def _written(place: tuple[str, int]) -> str:
    return _bare(f"{place[0] or ''}:{place[1]}")


def _bare(address: str) -> str:
    """An address without the brackets that some write around IPv6."""
    return address.replace("[", "").replace("]", "")
