"""Makes a trace's request from a source's: what the source lacks is filled in, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from swiftdiff.errors import RequestError, TraceError
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse, validate_servable
from swiftdiff.scenes.control import CONTROL_KINDS
from swiftdiff.trace.content import ContentPool
from swiftdiff.trace.foreign_ids import stable_choice
from swiftdiff.validation import describe

from .options import ImportOptions
from .source import SourceRequest

_MAX_COUNTS = 200  # so that a source with ever new notes does not grow the provenance without end
_DEFAULTS = {name: field.default for name, field in ImageRequest.model_fields.items()}


class Filler:
    """Fills in requests one after the other.

    Args:
        options: What the user chose.
        pool: Prompts and control images.
        prompts: Used in turn instead of the pool's prompts, unless empty.
        lists_controlnets: Whether a request without ControlNets is known to have had none.
    """

    def __init__(
        self, options: ImportOptions, pool: ContentPool, prompts: Sequence[str], *, lists_controlnets: bool
    ) -> None:
        self._options = options
        self._pool = pool
        self._prompts = prompts
        self._share = None if lists_controlnets else options.controlnet_share
        self._rng = np.random.default_rng([options.seed, 1])
        self._counts: Counter[tuple[str, str]] = Counter()

    def request(self, row: SourceRequest, at_ms: float, number: int) -> ImageRequest:
        """Return the request with everything it needs.

        Args:
            row: As the source has it.
            at_ms: Arrival in milliseconds from the trace's start.
            number: From 0, of the requests that are kept.

        Raises:
            TraceError: The source's values cannot be served by any system.
        """
        options = self._options
        for field, how in row.notes:
            self._count(field, how)
        if row.base_model is not None and options.base_model is None:
            self._count("base_model", "left out: one base model serves all")
        self._count("seed", "the import's seed plus the request's number")
        try:
            request = ImageRequest(
                request_id=f"r{number + 1:06d}",
                timestamp=at_ms,
                prompt=self._prompt(row, number),
                negative_prompt=row.negative_prompt,
                width=self._value("width", row.width, options.width),
                height=self._value("height", row.height, options.height),
                num_inference_steps=self._cut(
                    "num_inference_steps",
                    self._value("num_inference_steps", row.num_inference_steps, options.steps),
                    options.max_steps,
                ),
                guidance_scale=self._value("guidance_scale", row.guidance_scale, options.guidance),
                num_images=self._cut(
                    "num_images", self._value("num_images", row.num_images, None), options.max_images
                ),
                seed=options.seed + number,
                controlnets=self._controlnets(row, number),
                loras=self._loras(row),
                slo_ms=row.slo_ms if row.slo_ms is not None else self._slo_ms(),
            )
            validate_servable(request)
        except ValidationError as error:
            raise TraceError(f"{row.where}: {describe(error, ImageRequest)}") from error
        except RequestError as error:
            problem = error.message.split(": ", 1)[1]  # it names a request that the source does not know
            raise TraceError(f"{row.where}: {problem}") from error
        return request

    def filled_in(self, num_requests: int) -> dict[str, str]:
        """Return what was filled in so far and how, by field, with the number of requests if not all."""
        texts: dict[str, list[str]] = {}
        for (field, how), count in sorted(self._counts.items()):
            some = "" if count == num_requests else f" ({count} request{'s' if count > 1 else ''})"
            texts.setdefault(field, []).append(how + some)
        return {field: "; ".join(hows) for field, hows in texts.items()}

    def _count(self, field: str, how: str) -> None:
        if (field, how) in self._counts or len(self._counts) < _MAX_COUNTS:
            self._counts[field, how] += 1
        else:
            self._counts["more", "too many kinds to tell"] += 1

    def _prompt(self, row: SourceRequest, number: int) -> str:
        if row.prompt is not None:
            return row.prompt
        if self._prompts:
            self._count("prompt", "lines of the file of prompts, in turn")
            return self._prompts[number % len(self._prompts)]
        self._count("prompt", f"captions of {self._pool.size} made-up scenes, in turn")
        return self._pool.prompt(number)

    def _value(self, field: str, found: Any, chosen: Any) -> Any:
        if found is not None:
            return found
        value = chosen if chosen is not None else _DEFAULTS[field]
        self._count(field, "the model's own" if value is None else f"{value:g}")
        return value

    def _cut(self, field: str, value: Any, most: int | None) -> Any:
        if most is None or value <= most:
            return value
        self._count(field, f"cut to {most}")
        return most

    def _slo_ms(self) -> float | None:
        if self._options.slo_ms is not None:
            self._count("slo_ms", f"{self._options.slo_ms:g}")
        return self._options.slo_ms

    def _controlnets(self, row: SourceRequest, number: int) -> tuple[ControlNetUse, ...]:
        ids = row.controlnets
        if self._share is not None and not ids and self._rng.random() < self._share:
            ids = (str(self._rng.choice(CONTROL_KINDS)),)
            self._count("controlnets", f"one for a share of {self._share:g} of the requests")
        if ids:
            shows = "a made-up scene" if row.prompt is not None or self._prompts else "the prompt's scene"
            self._count("controlnets.image", f"drawn from {shows}, of a kind that the id decides")
            self._count("controlnets.scale", "1")
        return tuple(
            ControlNetUse(id=id_, image=self._pool.control_image(number, self._kind(id_))) for id_ in ids
        )

    def _kind(self, controlnet: str) -> str:
        return controlnet if controlnet in CONTROL_KINDS else stable_choice(controlnet, CONTROL_KINDS)

    def _loras(self, row: SourceRequest) -> tuple[LoraUse, ...]:
        scales: dict[str, float] = {}
        for identity, scale in row.loras:
            scales[identity] = scales.get(identity, 0.0) + (1.0 if scale is None else scale)
        if any(scale is None for _, scale in row.loras):
            self._count("loras.scale", "1")
        if len(scales) < len(row.loras):
            self._count("loras", "those named twice are merged, their scales added")
        return tuple(LoraUse(id=identity, scale=scale) for identity, scale in scales.items())
