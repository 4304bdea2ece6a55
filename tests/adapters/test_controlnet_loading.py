from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from swiftdiff.adapters.loading import AdapterLoader
from swiftdiff.adapters.residency import AdapterCache
from swiftdiff.adapters.store import AdapterStore
from swiftdiff.errors import AdapterError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_controlnets_are_what_stock_loads_and_bad_ones_fail_alone(tiny_family: Path, tmp_path: Path) -> None:
    from diffusers import ControlNetModel
    from families import build_unet

    from swiftdiff.adapters.controlnet_loading import ControlNetReader
    from swiftdiff.models.loading import load_controlnet

    source = sorted((tiny_family / "controlnets").iterdir())[0]
    folder = tmp_path / "controlnets"
    for name in ("good", "short", "other", "partial"):
        shutil.copytree(source, folder / name)
    short = folder / "short" / WEIGHTS
    short.write_bytes(short.read_bytes()[:-10])
    for name, change in (("other", {"cross_attention_dim": 7}), ("partial", {"in_channels": 5})):
        file = folder / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))

    reader = ControlNetReader(AdapterStore(str(tmp_path)), build_unet())
    cache: AdapterCache[ControlNetModel] = AdapterCache(None)
    with AdapterLoader(reader, cache) as loader:
        loads = {name: loader.load(name) for name in ("good", "short", "other", "partial", "none")}
        ours, stock = loads["good"].result(120), load_controlnet(source)
        assert dict(ours.config) | {"_name_or_path": ""} == dict(stock.config) | {"_name_or_path": ""}
        assert ours.state_dict().keys() == stock.state_dict().keys()
        for key, value in stock.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value)
        assert [name for name, _ in ours.named_buffers()] == [name for name, _ in stock.named_buffers()]
        assert not ours.training
        assert loader.stats.used_bytes == sum(value.nbytes for value in stock.state_dict().values())
        for name, message in (
            ("short", rf"'short'.*{WEIGHTS}"),
            ("other", "other is for another base model: its cross_attention_dim is 7"),
            ("partial", r"'partial' cannot be loaded: .*conv_in\.weight"),
            ("none", "unknown ControlNet 'none'"),
        ):
            with pytest.raises(AdapterError, match=message):
                loads[name].result(120)
