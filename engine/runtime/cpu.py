"""The processor: its model, and the instruction sets that decide how fast int8 runs on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# As the kernel names them, best first: x86, then ARM.
INT8_FEATURES = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp")
_WIDE_SUMS = {"amx_int8", "avx512_vnni", "avx_vnni"}
_CPUINFO = Path("/proc/cpuinfo")
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class CpuFeatures:
    """One processor.

    Attributes:
        model: name of the model; `unknown` where the system does not tell.
        architecture: `x86_64`, `aarch64`, …
        features: those of `INT8_FEATURES` that it has, in that order; empty where the system does not tell.
    """

    model: str
    architecture: str
    features: tuple[str, ...]

    @property
    def full_int8(self) -> bool | None:
        """True if integer kernels take full 8-bit weights; None where that is unknown, and so unsafe.

        x86 kernels without AMX or VNNI add two products in 16 bits, which 8-bit weights overflow.
        """
        if self.architecture.lower() not in ("x86_64", "amd64", "i686", "x86"):
            return True
        return bool(_WIDE_SUMS.intersection(self.features)) if self.features else None


def read_cpu_features() -> CpuFeatures:
    """Return the processor of this machine, as far as the system describes it; never an error."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # only Linux has it
        text = ""
    return parse_cpuinfo(text, platform.machine() or _UNKNOWN, platform.processor())


def count_cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_cpuinfo(text: str, architecture: str, fallback: str = "") -> CpuFeatures:
    """Return the processor that the text of `/proc/cpuinfo` describes.

    Args:
        text: the whole file; empty where there is none.
        architecture: what the result says of it.
        fallback: name of the model where the text has none.
    """
    cpus = [_parse_fields(block.splitlines()) for block in text.split("\n\n")]
    name = next((cpu["model name"] for cpu in cpus if cpu.get("model name")), fallback or _UNKNOWN)
    return CpuFeatures(name, architecture, _select_common_features(cpus))


def _parse_fields(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _select_common_features(cpus: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the flags that all cores share: a thread may run on any of them."""
    flags = [
        set(value.split())
        for cpu in cpus
        for key, value in cpu.items()
        if key in ("flags", "Features")  # x86, ARM
    ]
    return tuple(name for name in INT8_FEATURES if flags and all(name in core for core in flags))
