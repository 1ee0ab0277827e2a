"""Compile one ONNX model for several unequal machines and run it on all of them as a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvmpipe.build import build
from tvmpipe.bundle import Bundle, load

if TYPE_CHECKING:
    from tvmpipe.runtime.head.connect import connect
else:

    def __getattr__(name: str) -> Any:
        """`connect` brings TVM with it, which takes seconds on a small machine, and which nothing else here needs."""
        if name == "connect":
            from tvmpipe.runtime.head.connect import connect

            return connect
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Bundle", "build", "connect", "load"]
