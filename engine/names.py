"""Names and defaults that the command line offers, in a module that loads nothing."""

from __future__ import annotations

# Our name of an execution provider, and ONNX Runtime's.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "openvino-bf16": "OpenVINOExecutionProvider",
}

DEFAULT_SEED = 2000  # that of FOZO's official runs
ACTIVATIONS = ("gelu", "quick_gelu")  # of CLIP models
