"""Checks that pictures of latents are the stock pipeline's bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from families import build_base
from PIL import Image

from swiftdiff.errors import RequestError
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.pipeline.decoding import decode, prepare_vae


def draw(pipe: Any) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Return stock's latents of two pictures, and what it makes of them."""
    arguments: dict[str, Any] = {"prompt": "a red cat", "num_inference_steps": 2, "num_images_per_prompt": 2}
    results = []
    pipe.set_progress_bar_config(disable=True)
    for kind in ("latent", "np"):
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        with quiet_libraries(), torch.inference_mode():
            results.append(pipe(**arguments, generator=generators, output_type=kind).images)
    latents, pixels = results
    return latents, (pixels * 255).round().astype("uint8")


def arrays(pictures: list[Image.Image]) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.mark.parametrize("statistics", [False, True])
def test_pictures_are_stocks_bit_for_bit(statistics: bool) -> None:
    """Some VAEs tell mean and deviation of their latents' channels in place of a factor alone."""
    pipe = build_base()
    plain = draw(pipe)[1]
    if statistics:
        pipe.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.8, 1.0, 1.2])
    latents, expected = draw(pipe)
    assert np.array_equal(expected, plain) != statistics
    prepare_vae(pipe)
    pictures = decode(pipe, latents)
    assert [picture.size for picture in pictures] == [(64, 64)] * 2
    assert np.array_equal(arrays(pictures), expected)


def test_latents_of_another_type_are_decoded_in_the_vaes() -> None:
    pipe = build_base()
    latents, _ = draw(pipe)
    rounded = latents.to(torch.bfloat16)
    assert np.array_equal(arrays(decode(pipe, rounded)), arrays(decode(pipe, rounded.float())))


def test_a_watermark_is_applied_if_the_pipeline_has_one() -> None:
    class Blackening:
        def apply_watermark(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.full_like(pixels, -1.0)

    pipe = build_base()
    latents, _ = draw(pipe)
    pipe.watermark = Blackening()
    assert not arrays(decode(pipe, latents)).any()


@pytest.mark.parametrize(
    ("dtype", "force", "expected"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.float32, True, torch.float32),
    ],
)
def test_a_half_precision_vae_that_overflows_gets_float32_once_and_for_all(
    dtype: torch.dtype, force: bool, expected: torch.dtype
) -> None:
    pipe = build_base()
    pipe.vae.register_to_config(force_upcast=force)
    pipe.vae.to(dtype)
    prepare_vae(pipe)
    assert pipe.vae.dtype == expected


def test_a_vae_may_be_given_another_type_and_tiles() -> None:
    pipe = build_base()
    latents, _ = draw(pipe)
    whole = arrays(decode(pipe, latents)).astype(int)
    prepare_vae(pipe, torch.bfloat16, tile_side=32)
    assert pipe.vae.dtype == torch.bfloat16
    tiled = arrays(decode(pipe, latents)).astype(int)
    assert tiled.shape == whole.shape
    assert 0 < np.abs(tiled - whole).mean() < 32  # other statistics in each tile: near, not the same


def test_a_vae_that_overflows_in_float16_is_no_black_picture() -> None:
    pipe = build_base()
    latents, _ = draw(pipe)
    prepare_vae(pipe, torch.float16)
    decode(pipe, latents)
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.fill_(65504)
        pipe.vae.decoder.conv_out.weight.fill_(1000)
    with pytest.raises(RequestError, match=r"overflowed in float16, .* set vae_dtype to auto or float32"):
        decode(pipe, latents)
