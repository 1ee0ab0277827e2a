"""What TVM cannot compile goes to ONNX Runtime: which nodes, in which groups, and the ONNX model of each group."""
