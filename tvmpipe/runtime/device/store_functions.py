"""A store as heads call it over RPC; what goes wrong is an answer, as TVM makes a traceback of what is raised."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tvmpipe.errors import InputError
from tvmpipe.runtime.device.blob_store import Store, StoreFullError
from tvmpipe.runtime.device.file_receivers import FileReceivers
from tvmpipe.runtime.device.stored_file import StoredFile


def store_functions(store: Store, receivers: FileReceivers) -> dict[str, Callable[..., str]]:
    """By name: `store_prepare` takes a JSON list of files and returns an object with those that are `missing`, and of
    these the ones that were `begun` earlier. `receive_begin` takes a `Transfer` and returns a `Begun`, `receive_work`
    takes seconds and returns how many files are still `missing`, `receive_end` ends the transfer. Where something goes
    wrong each returns an object with an `error`. All of it is JSON."""

    def prepare(request: str) -> dict[str, Any]:
        missing = store.prepare([StoredFile(**one) for one in json.loads(request)])
        begun = [one for one in missing if store.has_part(one)]
        return {"missing": [one._asdict() for one in missing], "begun": [one._asdict() for one in begun]}

    def begin(request: str) -> dict[str, Any]:
        begun: dict[str, Any] = json.loads(receivers.begin(request))
        return begun

    def work(seconds: float) -> dict[str, Any]:
        return {"missing": receivers.work(float(seconds))}

    def end() -> dict[str, Any]:
        receivers.end()
        return {}

    return {
        "store_prepare": _answering(prepare),
        "receive_begin": _answering(begin),
        "receive_work": _answering(work),
        "receive_end": _answering(end),
    }


def _answering(work: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    def answer(*arguments: Any) -> str:
        try:
            return json.dumps(work(*arguments))
        except (StoreFullError, InputError, OSError, ValueError, TypeError) as error:
            return json.dumps({"error": _why(error)})

    return answer


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
