"""Has plans made beside the running pipeline, one after the other, in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from tvmpipe.errors import DeviceError, TvmpipeError
from tvmpipe.manifest import PlanEntry
from tvmpipe.runtime.head import events
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.instructions import Compile, Replan
from tvmpipe.runtime.head.opened import PlanDeployer
from tvmpipe.runtime.head.replanner import Proposal, Replanner, Request
from tvmpipe.runtime.transport import deadlines

logger = logging.getLogger(__name__)

_SEND_BPS = 40e6  # what files travel at, until some have

Post = Callable[[events.Event, Any], None]


class PlanMaker:
    """Carries out `Replan` and `Compile`; what comes of it is posted as an event, a plan with its `Extension`."""

    def __init__(self, replanner: Replanner, deployer: PlanDeployer, post: Post) -> None:
        self.replanner = replanner
        self._deployer = deployer
        self._tell = post
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._proposed: dict[int, Proposal] = {}
        self._newest = 0
        self._opened_s: list[float] = []  # how long plans took to be made ready
        self._sent: list[tuple[int, float]] = []  # bytes of their files, and seconds
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tvmpipe-planner", daemon=True)
        self._thread.start()

    def replan(self, one: Replan, plans: Sequence[PlanEntry]) -> None:
        """Find a plan; `plans` are those that are known, whose devices have their files."""
        self._newest = one.number
        self._work.put(lambda: self._replan(one, plans))

    def compile(self, one: Compile) -> None:
        """Make the plan that was found last."""
        self._work.put(lambda: self._compile(one.number))

    def join(self, name: str, key: str, table: Mapping[str, Any], facts: AgentFacts | None) -> Future[None]:
        """Have plans made with a device from now on. The future raises what keeps it from that."""
        done: Future[None] = Future()

        def work() -> None:
            try:
                known = facts
                if known is None and not table and not self.replanner.knows(name):
                    known = self._deployer.look(key)
                device = self.replanner.describe(name, key, table, known)
            except TvmpipeError as error:
                done.set_exception(error)
            except Exception as error:  # a fault in this program, and nobody may wait for ever
                logger.exception("a device could not join")
                done.set_exception(DeviceError(f"device {name} could not join: {error}"))
            else:
                self._post(events.Joined(name, time.monotonic()), device)
                done.set_result(None)

        self._work.put(work)
        return done

    def opened(self, seconds: float, sent_bytes: int) -> None:
        """A plan was made ready beside another in so long, for which so much was sent."""
        self._opened_s.append(seconds)
        if sent_bytes:
            self._sent.append((sent_bytes, seconds))

    def close(self) -> None:
        """End; whoever waits for a plan hears nothing more."""
        self._closed = True
        self._work.put(None)
        self.replanner.close()
        self._thread.join(deadlines.JOIN_S)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _replan(self, one: Replan, plans: Sequence[PlanEntry]) -> None:
        if one.number != self._newest:
            return  # something else is asked by now

        def work() -> None:
            present = self._there(one.present) if one.urgent else one.present
            limit_s = deadlines.URGENT_PLAN_S if one.urgent else deadlines.PLAN_S
            proposal = self.replanner.propose(Request(present, one.speeds, limit_s))
            self._proposed = {one.number: proposal}
            if one.urgent:
                self._make(one.number)
                return
            ready_s = proposal.compile_s + self._opening_s(proposal, plans)
            figures = proposal.period_s, proposal.latency_s
            self._post(events.Proposed(one.number, *figures, ready_s, time.monotonic()))

        self._guarded(one.number, work)

    def _compile(self, number: int) -> None:
        if number in self._proposed:
            self._guarded(number, lambda: self._make(number))

    def _make(self, number: int) -> None:
        extension = self.replanner.make(self._proposed[number])
        self._post(events.PlanReady(number, extension.plan, time.monotonic()), extension)

    def _guarded(self, number: int, work: Callable[[], None]) -> None:
        try:
            work()
        except TvmpipeError as error:
            message = str(error)
        except Exception as error:  # a fault in this program: what runs goes on
            logger.exception("making a plan failed")
            message = f"making it failed: {error}"
        else:
            return
        self._post(events.PlanFailed(number, message, time.monotonic()))

    def _post(self, event: events.Event, extra: Any = None) -> None:
        if not self._closed:
            self._tell(event, extra)

    def _there(self, devices: Sequence[str]) -> tuple[str, ...]:
        """Those of them that answer, all asked at once; the others are posted as lost."""
        there: list[str] = []

        def ask(device: str) -> None:
            if self._deployer.back(device):
                there.append(device)

        threads = [threading.Thread(target=ask, args=(device,), daemon=True) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * deadlines.BACK_S)
        found = tuple(device for device in devices if device in there)
        for device in devices:
            if device not in found:
                self._post(events.Missing(device, "it does not answer", time.monotonic()))
        return found

    def _opening_s(self, proposal: Proposal, plans: Sequence[PlanEntry]) -> float:
        """Until a plan is ready to be changed over to, once it is compiled, judging by those before."""
        had: dict[str, set[str]] = {}
        sizes: dict[str, int] = {}
        for stage in (stage for plan in plans for stage in plan.stages):
            had.setdefault(stage.device, set()).update(entry.path for entry in stage.weight_files)
            sizes.update((entry.path, entry.size_bytes) for entry in stage.weight_files)
        size_bytes = sum(
            sizes.get(path, 0)
            for device, paths in proposal.weights.items()
            for path in paths
            if path not in had.get(device, set())
        )
        rate_bps = _SEND_BPS
        if self._sent:
            rate_bps = sum(size for size, _ in self._sent) / sum(seconds for _, seconds in self._sent)
        known = self._opened_s[-_OPENINGS:]
        return size_bytes / rate_bps + (sum(known) / len(known) if known else deadlines.OPENING_S)


_OPENINGS = 5
