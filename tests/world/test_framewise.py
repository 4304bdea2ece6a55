"""Decoding by single frames: against stock's whole clip, and only where stock looks at no earlier frame."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

from swiftdiff.world.decoding import StreamingDecoder, to_frames
from swiftdiff.world.framewise import framewise_decoder

PATCHED = {
    "is_residual": True,  # as in Wan 2.2
    "dim_mult": [1, 1],
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
}


def build_vae(*, looks_back: bool = False, **changes: object) -> AutoencoderKLWan:
    torch.manual_seed(0)
    options = {
        "base_dim": 8,
        "z_dim": 4,
        "dim_mult": [1, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [False],
    }
    vae = AutoencoderKLWan(**(options | changes)).eval().requires_grad_(False)
    for layer in vae.modules():
        if isinstance(layer, WanCausalConv3d) and not looks_back:
            layer.weight[:, :, :-1] = 0
    return vae


def latents_of(num_frames: int, batch: int = 1) -> torch.Tensor:
    return torch.randn((batch, 4, num_frames, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("changes", [{}, PATCHED], ids=["plain", "residual and patched"])
def test_frames_one_by_one_are_within_rounding_of_the_whole_clip_by_stock(changes: dict[str, object]) -> None:
    vae, latents = build_vae(**changes), latents_of(7, batch=2)
    expected = vae.decode(latents).sample
    decoder = StreamingDecoder(vae)
    streamed = torch.cat([decoder.decode(part) for part in latents.split([3, 1, 3], dim=2)], dim=2)
    assert framewise_decoder(vae) is not None
    assert decoder.num_bytes == 0
    assert streamed.shape == expected.shape
    assert float((streamed - expected).abs().max()) < 1e-5
    levels = to_frames(streamed[:1]).astype(int) - to_frames(expected[:1])
    assert abs(levels).max() <= 1, "a picture is another"
    assert expected.std() > 0.01, "the pictures are blank: the test could not fail"


def test_the_stock_model_stays_stock_and_the_decoder_is_made_once() -> None:
    vae, latents = build_vae(), latents_of(3)
    before = vae.decode(latents).sample
    decoder = framewise_decoder(vae)
    assert decoder is not None
    decoder.decode(latents)
    assert framewise_decoder(vae) is decoder
    assert torch.equal(vae.decode(latents).sample, before)
    weights = {weight.data_ptr() for weight in vae.parameters()}
    assert {weight.data_ptr() for weight in decoder.parameters()} <= weights, "weights take memory twice"


@pytest.mark.parametrize(
    "vae",
    [
        build_vae(looks_back=True),
        build_vae(dim_mult=[1, 2, 2], temperal_downsample=[False, True]),
    ],
    ids=["kernels look back", "time is shortened"],
)
def test_a_decoder_that_looks_back_is_left_to_stock(vae: AutoencoderKLWan) -> None:
    assert framewise_decoder(vae) is None
    decoder, latents = StreamingDecoder(vae), latents_of(4)
    streamed = torch.cat([decoder.decode(part) for part in latents.split(2, dim=2)], dim=2)
    assert torch.equal(streamed, vae.decode(latents).sample)
    assert decoder.num_bytes > 0


def test_one_weight_for_an_earlier_frame_is_enough_to_look_back() -> None:
    vae = build_vae()
    vae.decoder.conv_out.weight[0, 0, 0, 1, 1] = 1e-3
    assert framewise_decoder(vae) is None
