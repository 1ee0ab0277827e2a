"""A pipeline that goes on while strangers try: what it answers then is what it answered before."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import tvmpipe
from tests.models import chain
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.targets.description.cluster import parse_cluster

KEY = "alpha"
WIDTH = 64


def make_bundle(key: str = KEY) -> Bundle:
    """Two dense layers on one device, which registers under `key`."""
    cluster = parse_cluster(f'[[device]]\nname = "alpha"\nkey = "{key}"\nthreads = 1\n')
    return tvmpipe.build(chain(2, WIDTH), cluster)


class Going:
    """Runs one sample again and again in a thread, until it is stopped."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe
        self._sample = {"x": np.random.default_rng(7).normal(size=(4, WIDTH)).astype(np.float32)}
        self._expected: Any = pipe.run(self._sample)["y"]
        self._stopped = threading.Event()
        self.answered, self.wrong, self.error = 0, 0, ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> str:
        """What became of it: empty when each answer was as the first."""
        before = self.answered
        deadline = time.monotonic() + 30.0
        while self.answered < before + 10 and not self.error and time.monotonic() < deadline:
            time.sleep(0.05)
        self._stopped.set()
        self._thread.join(30.0)
        if self.error or self.wrong:
            return self.error or f"{self.wrong} of {self.answered} answers were others than before"
        return "" if self.answered >= before + 10 else "it answered no more"

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                answer = self._pipe.run(self._sample)["y"]
                self.answered += 1
                self.wrong += not np.array_equal(answer, self._expected)
                time.sleep(0.02)
        except Exception as error:  # noqa: BLE001  # told by `stop`
            self.error = f"{type(error).__name__}: {error}"


def main(bundle: str, tracker: str, key: str, folder: Path) -> None:
    """Run one until `folder`/stop is there; "up" appears once it runs, and in the end "told" with what became of it."""
    with tvmpipe.connect(bundle, tracker, cluster_key=key, connect_timeout_s=30) as pipe:
        going = Going(pipe)
        (folder / "up").touch()
        while not (folder / "stop").exists():
            time.sleep(0.1)
        told = going.stop()
    (folder / "told.part").write_text(json.dumps({"wrong": told, "answered": going.answered}))
    (folder / "told.part").rename(folder / "told")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
