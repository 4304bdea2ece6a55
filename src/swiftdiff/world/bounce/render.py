"""Draws bounce worlds: anti-aliased discs on a plain ground."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .physics import Course
from .scene import BACKGROUND, COLOURS, RADIUS, SIDE, Floats


def draw(course: Course, device: torch.device | str = "cpu", strength: Floats | None = None) -> Tensor:
    """Return pictures from -1 to 1, float32 [worlds, 3, frames, 32, 32].

    Args:
        course: Of any number of balls.
        device: Of the pictures.
        strength: Opacity of each ball, [worlds, frames, balls]; None is 1.
    """
    palette = torch.tensor([BACKGROUND, *COLOURS.values()], dtype=torch.float32, device=device) / 127.5 - 1
    cover = coverage(course, device)
    if strength is not None:
        cover = cover * torch.from_numpy(strength.astype(np.float32)).to(device)[..., None, None]
    colour = palette[torch.from_numpy(course.colour + 1).to(device)]  # [worlds, frames, 2, RGB]
    pictures = palette[0].view(1, 1, 3, 1, 1)
    for ball in range(cover.shape[2]):
        opacity = cover[:, :, ball, None]
        pictures = pictures + opacity * (colour[:, :, ball, :, None, None] - pictures)
    return pictures.transpose(1, 2).contiguous()


def coverage(course: Course, device: torch.device | str = "cpu") -> Tensor:
    """Return how much of each pixel each ball covers, were it alone: [worlds, frames, balls, 32, 32]."""
    centres = torch.from_numpy(course.position.astype(np.float32)).to(device)
    pixels = torch.arange(SIDE, device=device) + 0.5
    away_x = (pixels - centres[..., :1]).square()
    away_y = (pixels - centres[..., 1:]).square()
    distance = (away_x[..., None, :] + away_y[..., :, None]).sqrt()
    present = torch.from_numpy(course.present.astype(np.float32)).to(device)
    return (RADIUS + 0.5 - distance).clamp(0, 1) * present[:, None, :, None, None]
