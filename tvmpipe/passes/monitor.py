"""How a compilation is getting on, for whoever watches it, and its modules, for whoever reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmpipe.errors import InputError

Progress = Callable[[str, int, int, float], None]
"""Called before each pass with its name (and perhaps what it will do), its number, how many there are, and seconds."""

_TELL_S = 2.0


class Monitor:
    """Tells `progress` which of `passes` begins, and writes modules into the folder `dump`. Without both it is silent.

    Raises InputError when the folder cannot be made.
    """

    def __init__(self, passes: Sequence[str] = (), progress: Progress | None = None, dump: Path | None = None) -> None:
        self._passes, self._progress, self._dump = tuple(passes), progress, dump
        self._started = self._last_said = time.perf_counter()
        self._now = ""
        if dump is not None:
            try:
                dump.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"dump folder {dump} cannot be made: {error.strerror}") from None

    def begin(self, name: str, detail: str = "") -> None:
        """The pass `name` begins; `detail` says how much it has to do."""
        self._now = name
        self._say(f"{name}: {detail}" if detail else name)

    def tell(self, text: str) -> None:
        """The pass that runs says how it is getting on; passed on at most every few seconds."""
        if time.perf_counter() - self._last_said > _TELL_S:
            self._say(f"{self._now}: {text}")

    def dump(self, modules: Mapping[str, Any]) -> None:
        """What the pass that runs has made, as TVMScript: a file for each name ("" where there is one module)."""
        if self._dump is None:
            return
        for name, module in modules.items():
            suffix = f"-{name}" if name else ""
            path = self._dump / f"{self._passes.index(self._now):02d}-{self._now}{suffix}.py"
            path.write_text(module.script(show_meta=False), encoding="utf-8")

    def end(self) -> None:
        """The last pass is done."""
        self._now = ""
        if self._progress is not None:
            self._progress("done", len(self._passes), len(self._passes), time.perf_counter() - self._started)

    def within(self) -> Monitor:
        """For passes that are done again as a part of the one that runs: what they tell and make is its."""
        return _Within(self)

    def _say(self, text: str) -> None:
        self._last_said = time.perf_counter()
        if self._progress is not None:
            number = self._passes.index(self._now)
            self._progress(text, number, len(self._passes), self._last_said - self._started)


class _Within(Monitor):
    def __init__(self, outer: Monitor) -> None:
        super().__init__()
        self._outer = outer

    def begin(self, name: str, detail: str = "") -> None:
        return None

    def tell(self, text: str) -> None:
        self._outer.tell(text)

    def dump(self, modules: Mapping[str, Any]) -> None:
        self._outer.dump(modules)
