"""Puts LoRAs on a pipeline and takes them off again, by the calls that diffusers recommends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from diffusers import StableDiffusionXLPipeline

from swiftdiff.adapters.lora_file import check_lora_file
from swiftdiff.adapters.store import FetchedAdapter
from swiftdiff.errors import AdapterError
from swiftdiff.request import LoraUse
from swiftdiff.telemetry.stages import StageTimer


class StockLoras:
    """LoRAs of the running request on one pipeline.

    `load_lora_weights` reads each file, diffusers or kohya keys, text-encoder parts too; `set_adapters` gives
    each its scale; `fuse_lora` adds all of them to the weights. Afterwards `unfuse_lora` subtracts them and
    `unload_lora_weights` removes the wrappers. The subtraction does not undo the addition's rounding: in
    float32 each request with LoRAs leaves a weight off by about one unit in the last place (some 1e-7 of its
    size), which adds up as a random walk. Without fusing, the weights are never touched.

    Args:
        pipe: The pipeline whose UNet and text encoders are changed.
        fuse: Fuse before denoising; otherwise every layer computes its LoRAs' products at every step.
    """

    def __init__(self, pipe: StableDiffusionXLPipeline, *, fuse: bool) -> None:
        self._pipe = pipe
        self._fuse = fuse
        self._attached = False
        self._fused = False

    def attach(
        self, uses: Sequence[LoraUse], fetch: Callable[[str], FetchedAdapter], timer: StageTimer
    ) -> int:
        """Load and fuse LoRAs, and return how many bytes were fetched for them.

        Args:
            uses: The request's LoRAs; none is nothing to do.
            fetch: Brings a LoRA's file to the local disk.
            timer: Gets the stages ``lora_load`` and ``lora_patch``.

        Raises:
            AdapterError: One is unknown, damaged, or does not fit the model. `detach` then cleans up.
        """
        if not uses:
            return 0
        names = [f"lora{index}" for index in range(len(uses))]  # PEFT allows no dots, which ids may have
        num_bytes = 0
        self._attached = True
        for name, use in zip(names, uses, strict=True):
            with timer.stage("lora_load"):
                fetched = fetch(use.id)
                check_lora_file(fetched.path, use.id)
                self._load(fetched, name)
            num_bytes += fetched.num_bytes
        with timer.stage("lora_patch"):
            self._pipe.set_adapters(names, [use.scale for use in uses])
            if self._fuse:
                self._fused = True
                self._pipe.fuse_lora(adapter_names=names)
        return num_bytes

    def detach(self) -> None:
        """Take the LoRAs off, also after a load or fuse that failed halfway."""
        if not self._attached:
            return
        if self._fused:
            self._pipe.unfuse_lora()
            self._fused = False
        self._pipe.unload_lora_weights()
        self._attached = False

    def _load(self, fetched: FetchedAdapter, name: str) -> None:
        try:
            with warnings.catch_warnings():
                # PEFT warns that the model has an adapter already, and that it goes when a load fails.
                warnings.simplefilter("ignore", UserWarning)
                self._pipe.load_lora_weights(
                    str(fetched.path.parent),
                    weight_name=fetched.path.name,
                    adapter_name=name,
                    use_safetensors=True,
                    local_files_only=True,
                )
        except (
            Exception
        ) as error:  # missing keys, wrong shapes, another base: diffusers and PEFT raise many kinds
            reason = " ".join(str(error).split())[:300]
            raise AdapterError(f"LoRA {fetched.id!r} does not fit the model: {reason}") from error
        found = (adapters for adapters in self._pipe.get_list_adapters().values())
        if not any(name in adapters for adapters in found):
            raise AdapterError(
                f"LoRA {fetched.id!r} does not fit the model: no key of {fetched.path.name} names a layer of "
                "its UNet or text encoders"
            )
