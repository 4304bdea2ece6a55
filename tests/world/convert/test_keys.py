"""Every weight of the original Wan transformer finds its place in diffusers', at the published size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from wan_checkpoint import original_weights

from swiftdiff.errors import ModelError
from swiftdiff.world.convert.conversion import build_transformer
from swiftdiff.world.convert.keys import check_shapes, infer_config, map_keys, strip_wrappers

PUBLISHED: dict[str, Any] = {
    "num_layers": 30, "width": 1536, "ffn_dim": 8960, "text_dim": 4096, "freq_dim": 256, "channels": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def original() -> dict[str, torch.Tensor]:
    """Wan 2.1 T2V 1.3B in the original's names, without memory."""
    return original_weights(**PUBLISHED, device="meta")


def test_the_published_model_is_mapped_key_for_key(original: dict[str, torch.Tensor]) -> None:
    names = map_keys(original, "checkpoint")
    shapes = {name: tuple(original[key].shape) for name, key in names.items()}
    config = infer_config(shapes, "checkpoint")
    assert (config["num_layers"], config["num_attention_heads"]) == (30, 12)
    assert (config["ffn_dim"], config["text_dim"], config["freq_dim"]) == (8960, 4096, 256)
    assert (config["in_channels"], config["out_channels"], config["patch_size"]) == (16, 16, (1, 2, 2))
    needed = {name: tuple(value.shape) for name, value in build_transformer(config).state_dict().items()}
    assert shapes == needed
    check_shapes(shapes, needed, "checkpoint")
    assert sum(value.numel() for value in original.values()) == 1_418_996_800


def test_the_mapping_is_that_of_diffusers_own_converter(original: dict[str, torch.Tensor]) -> None:
    marked = {key: torch.empty(value.shape, device="meta") for key, value in original.items()}
    theirs = convert_wan_transformer_to_diffusers(dict(marked))
    ours = {name: marked[key] for name, key in map_keys(marked, "checkpoint").items()}
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "model._fsdp_wrapped_module.",
        "_fsdp_wrapped_module.",
        "module.model.",
        "model.diffusion_model.",
    ],
)
def test_the_wrappers_of_training_are_taken_off(prefix: str) -> None:
    assert strip_wrappers(f"{prefix}head.head.weight") == "head.head.weight"
    inner = "blocks.3._fsdp_wrapped_module._checkpoint_wrapped_module.ffn.0.bias"
    assert strip_wrappers(prefix + inner) == "blocks.3.ffn.0.bias"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("img_emb.proj.0.weight", "image-to-video"),
        ("blocks.0.cross_attn.k_img.weight", "image-to-video"),
        ("vace_blocks.0.after_proj.bias", "VACE"),
        ("decoder.middle.0.residual.0.gamma", "autoencoder"),
        ("condition_embedder.time_proj.weight", "diffusers' layout already"),
        ("conditioner.embedders.0.x", "Stable Diffusion XL"),
        ("blocks.0.self_attn.q.lora_A", "no weight of the original Wan"),
        ("optimizer.step", "no weight of the original Wan"),
    ],
)
def test_a_foreign_key_is_named_and_told_for_what_it_is(key: str, kind: str) -> None:
    with pytest.raises(ModelError, match=kind):
        map_keys(["patch_embedding.weight", key], "other.pt")


def test_a_weight_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ModelError, match="are the same weight"):
        map_keys(["model.head.head.bias", "head.head.bias"], "twice.pt")


def test_missing_surplus_and_misshapen_weights_are_named() -> None:
    needed = {"a": (2, 3), "b": (4,)}
    with pytest.raises(ModelError, match=r"x\.pt is not whole: b is missing"):
        check_shapes({"a": (2, 3)}, needed, "x.pt")
    with pytest.raises(ModelError, match="leave no place for: c"):
        check_shapes({**needed, "c": (1,)}, needed, "x.pt")
    with pytest.raises(ModelError, match=r"b has shape \(5,\), but must have \(4,\)"):
        check_shapes({"a": (2, 3), "b": (5,)}, needed, "x.pt")


def test_sizes_that_no_such_model_has_are_refused() -> None:
    with pytest.raises(ModelError, match=r"has no patch_embedding\.weight"):
        infer_config({"blocks.0.norm2.weight": (4,)}, "x.pt")
    with pytest.raises(ModelError, match="head_dim is 1, but must be even"):
        infer_config({"patch_embedding.weight": (6, 4, 1, 2, 2)}, "x.pt", head_dim=1)
    with pytest.raises(ModelError, match="no multiple of 128"):
        infer_config({"patch_embedding.weight": (100, 16, 1, 2, 2)}, "x.pt")
    with pytest.raises(ModelError, match="must have 5 dimensions"):
        infer_config({"patch_embedding.weight": (128, 16)}, "x.pt")
