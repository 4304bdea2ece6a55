"""Compares patched weights with those that PEFT merges and that stock diffusers fuses."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loras import is_identical, random_layer, random_layers, snapshot, write_lora
from torch import nn

from swiftdiff.adapters.delta_plan import build_plan
from swiftdiff.adapters.lora_reading import read_lora
from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.adapters.patcher import WeightPatcher
from swiftdiff.models.lora_files import LoraLayer

TOLERANCE = 1e-6  # relative to the largest weight; the patcher's docstring promises it
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")

sides = st.integers(1, 9)
linears = st.tuples(sides, sides)
convolutions = st.tuples(sides, sides, st.sampled_from([1, 3]))
adapters = st.tuples(
    st.integers(1, 5),  # rank
    st.sampled_from([0.5, 1.0, 4.0, 16.0]),  # alpha
    st.sampled_from([-1.0, 0.0, 0.3, 1.0, 2.0]),  # scale
    st.booleans(),  # DoRA
)


@settings(max_examples=25)
@given(
    st.lists(st.one_of(linears, convolutions), min_size=1, max_size=4),
    st.lists(adapters, min_size=1, max_size=3),
    st.integers(0, 99),
)
def test_patched_weights_are_those_that_peft_merges(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[int, ...]],
    loras: list[tuple[int, float, float, bool]],
    seed: int,
) -> None:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    folder = tmp_path_factory.mktemp("peft")
    torch.manual_seed(seed)
    modules = [nn.Linear(s[0], s[1]) if len(s) == 2 else nn.Conv2d(s[0], s[1], s[2]) for s in shapes]
    ours = nn.ModuleDict({f"layer{index}": module for index, module in enumerate(modules)})
    theirs = copy.deepcopy(ours)
    uses = []
    for number, (rank, alpha, scale, dora) in enumerate(loras):
        name = f"lora{number}"
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            target_modules=list(ours),
            use_dora=dora,
            init_lora_weights=False,
        )
        inject_adapter_in_model(config, theirs, adapter_name=name)
        layers, magnitudes = {}, {}
        for key in ours:
            layer = theirs[key]
            assert isinstance(layer, BaseTunerLayer)
            layer.set_scale(name, scale)
            layers[key] = LoraLayer(layer.lora_A[name].weight.data, layer.lora_B[name].weight.data, alpha)
            if dora:
                magnitude = layer.lora_magnitude_vector[name].weight.data
                magnitude.mul_(torch.rand_like(magnitude) + 0.5)
                magnitudes[key] = magnitude
        path = write_lora(folder / f"{name}.safetensors", layers, magnitudes=magnitudes)
        uses.append((build_plan(read_lora(path, name), ModelLayers.of({"unet": ours})), scale))
    for layer in theirs.values():
        layer.merge(adapter_names=[f"lora{number}" for number in range(len(loras))])
    WeightPatcher({"unet": ours}).apply_set(uses)
    for key, module in ours.items():
        merged = theirs[key].get_base_layer().weight.data
        assert (module.weight - merged).abs().max() <= 10 * TOLERANCE * max(1.0, float(merged.abs().max()))


def _compare(pipe, files: list[tuple[Path, float]]) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fuse by stock's calls on a copy, patch the pipeline, compare, restore, compare bit for bit."""
    from swiftdiff.models.quiet import quiet_libraries

    models = {name: getattr(pipe, name) for name in COMPONENTS}
    pristine = {name: snapshot(model) for name, model in models.items()}
    names = [f"lora{number}" for number in range(len(files))]
    with quiet_libraries():
        for name, (path, _) in zip(names, files, strict=True):
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
        pipe.set_adapters(names, [scale for _, scale in files])
        pipe.fuse_lora(adapter_names=names)
        pipe.unload_lora_weights()
    fused = {name: snapshot(model) for name, model in models.items()}
    for name, model in models.items():
        model.load_state_dict(pristine[name])
    layers = ModelLayers.of(models)
    patcher = WeightPatcher(models)
    report = patcher.apply_set([(build_plan(read_lora(path, path.stem), layers), s) for path, s in files])
    changed = 0
    for name, model in models.items():
        for key, weight in model.state_dict().items():
            changed += not torch.equal(fused[name][key], pristine[name][key])
            difference = (weight - fused[name][key]).abs().max()
            assert difference <= TOLERANCE * fused[name][key].abs().max(), (name, key)
    assert report.patched_weights == changed > 0
    patcher.restore()
    assert all(is_identical(models[name], pristine[name]) for name in COMPONENTS)


@pytest.fixture(scope="module")
def tiny_base():  # type: ignore[no-untyped-def]  # noqa: ANN201
    from families import build_base

    return build_base()


def test_diffusers_and_kohya_files_together_are_what_stock_fuses(tmp_path: Path, tiny_base) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    from families import kohya_lora, random_lora
    from safetensors.torch import save_file

    one = random_lora(tiny_base, rank=4, seed=1, text_encoders=True, conv=True)
    two = kohya_lora(tiny_base, rank=2, alpha=1.0, seed=2)
    for name, tensors in (("one", one), ("two", two)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    _compare(tiny_base, [(tmp_path / "one.safetensors", 0.8), (tmp_path / "two.safetensors", -0.5)])


def test_a_dora_file_is_what_stock_fuses(tmp_path: Path, tiny_base) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    unet = tiny_base.unet
    names = [name for name, _ in unet.named_modules() if name.endswith(("attn1.to_q", "attn2.to_v"))]
    layers = random_layers(unet, names, rank=3)
    magnitudes = {name: unet.get_submodule(name).weight.data.norm(dim=1) * 1.5 for name in names}
    path = write_lora(tmp_path / "dora.safetensors", layers, magnitudes=magnitudes)
    _compare(tiny_base, [(path, 0.7)])


@pytest.fixture(scope="module")
def thin():  # type: ignore[no-untyped-def]  # noqa: ANN201
    from swiftdiff.models.presets import build_preset

    return build_preset("sdxl-thin")


@pytest.mark.parametrize("fmt", ["diffusers", "kohya"])
def test_every_kind_of_layer_of_sdxl_is_what_stock_fuses(tmp_path: Path, fmt: str, thin) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """SDXL's names and topology; text encoders and convolutions too, one rank and one alpha a component."""
    from swiftdiff.models.lora_files import save_lora

    generator = torch.Generator().manual_seed(0)
    wanted = {
        "unet": ("attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "conv1", "samplers.0.conv", "proj_in"),
        "text_encoder": ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1"),
        "text_encoder_2": ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc2"),
    }
    layers = [
        {
            name: random_layer(module.weight, 2, 1.0, generator, strength=0.05)
            for name, module in list(getattr(thin, component).named_modules())
            if name.endswith(ends) and isinstance(module, nn.Linear | nn.Conv2d)
        }
        for component, ends in wanted.items()
    ]
    path = tmp_path / "thin.safetensors"
    save_lora(path, *layers, fmt=fmt, dtype=torch.float32)  # type: ignore[arg-type]
    _compare(thin, [(path, 0.9)])
