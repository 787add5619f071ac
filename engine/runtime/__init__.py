"""ONNX Runtime sessions and the machine they run on."""
