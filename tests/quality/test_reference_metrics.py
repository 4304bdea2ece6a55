"""Without packages or weights the message must say what to get; with them the numbers must be right."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from swiftdiff.errors import ConfigError, ModelError
from swiftdiff.quality import reference_metrics
from swiftdiff.quality.reference_metrics import (
    REFERENCE_METRICS,
    PromptedPair,
    check_reference_metrics,
    measure_references,
)

FILES = {
    "clip": "CLIP-ViT-B-32-laion2B-s34B-b79K.safetensors",
    "lpips": "alexnet-owt-7be5be79.pth",
    "fid": "inception-2015-12-05.pt",
}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "open_clip", "cleanfid"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


@pytest.fixture
def pairs(tmp_path: Path) -> list[PromptedPair]:
    made = []
    for number in range(5):
        files = [tmp_path / f"{side}-{number}.png" for side in ("before", "after")]
        for shift, file in enumerate(files):
            noise = np.random.default_rng(number).integers(0, 200, (64, 64, 3)) + 20 * shift
            Image.fromarray(noise.astype(np.uint8)).save(file)
        made.append(PromptedPair(f"r{number}", "a red circle", *files))
    return made


@pytest.mark.parametrize("name", REFERENCE_METRICS)
def test_a_missing_package_is_named_with_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as if it were not installed
    with pytest.raises(
        ModelError, match=r"needs the package torchvision.*pip install 'swiftdiff\[quality\]'"
    ):
        check_reference_metrics([name])


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("name", REFERENCE_METRICS)
def test_missing_weights_are_named_with_where_they_go_and_where_they_are_from(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        check_reference_metrics([name], tmp_path)
    message = caught.value.message
    assert f"needs the weights {FILES[name]} in {tmp_path}" in message
    assert "they are from" in message
    assert "\n" not in message


@pytest.mark.usefixtures("packages")
def test_weights_are_looked_for_in_torchs_own_folder_unless_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    for file in FILES.values():
        (tmp_path / "checkpoints" / file).touch()
    check_reference_metrics(REFERENCE_METRICS)


def test_an_unknown_metric_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="quality metric is 'is', but must be one of clip, lpips, fid"):
        check_reference_metrics(["is"])


@pytest.mark.usefixtures("packages")
def test_damaged_weights_are_one_line(
    pairs: list[PromptedPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inception = ModuleType("cleanfid.inception_torchscript")
    inception.InceptionV3W = lambda path, download: torch.jit.load(Path(path) / FILES["fid"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cleanfid.inception_torchscript", inception)
    monkeypatch.setitem(sys.modules, "cleanfid.fid", ModuleType("cleanfid.fid"))
    (tmp_path / FILES["fid"]).write_bytes(b"half a download")
    with pytest.raises(ModelError) as caught:
        measure_references(["fid"], pairs, tmp_path)
    assert "FID cannot be measured with" in caught.value.message
    assert "\n" not in caught.value.message


class FakeClip:
    """Sees how bright a picture is: prompts are all white."""

    def eval(self) -> None:
        pass

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).repeat(len(tokens), 1)

    def encode_image(self, pictures: torch.Tensor, normalize: bool) -> torch.Tensor:
        brightness = pictures.mean((1, 2, 3)) / 255
        return torch.stack([brightness, (1 - brightness**2).sqrt()], 1)


@pytest.mark.usefixtures("packages")
def test_the_clip_score_is_a_hundred_times_the_cosine_and_its_change_is_paired(
    pairs: list[PromptedPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def create(model: str, pretrained: str) -> object:
        loaded.append((model, pretrained))
        return FakeClip(), lambda image: torch.from_numpy(np.asarray(image, np.float32))

    open_clip = sys.modules["open_clip"]
    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create, raising=False)
    monkeypatch.setattr(
        open_clip, "get_tokenizer", lambda model: lambda texts: torch.zeros(len(texts), 77), raising=False
    )
    monkeypatch.setattr(reference_metrics, "_BATCH", 2)
    (tmp_path / FILES["clip"]).touch()
    (score,) = measure_references(["clip"], pairs, tmp_path)
    assert loaded == [("ViT-B-32", str(tmp_path / FILES["clip"]))]
    mean = np.mean([np.asarray(Image.open(pair.before)).mean() for pair in pairs]) / 255
    assert score.before is not None
    assert score.before.value == pytest.approx(100 * mean, rel=1e-4)
    assert score.change is not None
    assert score.change.value == pytest.approx(100 * 20 / 255, rel=1e-4)
    assert score.change.high - score.change.low < 1e-3


def test_the_distance_of_two_normal_distributions_is_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(0, 1, (20_000, 3)), rng.normal(0, 2, (20_000, 3)) + np.array([3, 0, 0])
    # |gap|² plus, for independent dimensions, the sum of (σ₁ - σ₂)²
    assert reference_metrics._frechet_distance(before, after) == pytest.approx(9 + 3, abs=0.3)
    assert reference_metrics._frechet_distance(before, before) == pytest.approx(0, abs=1e-6)


def test_lpips_of_torchvisions_alexnet_is_zero_for_the_same_picture_only(
    pairs: list[PromptedPair], tmp_path: Path
) -> None:
    try:
        import torchvision
    except (ImportError, RuntimeError):
        pytest.skip("torchvision is not installed")
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), tmp_path / FILES["lpips"])
    (score,) = measure_references(["lpips"], pairs, tmp_path)
    assert score.after.value > 0
    same = [PromptedPair(pair.request_id, pair.prompt, pair.before, pair.before) for pair in pairs]
    (score,) = measure_references(["lpips"], same, tmp_path)
    assert score.after.value == 0


def test_no_pairs_have_no_scores() -> None:
    assert measure_references([], []) == ()
