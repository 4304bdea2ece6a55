"""Tests of counted arithmetic, against what the project's issue on GPUs counted by other means."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.bench.counted_work import Work, count_work
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.models.registry import shapes_root


def test_sdxls_arithmetic_at_1024_is_what_others_counted() -> None:
    work = count_work("sdxl", 1024)
    assert work is not None
    assert work.unet_step == pytest.approx(13.5, rel=0.01)
    assert work.controlnet_step == pytest.approx(6.0, rel=0.02)
    assert work.vae_decode == pytest.approx(10.5, rel=0.02)
    assert work.request(AdapterSetting(0, 0), 50) == pytest.approx(686, rel=0.01)
    assert work.request(AdapterSetting(3, 2), 50) == pytest.approx(1590, rel=0.01)


def test_a_request_is_its_steps_with_their_controlnets_and_one_decode() -> None:
    work = Work(unet_step=10.0, controlnet_step=4.0, vae_decode=1.0)
    assert work.request(AdapterSetting(0, 2), 3) == 31.0
    assert work.request(AdapterSetting(2, 0), 3) == 55.0


def test_a_folders_work_is_counted_from_its_configs_and_a_single_file_s_is_unknown(tmp_path: Path) -> None:
    named, folder = (count_work(name, 128) for name in ("shapes", str(shapes_root() / "base")))
    assert named is not None
    assert named == folder
    assert named.unet_step > named.controlnet_step > 0
    (tmp_path / "model.safetensors").touch()
    assert count_work(str(tmp_path / "model.safetensors"), 128) is None
