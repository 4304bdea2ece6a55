"""Worlds from folders and names, and what is said of folders that are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_world import SETTINGS

from swiftdiff.errors import ConfigError, ModelError, RequestError
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.kv_cache import BlockKVCache, CacheShape
from swiftdiff.world.loading import EmbeddedPrompts, WorldModel, load_world

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_world_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_world_folder, tmp_path / "world"))


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def predict(world: WorldModel) -> torch.Tensor:
    causal = world.causal
    cache = BlockKVCache(CacheShape.of(world), CacheConfig(), causal.device, causal.dtype)
    latents = torch.ones(world.settings.block_shape)
    return causal.predict(latents, 500.0, world.prompts.encode("push left"), cache)


def test_a_folder_gives_the_world_that_was_saved(
    tiny_world_folder: Path, tiny_world: Callable[[int], WorldModel]
) -> None:
    loaded, saved = load_world(tiny_world_folder), tiny_world(0)
    assert loaded.settings == saved.settings == SETTINGS
    weights = saved.causal.transformer.state_dict()
    for name, weight in loaded.causal.transformer.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert torch.allclose(predict(loaded), predict(saved), atol=1e-5)
    assert loaded.vae.config.latents_std == [1.5, 0.7, 2.0, 1.0]
    for module in (loaded.causal.transformer, loaded.vae):
        assert not module.training
        assert not any(weight.requires_grad for weight in module.parameters())


def test_a_folder_loads_in_bfloat16(tiny_world_folder: Path) -> None:
    world = load_world(tiny_world_folder, dtype="bfloat16")
    assert world.causal.dtype == torch.bfloat16
    assert torch.allclose(predict(world).float(), predict(load_world(tiny_world_folder)), atol=0.1)


def test_the_preset_of_random_weights_runs_by_its_name() -> None:
    world = load_world("bounce-random")
    assert world.name == "bounce-random"
    assert predict(world).shape == world.settings.block_shape


def test_prompts_may_come_from_a_file_of_embeddings(folder: Path) -> None:
    change_json(folder / "world.json", prompt_encoder="embeddings", resting_prompt=None)
    with pytest.raises(ModelError, match=r"no prompts\.safetensors"):
        load_world(folder)
    save_file({"a cat": torch.ones(7, 32)}, folder / "prompts.safetensors")
    prompts = load_world(folder).prompts
    assert torch.equal(prompts.encode("a cat"), torch.ones(1, 7, 32))
    with pytest.raises(RequestError, match="unknown prompt 'a ct'; did you mean 'a cat'"):
        prompts.encode("a ct")
    with pytest.raises(RequestError, match="guidance needs"):
        prompts.null()
    save_file({"": torch.zeros(7, 32), "a cat": torch.ones(7, 32)}, folder / "prompts.safetensors")
    assert load_world(folder).prompts.null().shape == (1, 7, 32)
    save_file({"": torch.zeros(7, 32)}, folder / "prompts.safetensors")
    with pytest.raises(ModelError, match="has no prompt: one tensor"):
        load_world(folder)
    save_file({"a cat": torch.ones(7, 31)}, folder / "prompts.safetensors")
    with pytest.raises(ModelError, match=r"'a cat' has shape \[7, 31\], but must have \[tokens, 32\]"):
        load_world(folder)
    for features in (torch.full((7, 32), float("nan")), torch.ones(7, 32, dtype=torch.int64)):
        save_file({"a cat": features}, folder / "prompts.safetensors")
        with pytest.raises(ModelError, match="'a cat' does not hold finite floating-point numbers"):
            load_world(folder)


def test_of_many_embedded_prompts_the_nearest_is_named() -> None:
    texts = [f"a cat that walks through street {number} at night" for number in range(50)]
    prompts = EmbeddedPrompts({text: torch.ones(1, 4) for text in ["", *texts]})
    assert prompts.texts == tuple(sorted(texts))
    with pytest.raises(
        RequestError, match=r"has features for 50, of which the nearest is .*street 7 at night'"
    ):
        prompts.encode("a cat that walks through street 7")
    with pytest.raises(RequestError, match="unknown prompt ''"):
        prompts.encode("")


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ModelError, match="unknown world 'bonce'; did you mean 'bounce'"):
        load_world("bonce")


def test_a_device_or_dtype_that_does_not_exist_is_an_error(tiny_world_folder: Path) -> None:
    with pytest.raises(ConfigError, match="device is 'warp:9'"):
        load_world(tiny_world_folder, device="warp:9")
    with pytest.raises(ConfigError, match="dtype is 'int4'"):
        load_world(tiny_world_folder, dtype="int4")


def drop_settings(folder: Path) -> None:
    (folder / "world.json").unlink()


def truncate_settings(folder: Path) -> None:
    (folder / "world.json").write_text('{"format": 1, "fr')


def misspell_a_setting(folder: Path) -> None:
    change_json(folder / "world.json", frame_per_block=3)


def set_negative_size(folder: Path) -> None:
    change_json(folder / "world.json", latent_width=-8)


def set_other_channels(folder: Path) -> None:
    change_json(folder / "world.json", latent_channels=16)


def set_odd_height(folder: Path) -> None:
    change_json(folder / "world.json", latent_height=7)


def drop_transformer(folder: Path) -> None:
    shutil.rmtree(folder / "transformer")


def swap_parts(folder: Path) -> None:
    shutil.rmtree(folder / "transformer")
    shutil.copytree(folder / "vae", folder / "transformer")


def truncate_weights(folder: Path) -> None:
    file = folder / "transformer" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def pickle_weights(folder: Path) -> None:
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.bin")


def ask_for_more_layers(folder: Path) -> None:
    change_json(folder / "transformer" / "config.json", num_layers=3)


def ask_for_other_widths(folder: Path) -> None:
    change_json(folder / "transformer" / "config.json", ffn_dim=64)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (drop_settings, r"not a world's folder: it has no world\.json"),
        (truncate_settings, r"world\.json is not valid JSON"),
        (misspell_a_setting, "unknown field 'frame_per_block'; did you mean 'frames_per_block'"),
        (set_negative_size, r"world\.json: latent_width is -8, but must be at least 1"),
        (set_other_channels, "latent_channels is 16, but must be the transformer's, 4"),
        (set_odd_height, "latent_height is 7, but must be a multiple of the transformer's patch, 2"),
        (drop_transformer, r"cannot read .*transformer.config\.json"),
        (swap_parts, "holds a AutoencoderKLWan, not a WanTransformer3DModel"),
        (truncate_weights, r"transformer.diffusion_pytorch_model\.safetensors"),
        (pickle_weights, "is a pickle"),
        (ask_for_more_layers, r"has no weight blocks\.2\."),
        (ask_for_other_widths, "transformer cannot be loaded"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_damaged_folder_is_one_clear_error(
    folder: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=complaint):
        load_world(folder)
