"""The file that a run can be replayed from: each event as a line of JSON."""

from __future__ import annotations

import contextlib
import logging
from typing import TextIO

from tvmpipe.runtime.head import events
from tvmpipe.runtime.head.events import Event

logger = logging.getLogger(__name__)

_FREQUENT = (events.Submitted, events.Arrived, events.Seen, events.Tick)


class EventLog:
    """Writes events to `file`, which is closed with it; with None, nowhere. For one thread at a time."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, event: Event) -> None:
        """Note an event. One that cannot be written ends the log, not the pipeline."""
        if self._file is None:
            return
        try:
            self._file.write(events.to_line(event) + "\n")
            if not isinstance(event, _FREQUENT):
                self._file.flush()
        except OSError as error:
            logger.warning("the event log ends here: %s", error.strerror)
            with contextlib.suppress(OSError):  # closing writes what is buffered
                self._file.close()
            self._file = None

    def close(self) -> None:
        """End the log."""
        if self._file is not None:
            self._file.close()
            self._file = None
