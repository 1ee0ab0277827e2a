"""Compile one ONNX model for several unequal machines and run it on all of them as a pipeline."""

from tvmpipe.build import build
from tvmpipe.bundle import Bundle, load

__all__ = ["Bundle", "build", "load"]
