"""A store as heads call it over RPC; what goes wrong is an answer, as TVM makes a traceback of what is raised."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tvmpipe.runtime.device.blob_store import Store, StoreFullError
from tvmpipe.runtime.device.stored_file import StoredFile


def store_functions(store: Store) -> dict[str, Callable[..., str]]:
    """By name: `store_prepare` takes a JSON list of files and returns an object with those that are `missing`, or an
    `error`; `store_append` and `store_commit` return an empty string, or what went wrong."""

    def prepare(request: str) -> str:
        try:
            missing = store.prepare([StoredFile(**one) for one in json.loads(request)])
        except (StoreFullError, OSError, ValueError, TypeError) as error:
            return json.dumps({"error": _why(error)})
        return json.dumps({"missing": [one._asdict() for one in missing]})

    def append(sha256: str, suffix: str, chunk: Any) -> str:
        return _answer(lambda: store.append(sha256, suffix, bytes(chunk)))

    def commit(sha256: str, suffix: str) -> str:
        return _answer(lambda: store.commit(sha256, suffix))

    return {"store_prepare": prepare, "store_append": append, "store_commit": commit}


def _answer(work: Callable[[], None]) -> str:
    try:
        work()
    except (StoreFullError, OSError, ValueError) as error:
        return _why(error)
    return ""


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
