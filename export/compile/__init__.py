"""Adaptation inside of a graph: a step of a method as an ONNX file."""
