"""The process in which a device's stages run: `python -m tvmpipe.runtime.host_process OPTIONS`.

The agent starts it, writes one JSON object a line to its input (`open` with paths, or `close`) and reads from its
output how far it is. It serves one opening of a pipeline at a time; a new one replaces the old.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tvmpipe.errors import TvmpipeError
from tvmpipe.runtime.beat import Status
from tvmpipe.runtime.emulation import Emulation
from tvmpipe.runtime.hosting import HostedSession
from tvmpipe.runtime.keys import ClusterKey
from tvmpipe.runtime.process import die_with_parent
from tvmpipe.runtime.sockets import Sockets
from tvmpipe.runtime.spec import HostSpec
from tvmpipe.runtime.store import Store

logger = logging.getLogger(__name__)


class HostOptions(BaseModel):
    """What an agent tells its host when it starts it."""

    model_config = ConfigDict(frozen=True)

    address: str
    port: int
    store: Path
    memory_bytes: int
    cluster_key: Path | None
    emulation: Emulation


def main() -> None:
    """Read openings until the input ends."""
    die_with_parent()
    logging.basicConfig(level=logging.WARNING, format="tvmpipe host: %(message)s", stream=sys.stderr)
    options = HostOptions.model_validate_json(sys.argv[1])
    # Whatever else writes to the output must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    process = _HostProcess(options, answers)
    threading.Thread(target=process.listen, name="tvmpipe-control", daemon=True).start()
    process.work()


class _HostProcess:
    def __init__(self, options: HostOptions, answers: Any) -> None:
        self._options = options
        self._answers = answers
        self._writing = threading.Lock()
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._hosted: HostedSession | None = None

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
                hosted.host.stop()
        os._exit(0)  # told to, or the agent is gone

    def work(self) -> None:
        while True:
            command = self._commands.get()
            session = command["open"]["session"]
            try:
                self._serve(HostSpec.model_validate(command["open"]))
            except (TvmpipeError, ValidationError, OSError, MemoryError, ValueError, RuntimeError) as error:
                self._say("failed", session, str(error) or type(error).__name__)

    def _say(self, state: str, session: str, message: str = "") -> None:
        self._write(json.dumps({"state": state, "session": session, "message": message}))

    def _report(self, status: Status) -> None:
        self._write(json.dumps({"status": status.model_dump(mode="json", exclude={"spans"})}))

    def _write(self, line: str) -> None:
        with self._writing:
            self._answers.write(line + "\n")

    def _serve(self, spec: HostSpec) -> None:
        import tvm_ffi

        from tvmpipe.runtime.load import LoadedStages

        self._say("loading", spec.session)
        tvm_ffi.get_global_func("runtime.config_threadpool")(1, spec.threads)
        runner = LoadedStages(spec.stages, Store(self._options.store), self._options.memory_bytes)
        key = self._options.cluster_key
        with Sockets(None if key is None else ClusterKey.load(key)) as sockets:
            address = (self._options.address, self._options.port)
            hosted = HostedSession(spec, runner, sockets, address, self._options.emulation, self._report)
            self._hosted = hosted
            self._say("ready", spec.session)
            # What was asked for while the stages were being loaded could not stop a host that was not there yet.
            if not self._commands.empty():
                hosted.host.stop()
            failure = hosted.serve()
            self._hosted = None
        if failure is not None:
            self._say("failed", spec.session, str(failure))
        else:
            self._say("expired" if hosted.lease_ended else "idle", spec.session)


if __name__ == "__main__":
    main()
