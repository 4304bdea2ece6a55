"""Measures how far a picture is from the one it should be: SSIM, mean square, largest and mean difference."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error

from .quality_report import MAX_LEVEL, PixelDifference

Image8 = NDArray[np.uint8]


def compare_pixels(before: Image8, after: Image8) -> PixelDifference:
    """Compare two pictures of one size, uint8 [H, W, 3] with sides of at least 8.

    The structural similarity is torchmetrics' with its defaults: a Gaussian window of sigma 1.5, 11 wide.
    """
    if np.array_equal(before, after):
        return PixelDifference(1.0, 0.0, 0, 0.0)
    old, new = _tensor(before), _tensor(after)
    ssim = structural_similarity_index_measure(new, old, data_range=float(MAX_LEVEL))
    assert isinstance(ssim, torch.Tensor)  # it is a tuple only if the whole map is asked for
    return PixelDifference(
        ssim=float(ssim),
        mean_square=float(mean_squared_error(new, old)),
        max_levels=int((new - old).abs().max()),
        mean_levels=float(mean_absolute_error(new, old)),
    )


def _tensor(image: Image8) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].contiguous()
