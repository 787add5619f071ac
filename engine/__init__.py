"""The adaptation engine: NumPy and ONNX Runtime, nothing else."""
