"""The process in which a device's stages run: `python -m tvmpipe.runtime.device.host_process OPTIONS`.

The agent starts it, writes one JSON object a line to its input (`open` with what to serve, `forget`, or `close`) and
reads from its output how far it is. It serves one opening of a pipeline at a time; a new one replaces the old. Stages
that the new one has too stay loaded.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tvmpipe.errors import DeviceError, TvmpipeError
from tvmpipe.manifest import StageEntry
from tvmpipe.process import die_with_parent
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.device.hosting import HostedSession
from tvmpipe.runtime.device.limits import (
    LimitedStages,
    allow,
    allowed_bytes,
    data_bytes,
    exceeded,
    is_want_of_memory,
)
from tvmpipe.runtime.device.spec import HostSpec
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.sockets import Sockets
from tvmpipe.runtime.tvm_runtime import import_runtime
from tvmpipe.text import PlainFormatter

if TYPE_CHECKING:
    from tvmpipe.runtime.device.load_stages import LoadedStages

logger = logging.getLogger(__name__)


def main() -> None:
    """Read openings until the input ends."""
    die_with_parent()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("tvmpipe host: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    options = HostOptions.from_facts(json.loads(sys.argv[1]))
    # Whatever else writes to the output must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    process = _HostProcess(options, answers)
    process.tell_up("importing")
    threading.Thread(target=process.listen, name="tvmpipe-control", daemon=True).start()
    process.work()


class _HostProcess:
    def __init__(self, options: HostOptions, answers: Any) -> None:
        self._options = options
        self._answers = answers
        self._writing = threading.Lock()
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._hosted: HostedSession | None = None
        self._idle_bytes = 0  # of data, before there are stages
        self._store = Store(options.store)
        # With what they were loaded for: stages, threads, and bytes of states.
        self._loaded: tuple[tuple[tuple[StageEntry, ...], int, int], LoadedStages] | None = None

    def tell_up(self, phase: str) -> None:
        """Say how far the process itself is: "importing" what takes long, or "imported"."""
        self._write(json.dumps({"up": phase}))

    def listen(self) -> None:
        """Take commands; a new one ends what is being served, `close` the process as well."""
        for line in sys.stdin:
            command = json.loads(line)
            hosted = self._hosted
            if "close" in command:
                # At once, whatever is being computed: nobody waits for it any more.
                if hosted is not None:
                    self._report(hosted.status)
                break
            self._commands.put(command)
            if hosted is not None:
                hosted.stopped.set()
        os._exit(0)  # told to, or the agent is gone

    def work(self) -> None:
        import_runtime()  # seconds on a small machine, before anybody waits for it
        import tvmpipe.runtime.device.load_stages
        import tvmpipe.runtime.device.runners.llvm  # noqa: F401

        self._idle_bytes = data_bytes() if self._options.user_limits else 0
        self.tell_up("imported")
        while True:
            command = self._commands.get()
            if "open" not in command or not self._commands.empty():
                continue  # nobody waits for that any more
            session = command["open"]["session"]
            try:
                spec = HostSpec.model_validate(command["open"])
                with self._store, self._bounded(spec):
                    self._serve(spec)
            except (TvmpipeError, ValidationError, OSError, MemoryError, ValueError, RuntimeError) as error:
                self._loaded = None
                self._say("failed", session, str(error) or type(error).__name__)

    @contextlib.contextmanager
    def _bounded(self, spec: HostSpec) -> Iterator[None]:
        """With `--user-limits`: what this opening may allocate. Raises DeviceError instead of the want of memory."""
        if not self._options.user_limits:
            yield
            return
        allowed = allowed_bytes(spec, self._options.memory_bytes)
        allow(self._idle_bytes + allowed)
        try:
            yield
        except Exception as error:
            if is_want_of_memory(error):
                raise DeviceError(exceeded(spec, allowed)) from error
            raise
        finally:
            allow(None)

    def _say(self, state: str, session: str, message: str = "") -> None:
        self._write(json.dumps({"state": state, "session": session, "message": message}))

    def _report(self, status: Status) -> None:
        self._write(json.dumps({"status": status.model_dump(mode="json", exclude={"spans"})}))

    def _write(self, line: str) -> None:
        with self._writing:
            self._answers.write(line + "\n")

    def _serve(self, spec: HostSpec) -> None:
        self._say("loading", spec.session)
        loaded = self._load(spec)
        if not self._commands.empty():
            return  # something else was asked for meanwhile
        key = self._options.cluster_key
        with Sockets(None if key is None else ClusterKey.load(key)) as sockets:
            address = (self._options.address, self._options.port)
            stopped, emulation = threading.Event(), self._options.emulation
            stages = emulation.wrap_stages(loaded, spec.threads, stopped)
            if self._options.user_limits:
                stages = LimitedStages(stages, spec, allowed_bytes(spec, self._options.memory_bytes))
            wrap = emulation.wrap_sender
            hosted = HostedSession(spec, stages, sockets, address, stopped, wrap_sender=wrap, report=self._report)
            self._hosted = hosted
            self._say("ready", spec.session)
            # What was asked for before `listen` knew of this session could not stop it.
            if not self._commands.empty():
                stopped.set()
            failure = hosted.serve()
            self._hosted = None
        if failure is not None:
            self._loaded = None
            self._say("failed", spec.session, str(failure))
        else:
            self._say("expired" if hosted.lease_ended else "idle", spec.session)

    def _load(self, spec: HostSpec) -> LoadedStages:
        """The stages, which may have been loaded for the opening before."""
        from tvmpipe.runtime.device.load_stages import LoadedStages

        asked = spec.stages, spec.threads, spec.state_bytes
        if self._loaded is None or self._loaded[0] != asked:
            self._loaded = None  # its memory first
            offered = self._options.memory_bytes
            self._loaded = asked, LoadedStages(spec.stages, self._store, offered, spec.threads, spec.state_bytes)
        return self._loaded[1]


if __name__ == "__main__":
    main()
