"""Where computing in bfloat16 is worth it."""

from __future__ import annotations

import torch


def bfloat16_pays(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16, which halve the time of a pass; emulated ones do not count."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(bool(features.get(name)) for name in ("avx512_bf16", "amx_bf16"))
