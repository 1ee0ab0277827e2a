"""Compile time: ONNX -> Relax -> fused primitives -> coarse graph -> plan -> stages -> libraries -> bundle."""
