"""The autoencoder of single frames: the quick way equals stock's, and training keeps it so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from swiftdiff.errors import ModelError
from swiftdiff.models.shapes.trainer import Setting, fit
from swiftdiff.world.bounce import autoencoder
from swiftdiff.world.bounce.architecture import build_autoencoder
from swiftdiff.world.bounce.framewise import decode_clips, encode_clips, framewise
from swiftdiff.world.bounce.physics import simulate
from swiftdiff.world.bounce.render import draw
from swiftdiff.world.bounce.scene import NONE, sample_scenes
from swiftdiff.world.decoding import StreamingDecoder, unstandardise


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> AutoencoderKLWan:
    """Trained for three steps, so that no weight is as it began."""
    torch.manual_seed(0)
    vae = build_autoencoder()
    task = autoencoder.AutoencoderTask(vae, torch.device("cpu"))
    plan = autoencoder.Plan("autoencoder", steps=3, batch_size=4, learning_rate=1e-3, weight_decay=0.0)
    fit(task, plan, Setting(tmp_path_factory.mktemp("vae"), torch.device("cpu")))
    autoencoder.standardise(vae, torch.device("cpu"))
    return vae.eval()


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return draw(simulate(sample_scenes(np.random.default_rng(0), 2), np.full((2, 3), NONE)))


@torch.no_grad()
def test_encoding_frame_by_frame_equals_stock(vae: AutoencoderKLWan, clip: torch.Tensor) -> None:
    stock = vae.encode(clip).latent_dist.mode()
    ours = unstandardise(encode_clips(vae, clip), vae)
    assert torch.allclose(ours, stock, atol=1e-5)


@torch.no_grad()
def test_decoding_frame_by_frame_equals_what_the_engine_streams(
    vae: AutoencoderKLWan, clip: torch.Tensor
) -> None:
    latents = encode_clips(vae, clip)
    streamed = StreamingDecoder(vae).decode(unstandardise(latents, vae))
    assert torch.allclose(decode_clips(vae, latents), streamed, atol=1e-5)


@torch.no_grad()
def test_a_frames_latents_do_not_depend_on_the_frames_before(
    vae: AutoencoderKLWan, clip: torch.Tensor
) -> None:
    whole = vae.encode(clip).latent_dist.mode()
    alone = vae.encode(clip[:, :, 5:6]).latent_dist.mode()
    assert torch.allclose(whole[:, :, 5:6], alone, atol=1e-5)


def test_standardised_latents_have_zero_mean_and_unit_variance(vae: AutoencoderKLWan) -> None:
    pictures = draw(autoencoder.still_pictures(np.random.default_rng(1), 400))
    latents = encode_clips(vae, pictures)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 0.1
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 0.1


def test_an_autoencoder_that_looks_back_is_refused(vae: AutoencoderKLWan) -> None:
    other = AutoencoderKLWan(base_dim=4, z_dim=2, dim_mult=[1], num_res_blocks=1, temperal_downsample=[])
    with pytest.raises(ModelError, match="earlier frames"), framewise(other):
        pass
    with framewise(vae):
        pass
    assert "forward" not in vars(vae.encoder.conv_in)  # and afterwards all is stock again
