"""The transfers of files of one RPC session. What they need is imported with the first: an idle RPC server has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.host_options import HostOptions

if TYPE_CHECKING:
    from tvmpipe.runtime.device.file_receiver import FileReceiver
    from tvmpipe.runtime.transport.sockets import Sockets


class FileReceivers:
    """What a head calls over RPC. One transfer at a time; a new one ends the one before."""

    def __init__(self, store: Store, options: HostOptions) -> None:
        self._store = store
        self._options = options
        self._sockets: Sockets | None = None
        self._receiver: FileReceiver | None = None

    def begin(self, transfer: str) -> str:
        """Begin a `Transfer`, in JSON; a `Begun` in JSON. Raises as `FileReceiver` does, and ValueError."""
        from tvmpipe.runtime.device.file_receiver import FileReceiver
        from tvmpipe.runtime.device.transfer import Transfer

        self.end()
        self._sockets = self._options.link_sockets()
        told = Transfer.model_validate_json(transfer)
        self._receiver = FileReceiver(told, self._store, self._sockets, self._options.address)
        return self._receiver.begun.model_dump_json()

    def work(self, seconds: float) -> int:
        """As `FileReceiver.work`."""
        if self._receiver is None:
            raise ValueError("no transfer has begun")
        return self._receiver.work(seconds)

    def end(self) -> None:
        """Give nothing more to anybody; the port is free afterwards."""
        self._receiver = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
