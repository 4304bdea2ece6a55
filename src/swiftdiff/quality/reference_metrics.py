"""CLIP score, LPIPS and FID: what networks say of pictures, for users who have the networks' weights.

Nothing is downloaded here: each metric names the packages and the file that it needs, and where that is from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np
import torch
from PIL import Image

from swiftdiff.errors import ConfigError, ModelError

from .picture_files import read_picture_file
from .quality_report import ReferenceScore
from .statistics import Estimate, bootstrap_mean

ReferenceMetric = Literal["clip", "lpips", "fid"]
REFERENCE_METRICS: Final[tuple[ReferenceMetric, ...]] = get_args(ReferenceMetric)

_CLIP_MODEL: Final = "ViT-B-32"
_BATCH: Final = 32
_INSTALL: Final = "pip install 'swiftdiff[quality]'"


@dataclass(frozen=True, slots=True)
class PromptedPair:
    """Two pictures of one prompt: the baseline's file and the system's."""

    request_id: str
    prompt: str
    before: Path
    after: Path


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a metric cannot do without: packages by the name of import, a weights file, and its source."""

    title: str
    modules: tuple[str, ...]
    file: str
    source: str


_NEEDS: Final[Mapping[ReferenceMetric, _Needs]] = MappingProxyType(
    {
        "clip": _Needs(
            "CLIP score",
            ("torchvision", "open_clip"),
            "CLIP-ViT-B-32-laion2B-s34B-b79K.safetensors",
            "open_clip_model.safetensors of laion/CLIP-ViT-B-32-laion2B-s34B-b79K on the Hugging Face hub",
        ),
        "lpips": _Needs(
            "LPIPS",
            ("torchvision",),
            "alexnet-owt-7be5be79.pth",
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        ),
        "fid": _Needs(
            "FID",
            ("torchvision", "cleanfid"),
            "inception-2015-12-05.pt",
            "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
            "inception-2015-12-05.pt",
        ),
    }
)


def default_weights() -> Path:
    """Where weights are looked for if nothing else is said: torch's own folder of downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def check_reference_metrics(names: Sequence[str], weights: Path | None = None) -> None:
    """Raise unless all metrics can be measured: call it before anything that takes long.

    Args:
        names: Of `REFERENCE_METRICS`.
        weights: Folder of the weights' files; None is `default_weights`.

    Raises:
        ConfigError: There is no metric of a name.
        ModelError: A package or a file is missing; the message says which, and where it is from.
    """
    folder = weights or default_weights()
    for name in names:
        if name not in REFERENCE_METRICS:
            raise ConfigError.for_field("quality metric", name, f"one of {', '.join(REFERENCE_METRICS)}")
        needs = _NEEDS[name]
        for module in needs.modules:
            try:
                import_module(module)
            except (
                ImportError,
                OSError,
                RuntimeError,
            ) as error:  # RuntimeError: torchvision of another torch
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ModelError(
                    f"{needs.title} needs the package {module}, which cannot be imported ({reason}); "
                    f"install it with: {_INSTALL}"
                ) from error
        if not (folder / needs.file).is_file():
            raise ModelError(
                f"{needs.title} needs the weights {needs.file} in {folder}; they are from {needs.source}"
            )


def measure_references(
    names: Sequence[str], pairs: Sequence[PromptedPair], weights: Path | None = None, seed: int = 0
) -> tuple[ReferenceScore, ...]:
    """Measure pairs of pictures by networks; pictures that cannot be read must not be among them.

    Args:
        names: Of `REFERENCE_METRICS`.
        pairs: What to measure.
        weights: Folder of the weights' files; None is `default_weights`.
        seed: Of the bootstrap.

    Raises:
        ConfigError: There is no metric of a name.
        ModelError: A package or a file is missing, or a file is damaged.
    """
    check_reference_metrics(names, weights)
    if not pairs:
        return ()
    folder = weights or default_weights()
    scores = []
    for name in REFERENCE_METRICS:
        if name not in names:
            continue
        needs = _NEEDS[name]
        try:
            with torch.inference_mode():
                scores.append(_MEASURES[name](pairs, folder / needs.file, seed))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"{needs.title} cannot be measured with {folder / needs.file}: {reason}"
            ) from error
    return tuple(scores)


def _clip_score(pairs: Sequence[PromptedPair], file: Path, seed: int) -> ReferenceScore:
    """100 times the cosine of picture and prompt, at least 0 (Hessel et al., 2021, without their 2.5)."""
    open_clip = import_module("open_clip")
    model, preprocess = open_clip.create_model_from_pretrained(_CLIP_MODEL, pretrained=str(file))
    model.eval()
    tokenizer = open_clip.get_tokenizer(_CLIP_MODEL)

    def score(prompts: Sequence[str], files: Sequence[Path]) -> torch.Tensor:
        texts = model.encode_text(tokenizer(list(prompts)), normalize=True)
        pictures = torch.stack([preprocess(_image(path)) for path in files])
        cosines: torch.Tensor = (model.encode_image(pictures, normalize=True) * texts).sum(1)
        return 100 * cosines.clamp(min=0)

    prompts = [pair.prompt for pair in pairs]
    before = _batched(score, prompts, [pair.before for pair in pairs])
    after = _batched(score, prompts, [pair.after for pair in pairs])
    requests = [pair.request_id for pair in pairs]
    changes = [new - old for old, new in zip(before, after, strict=True)]
    means = [bootstrap_mean(values, seed, requests) for values in (before, after, changes)]
    return ReferenceScore("CLIP score", *means)


def _lpips(pairs: Sequence[PromptedPair], file: Path, seed: int) -> ReferenceScore:
    """Distance in AlexNet's features (Zhang et al., 2018), weighted as in torchmetrics; 0 is the same."""
    lpips = import_module("torchmetrics.functional.image.lpips")
    network = lpips._LPIPS(pretrained=True, net="alex", pnet_rand=True)
    _load_alexnet(network.net, torch.load(file, map_location="cpu", weights_only=True))
    network.eval()

    distances = [
        float(network(_signed_tensor(pair.before), _signed_tensor(pair.after)).squeeze()) for pair in pairs
    ]
    mean = bootstrap_mean(distances, seed, [pair.request_id for pair in pairs])
    return ReferenceScore("LPIPS", None, mean, None)


def _load_alexnet(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Fill the slices of AlexNet's features, whose layers keep their numbers."""
    features = {name.removeprefix("features."): value for name, value in state.items() if "features." in name}
    own = {name: features[name.partition(".")[2]] for name in network.state_dict()}
    network.load_state_dict(own)


def _fid(pairs: Sequence[PromptedPair], file: Path, seed: int) -> ReferenceScore:
    """Fréchet distance of the two sets' Inception features, resized as clean-fid does (Parmar et al., 2022).

    It is one number of all pictures: without an interval, and biased upwards for fewer than some thousands.
    """
    fid, inception = import_module("cleanfid.fid"), import_module("cleanfid.inception_torchscript")
    network = inception.InceptionV3W(str(file.parent), download=False).eval()
    device = torch.device("cpu")
    features = [
        fid.get_files_features(
            [str(getattr(pair, side)) for pair in pairs],
            network,
            num_workers=0,
            batch_size=_BATCH,
            device=device,
            verbose=False,
        )
        for side in ("before", "after")
    ]
    distance = _frechet_distance(*(np.asarray(each, np.float64) for each in features))
    return ReferenceScore("FID", None, Estimate(distance, distance, distance, len(pairs)), None)


def _frechet_distance(before: np.ndarray, after: np.ndarray) -> float:
    """Of the normal distributions fitted to two sets of features, [N, F] each (Heusel et al., 2017)."""
    gap = before.mean(0) - after.mean(0)
    old, new = (
        np.atleast_2d(np.cov(each, rowvar=False, ddof=min(1, len(each) - 1))) for each in (before, after)
    )
    # The trace of the square root of a product of covariances is the sum of the roots of its eigenvalues.
    roots = np.sqrt(np.clip(np.linalg.eigvals(old @ new).real, 0, None)).sum()
    return max(0.0, float(gap @ gap + np.trace(old) + np.trace(new) - 2 * roots))


_MEASURES: Final[Mapping[str, Callable[[Sequence[PromptedPair], Path, int], ReferenceScore]]] = (
    MappingProxyType({"clip": _clip_score, "lpips": _lpips, "fid": _fid})
)


def _batched(
    score: Callable[[Sequence[str], Sequence[Path]], torch.Tensor],
    prompts: Sequence[str],
    files: Sequence[Path],
) -> list[float]:
    values: list[float] = []
    for start in range(0, len(files), _BATCH):
        some = slice(start, start + _BATCH)
        values += score(prompts[some], files[some]).tolist()
    return values


def _image(path: Path) -> Image.Image:
    return Image.fromarray(read_picture_file(path))


def _signed_tensor(path: Path) -> torch.Tensor:
    """A picture as [1, 3, H, W] from -1 to 1."""
    pixels = torch.from_numpy(read_picture_file(path).astype(np.float32))
    return (pixels / 127.5 - 1).permute(2, 0, 1)[None]
