from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from swiftdiff.adapters.lora_file import check_lora_file
from swiftdiff.errors import AdapterError


def _write(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def test_a_sound_file_passes_in_any_dtype(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        check_lora_file(_write(tmp_path / "ok.safetensors", a=torch.ones(2, 2, dtype=dtype)), "ok")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_with_the_key_that_holds_them(tmp_path: Path, value: float) -> None:
    damaged = torch.ones(3, 3)
    damaged[1, 2] = value
    path = _write(tmp_path / "x.safetensors", good=torch.ones(2), bad=damaged)
    with pytest.raises(
        AdapterError, match=r"LoRA 'x' is damaged: bad in x.safetensors holds NaN or infinity"
    ):
        check_lora_file(path, "x")


@pytest.mark.parametrize("keep", [0, 4, 60, 200])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = _write(tmp_path / "x.safetensors", a=torch.ones(100))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(AdapterError, match="truncated or no safetensors file"):
        check_lora_file(path, "x")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(AdapterError, match="no safetensors file"):
        check_lora_file(path, "x")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="holds no tensor"):
        check_lora_file(_write(tmp_path / "x.safetensors"), "x")
