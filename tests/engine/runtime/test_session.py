"""Options of ONNX Runtime's sessions that decide what is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bundle_doubles import make
from fozo.engine.runtime import session
from fozo.engine.runtime.cpu import CpuFeatures

PROCESSORS = {
    "without VNNI": (CpuFeatures("Old", "x86_64", ("avx2",)), "1"),
    "with VNNI": (CpuFeatures("New", "x86_64", ("avx512_vnni", "avx2")), None),
    "ARM": (CpuFeatures("Arm", "aarch64", ("asimddp",)), None),
    "unknown": (CpuFeatures("Unknown", "x86_64", ()), "1"),  # Windows, macOS
}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_products_of_8_bit_weights_are_exact_without_vnni(
    processor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, expected = PROCESSORS[processor]
    seen: list[Any] = []
    create = session.ort.InferenceSession

    def recording(path: str, options: Any, **settings: Any) -> Any:
        seen.append(options)
        return create(path, options, **settings)

    monkeypatch.setattr(session, "read_cpu_features", lambda: features)
    monkeypatch.setattr(session.ort, "InferenceSession", recording)
    session.open_session(make(tmp_path).graph("fp32"), "cpu", 1, couples=False)
    (options,) = seen
    if expected is None:
        with pytest.raises(RuntimeError):  # ONNX Runtime's answer for an entry that was not set
            options.get_session_config_entry("session.x64quantprecision")
    else:
        assert options.get_session_config_entry("session.x64quantprecision") == expected
