"""One warning for each peer that was turned away, however often it comes back."""

from __future__ import annotations

import logging
import threading

_MOST_PEERS = 256


class Refusals:
    """Logs refused peers, from any thread: the first time as a warning, later with a count at debug level.

    `where` says what refused, such as "TLS server on 0.0.0.0". At most 256 peers are warned of, so that a flood from
    many addresses fills neither the log nor the memory.
    """

    def __init__(self, logger: logging.Logger, where: str) -> None:
        self._logger = logger
        self._where = where
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    @property
    def peers(self) -> int:
        """How many peers were warned of."""
        return len(self._counts)

    def note(self, host: str, reason: str, detail: object = "") -> None:
        """Record one refusal of `host`: `reason` is for the user, `detail` for whoever debugs."""
        with self._lock:
            count = self._counts.get(host, 0) + 1
            if count > 1 or len(self._counts) < _MOST_PEERS:
                self._counts[host] = count
                warn = count == 1
            else:
                warn = False
            full = len(self._counts) == _MOST_PEERS
        if warn:
            more = "and no further peer is logged" if full else "logged once"
            self._logger.warning("%s refused %s: %s (%s)", self._where, host, reason, more)
        self._logger.debug("%s refused %s, refusal %d: %s (%s)", self._where, host, count, reason, detail)
