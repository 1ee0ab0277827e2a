"""tvmpipe as a backend of the onnx package: the class, the table of its node tests, the public scoreboard's files."""
