"""Reads a ControlNet from the store into memory; this is what a loader's threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load

from swiftdiff.adapters.loading import Loaded
from swiftdiff.adapters.store import CONTROLNET_FILES, AdapterStore
from swiftdiff.errors import AdapterError, ModelError
from swiftdiff.models.checkpoints import cause
from swiftdiff.models.folders import check_controlnet_folder
from swiftdiff.models.loading import check_controlnet_fits
from swiftdiff.models.recipes import read_recipe


class ControlNetReader:
    """Fetches a ControlNet and builds the stock class beside a model that computes.

    Stock ``from_pretrained`` replaces ``nn.Module.register_parameter`` for the whole process while it builds
    a model, so that whatever another thread builds meanwhile comes out without weights. Here the model is
    built on the meta device, which a thread has for itself, and is then given its weights.

    Args:
        store: Where ControlNets come from.
        unet: The base; only its config is read.
        device: Where the weights are kept.
        dtype: Their type.
        clock: Seconds from any moment.
    """

    def __init__(
        self,
        store: AdapterStore,
        unet: UNet2DConditionModel,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._unet = unet
        self._device = torch.device(device)
        self._dtype = dtype
        self._clock = clock

    def __call__(self, adapter_id: str) -> Loaded[ControlNetModel]:
        """Read one ControlNet.

        Raises:
            AdapterError: It is unknown, damaged, or made for another base model.
            StoreUnavailableError: The store does not give it now.
        """
        began = self._clock()
        fetched = self._store.fetch_controlnet(adapter_id)
        fetched_at = self._clock()
        try:
            controlnet = self._build(fetched.path, adapter_id)
        finally:
            self._store.discard(fetched)
        num_bytes = sum(tensor.nbytes for tensor in controlnet.state_dict().values())
        prepare_s = self._clock() - fetched_at
        return Loaded(controlnet, num_bytes, fetched.num_bytes, fetched_at - began, prepare_s)

    def _build(self, folder: Path, adapter_id: str) -> ControlNetModel:
        try:
            check_controlnet_folder(folder)
            with torch.device("meta"):
                controlnet = ControlNetModel.from_config(ControlNetModel.load_config(folder))
            check_controlnet_fits(controlnet, self._unet, adapter_id)
            recipe = read_recipe(folder)
            if recipe is not None:
                controlnet = recipe.build(device=self._device, dtype=self._dtype)
                return controlnet.eval().requires_grad_(False)
            # Not mapped: the file may change, and safetensors 0.8 leaks a little for every tensor it maps.
            weights = load((folder / CONTROLNET_FILES[1]).read_bytes())
            for key, weight in weights.items():
                weights[key] = weight.to(self._device, self._dtype)
            controlnet.load_state_dict(weights, assign=True)
        except ModelError as error:
            raise AdapterError(f"ControlNet {adapter_id!r}: {error.message}") from error
        except AdapterError:
            raise
        except Exception as error:  # whatever the library says about a config or weights that do not fit
            raise AdapterError(f"ControlNet {adapter_id!r} cannot be loaded: {cause(error)}") from error
        return controlnet.eval().requires_grad_(False)
