"""A checkpoint becomes a folder that diffusers and swiftdiff load; a bad one becomes one clear error."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from wan_checkpoint import original_weights

from swiftdiff.errors import ModelError, StorageError
from swiftdiff.world.convert.checkpoint import open_checkpoint
from swiftdiff.world.convert.conversion import RECIPES, convert, plan_shards
from swiftdiff.world.convert.keys import map_keys
from swiftdiff.world.loading import load_world
from swiftdiff.world.sampling import make_schedule

HEAD_DIM = 24
Weights = dict[str, torch.Tensor]
Save = Callable[[Any], Path]


@pytest.fixture(scope="module")
def ema() -> Weights:
    return original_weights(seed=1)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save_content(content: Any) -> Path:
        path = tmp_path / "checkpoint.pt"
        torch.save(content, path)
        return path

    return save_content


def wrapped(weights: Weights, prefix: str = "model._fsdp_wrapped_module.") -> Weights:
    return {prefix + key: value for key, value in weights.items()}


def test_stock_diffusers_loads_the_folder_and_every_weight_is_the_checkpoints(
    save: Save, ema: Weights, tmp_path: Path
) -> None:
    raw = original_weights(seed=2)
    path = save({"generator": wrapped(raw, "model."), "generator_ema": wrapped(ema), "step": 3})
    done = convert(path, tmp_path / "world", head_dim=HEAD_DIM)
    assert (done.weights, done.shards, done.missing) == ("ema", 1, ("vae", "prompts.safetensors"))
    assert done.num_bytes == 4 * done.parameters
    model = WanTransformer3DModel.from_pretrained(tmp_path / "world" / "transformer")
    state = model.state_dict()
    names = map_keys(ema, "ema")
    assert state.keys() == names.keys()
    assert all(torch.equal(state[name], ema[key]) for name, key in names.items())
    assert not (tmp_path / "world.part").exists()


def test_the_last_step_can_be_asked_for(save: Save, ema: Weights, tmp_path: Path) -> None:
    raw = original_weights(seed=2)
    path = save({"generator": wrapped(raw, "model."), "generator_ema": wrapped(ema)})
    convert(path, tmp_path / "world", weights="raw", head_dim=HEAD_DIM, dtype="float16")
    model = WanTransformer3DModel.from_pretrained(tmp_path / "world" / "transformer", dtype=torch.float16)
    assert torch.equal(model.proj_out.bias, raw["head.head.bias"].half())


def test_shards_are_bounded_indexed_and_load_as_one(save: Save, ema: Weights, tmp_path: Path) -> None:
    done = convert(save({"generator_ema": ema}), tmp_path / "world", head_dim=HEAD_DIM, shard_bytes=60_000)
    folder = tmp_path / "world" / "transformer"
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == done.shards > 3
    assert all(file.stat().st_size < 70_000 for file in files)
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == done.num_bytes
    state = WanTransformer3DModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(state[name], ema[key]) for name, key in map_keys(ema, "ema").items())


def test_a_world_with_autoencoder_and_prompts_runs(
    save: Save, ema: Weights, tmp_path: Path, tiny_world_folder: Path
) -> None:
    prompts = tmp_path / "features.safetensors"
    save_file({"a red ball": torch.ones(3, 32), "": torch.zeros(3, 32)}, prompts)
    done = convert(
        save({"generator": wrapped(ema)}),
        tmp_path / "world",
        recipe="causvid",
        vae=tiny_world_folder / "vae",
        embeddings=prompts,
        head_dim=HEAD_DIM,
    )
    assert (done.weights, done.missing) == ("raw", ())
    world = load_world(tmp_path / "world")
    assert world.settings.sampler == RECIPES["causvid"]
    assert world.prompts.encode("a red ball").shape == (1, 3, 32)


def test_the_recipes_steps_are_the_published_ones() -> None:
    assert make_schedule(RECIPES["self-forcing"]).timesteps == pytest.approx((1000, 937.5, 833.333, 625))
    assert make_schedule(RECIPES["causvid"]).timesteps == pytest.approx((1000, 757, 522))
    assert all(recipe.renoise for recipe in RECIPES.values())


def test_safetensors_are_read_too(ema: Weights, tmp_path: Path) -> None:
    file = tmp_path / "generator.safetensors"
    raw = original_weights(seed=2)
    save_file({**wrapped(ema, "generator_ema.model."), **wrapped(raw, "generator.model.")}, file)
    opened = open_checkpoint(file)
    assert opened.weights == "ema"
    assert torch.equal(opened.read("model.head.head.bias"), ema["head.head.bias"])
    assert len(open_checkpoint(file, "raw").shapes) == len(ema)


def test_a_checkpoint_cut_anywhere_is_refused(save: Save, ema: Weights, tmp_path: Path) -> None:
    whole = save({"generator_ema": ema}).read_bytes()
    cut = tmp_path / "cut.pt"
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.pt"):
            convert(cut, tmp_path / "world", head_dim=HEAD_DIM)
        assert not (tmp_path / "world").exists()


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    torch.save({"generator_ema": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"more than weights.*it asks for \S+"):
        convert(tmp_path / "evil.pt", tmp_path / "world")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match=r"plain\.pt"):
        convert(tmp_path / "plain.pt", tmp_path / "world")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "holds a list"),
        ({"step": 3}, "holds no raw weights"),
        ({}, "it holds nothing"),
        ({"generator_ema": {"x": 3}}, "is of type int, but must be a tensor"),
        ({"generator": {"conv_in.weight": torch.zeros(2)}}, "no weight of the original Wan"),
        ({"generator": {}}, "holds no weights"),
        ({"generator": {1: torch.zeros(2)}}, "generator holds 1, but must hold weights by name"),
    ],
)
def test_foreign_content_is_refused(save: Save, tmp_path: Path, content: Any, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        convert(save(content), tmp_path / "world", head_dim=HEAD_DIM)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda value: value.to_sparse(), "is sparse_coo float32, but must be plain floating-point numbers"),
        (lambda value: value.to("meta"), "is meta, but"),
        (lambda value: value.to(torch.int8), "is strided int8, but"),
        (lambda value: value.fill_(float("nan")), "holds numbers that are not finite"),
        (lambda value: value.fill_(1e6), "holds numbers that are not finite as float16$"),
    ],
    ids=("sparse", "meta", "int8", "nan", "beyond-float16"),
)
def test_a_weight_that_no_layer_can_compute_with_is_refused(
    save: Save,
    ema: Weights,
    tmp_path: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    complaint: str,
) -> None:
    key = "blocks.1.ffn.0.weight"
    path = save({"generator": {**ema, key: change(ema[key].clone())}})
    with pytest.raises(ModelError, match=rf"checkpoint\.pt: blocks\.1\.ffn\.0\.weight {complaint}"):
        convert(path, tmp_path / "world", head_dim=HEAD_DIM, dtype="float16")
    assert not (tmp_path / "world.part").exists()


def test_a_checkpoint_without_a_layer_is_refused(save: Save, ema: Weights, tmp_path: Path) -> None:
    less = {key: value for key, value in ema.items() if not key.startswith("blocks.0.self_attn.q")}
    with pytest.raises(ModelError, match=r"blocks\.0\.attn1\.to_q\.bias and 1 more weights"):
        convert(save({"generator": less}), tmp_path / "world", head_dim=HEAD_DIM)
    with pytest.raises(ModelError, match="no ema weights"):
        convert(save({"generator": ema}), tmp_path / "world", weights="ema", head_dim=HEAD_DIM)


def test_a_folder_in_use_a_foreign_autoencoder_and_wrong_features_are_refused(
    save: Save, ema: Weights, tmp_path: Path, tiny_world_folder: Path
) -> None:
    path = save({"generator": ema})
    with pytest.raises(StorageError, match="is not empty"):
        convert(path, tmp_path, head_dim=HEAD_DIM)
    with pytest.raises(ModelError, match="holds a WanTransformer3DModel, but an AutoencoderKLWan"):
        convert(path, tmp_path / "world", vae=tiny_world_folder / "transformer", head_dim=HEAD_DIM)
    features = tmp_path / "features.safetensors"
    save_file({"a": torch.zeros(3, 7)}, features)
    with pytest.raises(ModelError, match=r"must have \[tokens, 32\]"):
        convert(path, tmp_path / "world", embeddings=features, head_dim=HEAD_DIM)
    save_file({"": torch.zeros(3, 32)}, features)
    with pytest.raises(ModelError, match=r"features\.safetensors has no prompt"):
        convert(path, tmp_path / "world", embeddings=features, head_dim=HEAD_DIM)
    with pytest.raises(ModelError, match="no checkpoint file"):
        convert(tmp_path / "none.pt", tmp_path / "world")


def test_a_disk_that_takes_no_more_leaves_nothing_behind(
    save: Save, ema: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        convert(save({"generator": ema}), tmp_path / "world", head_dim=HEAD_DIM)
    assert not (tmp_path / "world").exists()
    assert not (tmp_path / "world.part").exists()


def test_files_are_filled_in_order_and_a_large_weight_has_one_of_its_own() -> None:
    sizes = {"a": 4, "b": 5, "c": 2, "d": 30, "e": 1}
    assert plan_shards(sizes, 10) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert plan_shards(sizes, 100) == [list(sizes)]
