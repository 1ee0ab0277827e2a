"""Random ONNX graphs over the operators that are compiled, each compared with ONNX Runtime."""
