"""Tests of where the adapters of measured requests come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swiftdiff.bench.requests import prepare_model
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.errors import ConfigError
from swiftdiff.models import registry
from swiftdiff.models.presets import build_preset

BOTH = (AdapterSetting(0, 0), AdapterSetting(3, 2))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder as SDXL's is, with no adapters beside it, as far as naming it reads it."""
    base = tmp_path / "real"
    pipe = build_preset("sdxl-thin", device="meta")
    pipe.unet.save_config(base / "unet")
    pipe.vae.save_config(base / "vae")
    (base / "model_index.json").write_text("{}")
    return base


@pytest.fixture
def presets_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Adapters of every preset, as they would be in the cache."""
    root = tmp_path / "cache"
    for name in ("edges", "depth", "layout"):
        (root / "controlnets" / name).mkdir(parents=True)
        (root / "controlnets" / name / "config.json").write_text("{}")
        (root / "controlnets" / name / "diffusion_pytorch_model.safetensors").touch()
    (root / "loras").mkdir()
    for name in ("gold", "neon"):
        (root / "loras" / f"{name}.safetensors").touch()
    monkeypatch.setattr(registry, "cached_family", lambda name: root)
    return root


def test_a_model_without_adapters_gets_those_of_the_preset_like_it(
    base: Path, presets_adapters: Path
) -> None:
    case = prepare_model(str(base), BOTH, may_borrow=True)
    assert (case.lender, case.borrowed_url) == ("sdxl-thin", str(presets_adapters))
    assert (len(case.controlnets), len(case.loras), case.side) == (3, 2, 256)


def test_nothing_is_borrowed_where_it_is_not_allowed_or_not_needed_or_does_not_fit(
    base: Path, presets_adapters: Path
) -> None:
    with pytest.raises(ConfigError, match="0 ControlNets and 0 LoRAs"):
        prepare_model(str(base), BOTH)
    assert prepare_model(str(base), BOTH[:1], may_borrow=True).lender is None
    own = prepare_model("sdxl-thin", BOTH, may_borrow=True)
    assert (own.lender, own.borrowed_url) == (None, None)
    config = base / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 768}))
    with pytest.raises(ConfigError, match="0 ControlNets and 0 LoRAs"):
        prepare_model(str(base), BOTH, may_borrow=True)
