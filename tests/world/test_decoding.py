from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.video_processor import VideoProcessor

from swiftdiff.world.decoding import StreamingDecoder, to_frames, unstandardise

CHANNELS = 4


def build_vae(**changes: object) -> AutoencoderKLWan:
    torch.manual_seed(0)
    options = {
        "base_dim": 8,
        "z_dim": CHANNELS,
        "dim_mult": [1, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [False],
        "latents_mean": [0.1, -0.2, 0.3, 0.0],
        "latents_std": [1.5, 0.5, 2.0, 1.0],
    }
    return AutoencoderKLWan(**(options | changes)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    return build_vae()


def latents_of(num_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((1, CHANNELS, num_frames, 4, 4), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dim_mult": [1, 2, 2], "temperal_downsample": [False, True]},  # time is shortened, as in Wan 2.1
        {
            "is_residual": True,  # as in Wan 2.2
            "dim_mult": [1, 1],
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "temperal_downsample": [True],
        },
    ],
    ids=["frame by frame", "time shortened", "residual and patched"],
)
def test_decoding_block_by_block_is_bit_exact_with_the_whole_clip_by_stock(
    changes: dict[str, object],
) -> None:
    vae = build_vae(**changes)
    latents = latents_of(7)
    decoder = StreamingDecoder(vae)
    streamed = torch.cat([decoder.decode(part) for part in latents.split([3, 1, 3], dim=2)], dim=2)
    assert torch.equal(streamed, vae.decode(latents).sample)


def test_clips_that_take_turns_do_not_disturb_each_other(vae: AutoencoderKLWan) -> None:
    clips = [latents_of(6, seed) for seed in (1, 2)]
    decoders = [StreamingDecoder(vae) for _ in clips]
    streamed: list[list[torch.Tensor]] = [[], []]
    for part in (slice(0, 3), slice(3, 6)):
        for clip, decoder, frames in zip(clips, decoders, streamed, strict=True):
            frames.append(decoder.decode(clip[:, :, part]))
    for clip, frames in zip(clips, streamed, strict=True):
        assert torch.equal(torch.cat(frames, dim=2), vae.decode(clip).sample)


def test_what_is_kept_between_blocks_does_not_grow(vae: AutoencoderKLWan) -> None:
    decoder = StreamingDecoder(vae)
    decoder.decode(latents_of(3))
    after_one = decoder.num_bytes
    for _ in range(3):
        decoder.decode(latents_of(3))
    assert decoder.num_bytes == after_one > 0


def test_a_block_that_cannot_be_decoded_leaves_the_clip_as_it_was(vae: AutoencoderKLWan) -> None:
    latents = latents_of(6)
    decoder = StreamingDecoder(vae)
    first = decoder.decode(latents[:, :, :3])
    handle = vae.decoder.norm_out.register_forward_hook(_fail)
    try:
        with pytest.raises(MemoryError):
            decoder.decode(latents[:, :, 3:])
    finally:
        handle.remove()
    second = decoder.decode(latents[:, :, 3:])
    assert torch.equal(torch.cat([first, second], dim=2), vae.decode(latents).sample)


def _fail(*_: object) -> None:
    raise MemoryError


def test_latents_are_brought_back_as_the_stock_pipeline_does(vae: AutoencoderKLWan) -> None:
    latents = latents_of(2)
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    assert torch.equal(unstandardise(latents, vae), latents / std + mean)


def test_frames_are_the_stock_processors_pictures() -> None:
    pixels = torch.rand((1, 3, 4, 5, 6), generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    stock = VideoProcessor(vae_scale_factor=1).postprocess_video(pixels, output_type="pil")[0]
    assert np.array_equal(to_frames(pixels), np.stack([np.asarray(picture) for picture in stock]))
