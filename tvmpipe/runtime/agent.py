"""The process on a device: TVM's RPC server, registered with a tracker, with a store of what it was sent.

A head talks to it exactly as to a stock `tvm.exec.rpc_server`; the functions registered here let it skip what
the device already has. The server runs in a child process and is started again when it ends.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import math
import os
import platform
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tvmpipe.errors import InputError
from tvmpipe.runtime.address import parse_address
from tvmpipe.runtime.process import die_with_parent
from tvmpipe.runtime.store import Store

logger = logging.getLogger(__name__)

_HANDSHAKE_S = 5
_PIECE_BYTES = 4 << 20  # of a tensor that is read at a time
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class AgentOptions:
    """What an agent is told. `memory_bytes` None offers what the machine has."""

    tracker: str
    key: str
    host: str = "127.0.0.1"
    port: int = 9091
    port_end: int = 9199
    threads: int | None = None
    memory_bytes: int | None = None
    store: Path | None = None


def serve(options: AgentOptions) -> None:
    """Serve until interrupted. Starts the RPC server again whenever it ends.

    Raises InputError when the store cannot be written or nothing can listen on the address.
    """
    import psutil
    from tvm import rpc

    from tvmpipe.runtime.store import default_store

    tracker = parse_address(options.tracker)
    threads = options.threads or psutil.cpu_count(logical=False) or 1
    # TVM reads these when its thread pool starts. It would otherwise bind a one-thread pool to core 0, and with
    # it every other agent of this machine.
    os.environ["TVM_NUM_THREADS"] = str(threads)
    os.environ["TVM_BIND_THREADS"] = "0"
    root = options.store or default_store()
    try:
        store = Store(root)
        store.clean()
    except OSError as error:
        raise InputError(f"store {root} cannot be used: {error.strerror}") from None
    _check_address(options)
    facts = {
        "tvmpipe": version("tvmpipe"),
        "apache-tvm": version("apache-tvm"),
        "machine": platform.machine(),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total if options.memory_bytes is None else options.memory_bytes,
        "pid": os.getpid(),
    }
    if options.host not in _LOOPBACK:
        logger.warning("listening on %s: TVM RPC runs what anybody who reaches the port sends it", options.host)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    wait_s = 0.5
    while True:
        server = rpc.Server(
            options.host,
            options.port,
            options.port_end,
            key=options.key,
            tracker_addr=tracker,
            custom_addr=options.host if options.host in _LOOPBACK else None,
            silent=True,
            server_init_callback=functools.partial(_prepare_server, store.root, json.dumps(facts)),
        )
        logger.info("serving %r on %s:%s for tracker %s", options.key, options.host, server.port, options.tracker)
        started = time.monotonic()
        try:
            server.proc._proc.wait()
        finally:
            server.terminate()
        wait_s = 0.5 if time.monotonic() - started > 30 else min(wait_s * 2, 10.0)
        logger.warning("the RPC server ended; starting it again in %g s", wait_s)
        time.sleep(wait_s)


def _check_address(options: AgentOptions) -> None:
    """Find out before the server does, which reports it with a traceback of its own."""
    for port in range(options.port, options.port_end):
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise InputError(f"cannot listen on {options.host}: {error.strerror}") from None
            return
    raise InputError(f"no port from {options.port} to {options.port_end - 1} is free on {options.host}")


def _prepare_server(root: Path, facts: str) -> None:
    """Runs in the server's process before it listens; its sessions are forked from it."""
    die_with_parent()
    os.register_at_fork(after_in_child=die_with_parent)
    _bound_handshakes()
    os.register_at_fork(after_in_child=_lift_limits)
    # TVM's listening thread ends with an exception when a session crashes; a server that cannot listen must go.
    threading.excepthook = _exit_on_error
    register_functions(Store(root), facts)


def _exit_on_error(failure: threading.ExceptHookArgs) -> None:
    sys.stderr.write(f"tvmpipe agent: RPC server thread failed: {failure.exc_value}\n")
    os._exit(1)


def _bound_handshakes() -> None:
    """Whoever connects must complete TVM's handshake in a few seconds.

    Its listening thread otherwise waits for ever for a peer that sends nothing, and serves nobody else. The limit
    is the kernel's, on the accepted socket; sessions are forked from this process and lift it again.
    """
    accept = socket.socket.accept

    def bounded(listener: socket.socket) -> tuple[socket.socket, Any]:
        connection, address = accept(listener)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _HANDSHAKE_S, 0))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        return connection, address

    socket.socket.accept = bounded  # type: ignore[method-assign,assignment]


def _lift_limits() -> None:
    """Let this process's connections wait as long as they like."""
    for name in os.listdir("/dev/fd"):
        # Errors: not a socket, or closed meanwhile.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))


def load_tensor(path: Path, name: str, shape: list[int]) -> Any:
    """A tensor of a safetensors file, read in pieces.

    The file is opened anew for each piece: what was read of it counts as this process's memory until it is closed.
    """
    import numpy as np
    import tvm
    from safetensors import safe_open

    if not math.prod(shape) or not shape:
        with safe_open(path, framework="numpy") as file:
            return tvm.runtime.tensor(file.get_tensor(name))
    tensor, step, start = None, 1, 0
    while start < shape[0]:
        with safe_open(path, framework="numpy") as file:
            piece = file.get_slice(name)[start : min(start + step, shape[0])]
        if tensor is None:
            tensor = tvm.runtime.empty(shape, piece.dtype.name)
            view = np.from_dlpack(tensor)
            step = max(1, _PIECE_BYTES // max(1, piece.nbytes))
        view[start : start + len(piece)] = piece
        start += len(piece)
    return tensor


def register_functions(store: Store, facts: str) -> None:
    """Make the store callable over RPC, under names that begin with `tvmpipe.`."""
    import tvm_ffi

    limit = json.loads(facts)["memory_bytes"]
    loaded = {"bytes": 0}

    def register(name: str, function: Any) -> None:
        tvm_ffi.register_global_func(f"tvmpipe.{name}", function, override=True)

    def load_library(sha256: str) -> Any:
        from tvm.runtime import load_module

        return load_module(str(store.path(sha256, ".so")))

    def load_weights(sha256: str, prefix: str) -> None:
        """Put the tensors w0, w1, ... of a file into TVM's tensor cache as PREFIX_0, PREFIX_1, ..."""
        import tvm
        from safetensors import safe_open

        update = tvm.get_global_func("vm.builtin.tensor_cache.update")
        path = store.path(sha256, ".safetensors")
        with safe_open(path, framework="numpy") as file:
            sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # not a mapping
        for name, shape in sizes.items():
            tensor = load_tensor(path, name, shape)
            loaded["bytes"] += math.prod(shape) * tensor.dtype.itemsize
            if loaded["bytes"] > limit:
                raise MemoryError(f"the weights exceed this agent's {limit} bytes of memory")
            update(f"{prefix}_{name.removeprefix('w')}", tensor, True)

    register("info", lambda: facts)
    register("store_has", lambda sha256, suffix: int(store.has(sha256, suffix)))
    register("store_append", lambda sha256, suffix, chunk: store.append(sha256, suffix, bytes(chunk)))
    register("store_commit", store.commit)
    register("load_library", load_library)
    register("load_weights", load_weights)
