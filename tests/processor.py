"""What the processor that runs the tests can do."""

from __future__ import annotations

import pytest
import torch


def _adds_int8_exactly() -> bool:
    features = torch.cpu.get_capabilities()
    vnni = any(features.get(name) for name in ("avx512_vnni", "avx_vnni"))
    return vnni or not str(features.get("architecture", "")).startswith("x86")


needs_exact_int8 = pytest.mark.skipif(
    not _adds_int8_exactly(),
    reason="no VNNI: ONNX Runtime adds products of 8 bits in 16 here, which saturates (docs/quantization.md, Limits)",
)
