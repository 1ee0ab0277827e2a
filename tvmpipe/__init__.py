"""Compile one ONNX model for several unequal machines and run it on all of them as a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvmpipe.build import build

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle, load
    from tvmpipe.elastic.replanner import Replanner
    from tvmpipe.runtime.head.connect import connect
    from tvmpipe.runtime.head.inference_session import InferenceSession
else:

    def __getattr__(name: str) -> Any:
        """What is asked for: a device needs neither, and `connect` takes seconds to import on a small machine."""
        import importlib

        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_PLACES[name]), name)


_PLACES = {
    "Bundle": "tvmpipe.bundle",
    "load": "tvmpipe.bundle",
    "connect": "tvmpipe.runtime.head.connect",
    "InferenceSession": "tvmpipe.runtime.head.inference_session",
    "Replanner": "tvmpipe.elastic.replanner",
}


__all__ = ["Bundle", "InferenceSession", "Replanner", "build", "connect", "load"]
