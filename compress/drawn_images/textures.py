"""Random textures: bare surfaces."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FALLOFF = (0.2, 2.2)  # exponent of the amplitude over the frequency: nearly white noise to clouds
STRETCH = 8.0  # how much longer than wide a grain is, at most
GRAIN = (0.02, 0.35)  # cycles a pixel of a texture of one grain size
BANDWIDTH = (0.1, 0.6)  # standard deviation of the logarithm of its frequencies
SINGLE_GRAIN, EDGED, FOLDED, GREY = 0.4, 0.25, 0.15, 0.5  # shares of the textures
CONTRAST, LEVEL = (5.0, 60.0), (30.0, 225.0)  # standard deviation and mean, of 255


def texture(size: int, rng: np.random.Generator) -> Tensor:
    """Filtered noise, uint8 RGB (3, size, size).

    It has a power spectrum of its own, either falling with the frequency as in photographs (Field 1987) or a band,
    stretched along some direction; some are sharpened to two levels or folded into lines. Grey or coloured, faint to
    strong: bare metal, grain, weave and paint more than any object.
    """
    amplitude = _spectrum(size, rng)
    field = _field(amplitude, rng)
    shape = rng.random()
    if shape < EDGED:
        field = np.tanh(field * rng.uniform(1, 6))
    elif shape < EDGED + FOLDED:
        field = np.abs(field)
    if rng.random() < GREY:
        channels, level = np.stack([field] * 3), rng.uniform(*LEVEL, (1, 1, 1))
    else:
        other = _field(amplitude, rng)
        channels = np.stack([field * rng.uniform(-1, 1) + other * rng.uniform(-0.5, 0.5) for _ in range(3)])
        level = rng.uniform(*LEVEL, (3, 1, 1))
    return torch.from_numpy((channels * rng.uniform(*CONTRAST) + level).clip(0, 255).astype(np.uint8))


def _spectrum(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Amplitudes (size, size // 2 + 1) of the frequencies of a real image, 0 for its mean."""
    v, u = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    angle, stretch = rng.uniform(0, np.pi), math.exp(rng.uniform(0, math.log(STRETCH)))
    along, across = np.cos(angle) * v + np.sin(angle) * u, np.cos(angle) * u - np.sin(angle) * v
    frequency = np.hypot(along * stretch, across)
    frequency[0, 0] = 1
    if rng.random() < SINGLE_GRAIN:
        centre = rng.uniform(*np.log(GRAIN))
        amplitude = np.exp(-(((np.log(frequency) - centre) / rng.uniform(*BANDWIDTH)) ** 2))
    else:
        amplitude = frequency ** -rng.uniform(*FALLOFF)
    amplitude[0, 0] = 0
    spectrum: NDArray[np.float64] = amplitude
    return spectrum


def _field(amplitude: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise of that spectrum, (size, size), mean 0 and standard deviation 1."""
    noise = rng.standard_normal((2, *amplitude.shape))
    field = np.fft.irfft2(amplitude * (noise[0] + 1j * noise[1]), s=(len(amplitude), len(amplitude)))
    scaled: NDArray[np.float64] = field / max(float(field.std()), 1e-12)
    return scaled
