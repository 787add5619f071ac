"""The description of the processor, from texts as the kernel writes them."""

from __future__ import annotations

import pytest
from fozo.engine.runtime import cpu
from fozo.engine.runtime.cpu import INT8_FEATURES, CpuFeatures, parse_cpuinfo, read_cpu_features

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse4_2 avx2 avx512f {first}

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse4_2 avx2 avx512f {second}

"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd atomics asimddp sve i8mm bf16
CPU implementer\t: 0x41
"""


def test_x86() -> None:
    found = parse_cpuinfo(X86.format(first="amx_int8 avx512_vnni", second="avx512_vnni amx_int8"), "x86_64")
    features = ("amx_int8", "avx512_vnni", "avx512f", "avx2")
    assert found == CpuFeatures("Intel(R) Xeon(R) Platinum 8488C", "x86_64", features)


def test_only_what_every_core_has() -> None:
    found = parse_cpuinfo(X86.format(first="avx_vnni", second="avx512_vnni"), "x86_64")
    assert found.features == ("avx512f", "avx2")


def test_names_are_not_found_inside_others() -> None:
    assert parse_cpuinfo("flags\t: avx2x xavx2 avx512_vnnix", "x86_64").features == ()


def test_arm_has_no_model_name() -> None:
    assert parse_cpuinfo(ARM, "aarch64") == CpuFeatures("unknown", "aarch64", ("i8mm", "asimddp"))
    assert parse_cpuinfo(ARM, "aarch64", "Neoverse").model == "Neoverse"


@pytest.mark.parametrize("text", ["", "\n\n", "no colon", ":", "flags\t:", "model name\t:\n"])
def test_text_that_tells_nothing(text: str) -> None:
    assert parse_cpuinfo(text, "riscv64") == CpuFeatures("unknown", "riscv64", ())


def test_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    found = read_cpu_features()
    assert found.model and found.architecture
    assert set(found.features) <= set(INT8_FEATURES)
    monkeypatch.setattr(cpu, "_CPUINFO", cpu._CPUINFO.with_name("missing"))
    assert read_cpu_features().features == ()
