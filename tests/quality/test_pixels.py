"""Differences of pictures must be those that anyone else would compute."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torchmetrics.functional.image import peak_signal_noise_ratio

from swiftdiff.quality.pixels import compare_pixels


def picture(seed: int, side: int = 64) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(128, 60, (side, side, 3))
    return np.clip(ndimage.gaussian_filter(noise, (3, 3, 0)) * 4 - 384, 0, 255).astype(np.uint8)


def test_the_same_picture_is_no_difference() -> None:
    found = compare_pixels(picture(0), picture(0))
    assert (found.ssim, found.max_levels, found.mean_levels, found.psnr_db) == (1.0, 0, 0.0, math.inf)


def test_one_level_in_one_channel_of_one_pixel_is_seen() -> None:
    before = picture(0)
    after = before.copy()
    after[5, 7, 1] ^= 1
    found = compare_pixels(before, after)
    assert found.max_levels == 1
    assert found.mean_levels == pytest.approx(1 / before.size)
    assert 0.9999 < found.ssim < 1 + 1e-6


def test_differences_do_not_wrap_around() -> None:
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert compare_pixels(black, white).max_levels == 255
    assert compare_pixels(white, black).mean_levels == 255


def test_psnr_is_torchmetrics_own() -> None:
    before, after = picture(1), picture(2)
    tensors = [torch.from_numpy(image.astype(np.float32)) for image in (after, before)]
    assert compare_pixels(before, after).psnr_db == pytest.approx(
        float(peak_signal_noise_ratio(*tensors, data_range=255.0)), abs=1e-4
    )


def test_structural_similarity_agrees_with_its_formula() -> None:
    """Wang et al. (2004), equation 13, with a Gaussian window of sigma 1.5 cut at 11 pixels."""
    before, after = picture(3).astype(float), picture(4).astype(float)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, (1.5, 1.5, 0), truncate=3.4, mode="mirror"))

    mu_x, mu_y = mean(before), mean(after)
    var_x, var_y = mean(before**2) - mu_x**2, mean(after**2) - mu_y**2
    both = mean(before * after) - mu_x * mu_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = ((2 * mu_x * mu_y + c1) * (2 * both + c2)) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    found = compare_pixels(before.astype(np.uint8), after.astype(np.uint8)).ssim
    assert found == pytest.approx(ssim.mean(), abs=2e-3)


def test_pictures_need_not_be_square() -> None:
    assert compare_pixels(picture(5)[:32], picture(6)[:32]).ssim < 0.9
