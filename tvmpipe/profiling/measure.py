"""Time compiled functions on a device behind a TVM RPC tracker; what runs there is any TVM RPC server."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tvmpipe.errors import DeviceUnavailableError, TvmpipeError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.cluster_status import device_with_key
from tvmpipe.runtime.transport.rpc_session import RpcSession
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog
from tvmpipe.targets.description.cluster import Device

_PATIENCE_S = 30.0  # for a device that is busy
_REPEATS = 5
_LARGE = 1 << 20  # bytes: loopback through TVM RPC moves some 40 MB/s
MIN_REPEAT_S = 4e-3
"""Short functions are called so long on end for one sample: about a scheduler's turn, or longer."""


class RemoteTimer:
    """Uploads libraries to one device and times their function `main` on random tensors there."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote
        self._count = 0

    def load(self, library: bytes) -> Any:
        """The module in a shared library, on the device."""
        self._count += 1
        name = f"tune{self._count}.so"
        with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
            path = Path(folder) / name
            path.write_bytes(library)
            self._remote.upload(str(path))
        return self._remote.load_module(name)

    def tensors(self, shapes: list[tuple[tuple[int, ...], str]]) -> list[Any]:
        """Random tensors on the device, made there."""
        import tvm

        fill = self._remote.get_function("tvm.contrib.random.random_fill_for_measure")
        made = []
        for shape, dtype in shapes:
            tensor = tvm.runtime.empty(shape, dtype, self._remote.cpu())
            fill(tensor)
            made.append(tensor)
        return made

    def seconds(self, module: Any, tensors: list[Any]) -> float:
        """Median time of one call."""
        return statistics.median(self.samples(module, tensors, _REPEATS, min_repeat_s=0.01))

    def samples(
        self, module: Any, tensors: list[Any], repeats: int, *, min_repeat_s: float = 0.0, cold: bool = False
    ) -> list[float]:
        """Seconds of one call, `repeats` times; each the mean of calls that last `min_repeat_s` together.

        With `cold`, each is of one call, before which all tensors but the first are driven out of the caches.
        """
        timer = module.time_evaluator(
            "main",
            self._remote.cpu(),
            number=1,
            repeat=repeats,
            min_repeat_ms=0 if cold else round(min_repeat_s * 1e3),
            f_preproc="cache_flush_cpu_non_first_arg" if cold else "",
        )
        return [float(seconds) for seconds in timer(*tensors).results]

    def send(self, arrays: Sequence[NDArray[Any]]) -> list[Any]:
        """Copies of arrays on the device; what is large is made there, at random."""
        import tvm

        return [
            self.tensors([(array.shape, str(array.dtype))])[0]
            if array.nbytes > _LARGE
            else tvm.runtime.tensor(array, self._remote.cpu())
            for array in arrays
        ]


@contextmanager
def remote_timer(tracker: str, device: Device, cluster_key: ClusterKey | None = None) -> Iterator[RemoteTimer]:
    """A session on `device` for as long as the context lasts. Raises DeviceUnavailableError when there is none."""
    with ExitStack() as stack:
        watchdog = Watchdog()
        stack.callback(watchdog.stop)
        try:
            with Tracker(tracker) as connection:
                address = connection.request(device.key, _PATIENCE_S)
            session = RpcSession(device_with_key(device.key), address, watchdog, _PATIENCE_S, cluster_key)
        except TvmpipeError as error:
            raise DeviceUnavailableError(
                f"device {device.name} (key {device.key}) cannot be reached: {error}"
            ) from None
        stack.callback(session.close)
        yield RemoteTimer(session.remote)
