"""TVM's RPC server in a process of its own: `python -m tvmpipe.runtime.device.rpc_process`.

The agent starts it, writes one JSON object (`RpcServerOptions`) to its input and reads from its output the port that
it listens on. It runs until it is killed; a session that crashes can end it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tvmpipe.process import describe_exit, die_with_parent
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.file_receivers import FileReceivers
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.device.manager_client import DeviceManagerClient, device_manager_address
from tvmpipe.runtime.device.probes import LinkProbes
from tvmpipe.runtime.device.store_functions import store_functions
from tvmpipe.runtime.tvm_runtime import import_runtime
from tvmpipe.text import clean


@dataclass(frozen=True)
class RpcServerOptions:
    """What an agent tells its RPC server.

    Attributes: `address`, and `port` to `port_end`, where it may listen; `tracker` (host, port) and `key`, where and as
    what it registers; `shown` the (host, port) that it registers under where that is not its own, because something
    stands in front of it; `secret` hex digits of the bytes that connections must begin with then; `folder` where the
    device manager's socket lies, and the files of sessions; `host` what the agent tells its stage host.
    """

    address: str
    port: int
    port_end: int
    tracker: tuple[str, int]
    key: str
    shown: tuple[str, int] | None
    folder: Path
    host: HostOptions
    secret: str = ""

    def facts(self) -> dict[str, Any]:
        """For JSON; `from_facts` takes them back."""
        return {**asdict(self), "folder": str(self.folder), "host": self.host.facts()}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> RpcServerOptions:
        """What `facts` are of."""
        tracker, shown = facts["tracker"], facts["shown"]
        return cls(
            **{
                **facts,
                "tracker": tuple(tracker),
                "shown": None if shown is None else tuple(shown),
                "folder": Path(facts["folder"]),
                "host": HostOptions.from_facts(facts["host"]),
            }
        )


class RpcServer:
    """A running server. Raises RuntimeError when it ends before it listens, OSError when it cannot be started."""

    def __init__(self, options: RpcServerOptions) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tvmpipe.runtime.device.rpc_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(json.dumps(options.facts()).encode())
            answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"the RPC server ended before it listened ({describe_exit(self._process.wait())})")
        self.port = int(answer)

    @property
    def ended(self) -> str | None:
        """How it ended; None while it runs."""
        code = self._process.poll()
        return None if code is None else describe_exit(code)

    def end(self) -> None:
        """End it and its sessions."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Serve until killed. Sessions are forked from this process."""
    die_with_parent()
    logging.basicConfig(level=logging.WARNING, format="tvmpipe agent: %(message)s", stream=sys.stderr)
    options = RpcServerOptions.from_facts(json.loads(sys.stdin.read()))
    # Whatever else writes to the output must not be taken for the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import_runtime()
    _mend_tvm(options)
    os.register_at_fork(after_in_child=die_with_parent)
    tempfile.tempdir = str(options.folder)  # where each session makes one that it leaves when it is killed
    # TVM's listening thread ends with an exception when a session crashes; a server that cannot listen must go.
    threading.excepthook = _exit_on_error
    store = Store(options.host.store, options.host.store_limit_bytes)
    receivers = FileReceivers(store, options.host)
    manager = DeviceManagerClient(device_manager_address(options.folder))
    register_functions(store_functions(store, receivers), manager, LinkProbes(options.host))
    server = _listen(options)
    with answer:
        answer.write(f"{server.port}\n")
    server.thread.join()


def _mend_tvm(options: RpcServerOptions) -> None:
    from tvmpipe.runtime.device.advertise import advertise
    from tvmpipe.runtime.security.handshake import guard_handshakes
    from tvmpipe.runtime.transport.tracker import await_trackers, hasten_registration

    hasten_registration()
    await_trackers()
    if options.shown is not None:
        advertise(*options.shown)
    guard_handshakes(secret=bytes.fromhex(options.secret))


def _listen(options: RpcServerOptions) -> Any:
    """TVM's own server, in a thread."""
    from tvm.rpc.server import PopenRPCServerState

    return PopenRPCServerState(
        options.address,
        options.port,
        options.port_end,
        tracker_addr=options.tracker,
        key=options.key,
        custom_addr=options.address,
        silent=True,
    )


def _exit_on_error(failure: threading.ExceptHookArgs) -> None:
    sys.stderr.write(f"tvmpipe agent: RPC server thread failed: {clean(failure.exc_value)}\n")
    os._exit(1)


def register_functions(files: dict[str, Callable[..., str]], manager: DeviceManagerClient, link: LinkProbes) -> None:
    """Make these callable over RPC, under names that begin with `tvmpipe.`."""
    import tvm_ffi

    for name, function in {
        "device_manager": manager.ask,
        **files,
        "dial_back": link.dial_back,
        "echo": link.echo,
        "time_link": link.time_link,
        "try_link": link.try_link,
    }.items():
        tvm_ffi.register_global_func(f"tvmpipe.{name}", function, override=True)


if __name__ == "__main__":
    main()
