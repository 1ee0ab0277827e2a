"""Compile time: ONNX -> Relax -> fused primitives -> plan -> stages -> libraries -> bundle."""
