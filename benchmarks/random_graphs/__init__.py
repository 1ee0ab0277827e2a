"""Random ONNX graphs over the operators that are compiled, each node compared with what ONNX says that it makes."""
