"""Owns the requests that are measured: prompts, seeds, adapters and control images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from swiftdiff.adapters.store import AdapterStore
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.models.registry import resolve_model
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.scenes.captions import parse_caption
from swiftdiff.scenes.control import CONTROL_KINDS, control_from_scene

CONTROLS = "controls"
GUIDANCE_SCALE = 4.5
WARMUP_STEPS = 3
_FIRST_SEED = 7000
_PROMPTS = (
    "a large red circle above a small blue square on a sand background",
    "a medium yellow star left of a medium pink ring on a charcoal background",
    "a large green square below a small orange circle on a sky background",
    "a medium cyan cross right of a small red triangle on a mint background",
    "a large purple ring above a medium yellow square on a slate background",
)


@dataclass(frozen=True)
class ModelCase:
    """A model and what its requests are made of.

    Attributes:
        model: Its name as in configs.
        slug: Its name as part of file names.
        side: Pixels of its pictures.
        controlnets: Ids in its adapter store.
        loras: Ids in its adapter store.
        borrowed_url: The adapter store, if it is that of a preset; None is the model's own.
        lender: That preset.
    """

    model: str
    slug: str
    side: int
    controlnets: tuple[str, ...]
    loras: tuple[str, ...]
    borrowed_url: str | None = None
    lender: str | None = None

    def request(self, setting: AdapterSetting, repeat: int, steps: int) -> ImageRequest:
        """Return the request of one repeat; each has another prompt and seed, the adapters stay.

        Settings differ in their LoRAs as far as there are enough, so that two after each other have none in
        common and several kinds are met.
        """
        prompt = repeat % len(_PROMPTS)
        loras = [
            self.loras[(setting.num_controlnets + index) % len(self.loras)]
            for index in range(setting.num_loras)
        ]
        return ImageRequest(
            request_id=f"{setting.num_controlnets}C-{setting.num_loras}L-{repeat}",
            timestamp=0,
            prompt=_PROMPTS[prompt],
            width=self.side,
            height=self.side,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            seed=_FIRST_SEED + repeat,
            controlnets=tuple(
                ControlNetUse(id=id_, image=_control_path(self.slug, id_, prompt))
                for id_ in self.controlnets[: setting.num_controlnets]
            ),
            loras=tuple(LoraUse(id=id_) for id_ in loras),
        )

    def draw_controls(self, folder: Path) -> None:
        """Draw the control images of all requests below ``folder``.

        Raises:
            StorageError: They cannot be written.
        """
        for number, prompt in enumerate(_PROMPTS):
            scene = parse_caption(prompt)
            assert scene is not None
            for id_ in self.controlnets:
                kind = id_ if id_ in CONTROL_KINDS else CONTROL_KINDS[0]
                path = folder / _control_path(self.slug, id_, number)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(control_from_scene(kind, scene, self.side)).save(path)
                except OSError as error:
                    raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def prepare_model(model: str, settings: Sequence[AdapterSetting], *, may_borrow: bool = False) -> ModelCase:
    """Look up a model and its adapters; a preset's are written to the user's cache the first time.

    Args:
        model: As configs name it.
        settings: What is measured.
        may_borrow: Let a model without adapters have the random ones of a preset that is like it: they show
            time, and no pictures worth looking at.

    Raises:
        ModelError: There is no such model.
        ConfigError: Its adapter store has too few adapters for a setting.
    """
    source = resolve_model(model)
    controlnets: list[str] = []
    loras: list[str] = []
    url, lender = source.adapter_url, None
    if url is None and may_borrow and any(each != AdapterSetting(0, 0) for each in settings):
        lender = source.fitting_preset
        url = None if lender is None else resolve_model(lender).adapter_url
    if url is not None:
        store = AdapterStore(url)
        controlnets, loras = store.controlnet_ids(), store.lora_ids()
        store.close()
    most = max(setting.num_controlnets for setting in settings)
    for setting in settings:
        if setting.num_controlnets > len(controlnets) or setting.num_loras > len(loras):
            raise ConfigError.for_field(
                "--setting",
                setting.name,
                f"within what the adapter store of {model} has: "
                f"{len(controlnets)} ControlNets and {len(loras)} LoRAs",
            )
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("._") or "model"
    borrowed_url = None if lender is None else url
    used = tuple(controlnets[:most])
    return ModelCase(model, slug, source.native_size, used, tuple(loras), borrowed_url, lender)


def _control_path(slug: str, controlnet: str, prompt: int) -> str:
    return f"{CONTROLS}/{slug}-{prompt}-{controlnet}.png"
