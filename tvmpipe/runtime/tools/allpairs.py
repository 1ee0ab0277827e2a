"""The links between the devices behind a tracker, and from this machine to them, timed one after the other."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tvmpipe.errors import DeviceError, TvmpipeError
from tvmpipe.manifest import HEAD
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.cluster_status import device_with_key
from tvmpipe.runtime.tools.linktest import time_head_link, time_pair
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.link_times import LinkTimes
from tvmpipe.runtime.transport.rpc_session import open_session
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog


@dataclass(frozen=True)
class TimedLink:
    """A link: the keys of its ends ("head" for this machine), whether one of them emulates it, and its times.

    `times` None: it could not be timed; `failure` says why.
    """

    between: tuple[str, str]
    emulated: bool
    times: LinkTimes | None
    failure: str = ""


def time_links(
    tracker: str,
    keys: Sequence[str],
    cluster_key: ClusterKey | None = None,
    notice: Callable[[str, int, int], None] = lambda *_: None,
) -> Iterator[TimedLink]:
    """Time each pair of the devices that have `keys`, and this machine with each. Raises TrackerError.

    A device that another head has, or that runs no tvmpipe agent, is one failure: its links with this machine's.
    """
    agents: dict[str, AgentClient] = {}
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(Tracker(tracker))
        watchdog = Watchdog()
        stack.callback(watchdog.stop)
        for key in keys:
            try:
                session = open_session(
                    connection, device_with_key(key), watchdog, time.monotonic() + deadlines.PAIRS_S, cluster_key
                )
                stack.callback(session.close)
                agents[key] = _usable(AgentClient.of(session))
            except TvmpipeError as error:
                yield TimedLink((HEAD, key), False, None, f"links of {key} were not measured: {error}")
        pairs = [*((HEAD, key) for key in agents), *itertools.combinations(agents, 2)]
        for number, (first, second) in enumerate(pairs):
            notice(f"{first} - {second}", number, len(pairs))
            emulated = any(agents[end].facts.emulated is not None for end in (first, second) if end != HEAD)
            try:
                if first == HEAD:
                    times = time_head_link(agents[second], cluster_key)
                else:
                    times = time_pair(agents[first], agents[second])
            except TvmpipeError as error:
                reason = f"the link between {first} and {second} cannot be measured: {error}"
                yield TimedLink((first, second), emulated, None, reason)
            else:
                yield TimedLink((first, second), emulated, times)


def _usable(agent: AgentClient | None) -> AgentClient:
    if agent is None:
        raise DeviceError("it is a stock TVM RPC server, which has no stage link")
    if agent.facts.held_by is not None:
        raise DeviceError(f"it is in use by {agent.facts.held_by}")
    return agent
