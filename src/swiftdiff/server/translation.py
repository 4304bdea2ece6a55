"""Turns a request's body into what a system serves, within the server's limits."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from swiftdiff.config import ServingConfig
from swiftdiff.errors import RequestError
from swiftdiff.request import SIZE_MULTIPLE, ControlNetUse, ImageRequest, LoraUse, validate_servable
from swiftdiff.server.catalog import AdapterCatalog
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.control_images import save_control_image
from swiftdiff.server.errors import HttpError
from swiftdiff.server.schema import EngineName, GenerationRequest
from swiftdiff.systems.switches import RequestSwitches
from swiftdiff.validation import describe, path_of

Value = TypeVar("Value")


@dataclass(frozen=True)
class Asked:
    """What a body asks for.

    Attributes:
        request: For the system.
        files: Control images that were written for it.
        engine: The one it asks for, None if that is the server's own.
        switches: Its own.
        stream: Whether events are wanted.
        num_partials: Pictures of unfinished steps that are wanted.
    """

    request: ImageRequest
    files: tuple[Path, ...]
    engine: EngineName | None
    switches: RequestSwitches | None
    stream: bool
    num_partials: int


class Translator:
    """Reads bodies for one server.

    Args:
        server: Its limits and defaults.
        system: Its system.
        catalog: The adapters that may be named.
        images_root: Gets control images.

    Attributes:
        model_id: How clients name the model.
        engines: That a request may ask for.
    """

    def __init__(
        self, server: ServerConfig, system: ServingConfig, catalog: AdapterCatalog, images_root: Path
    ) -> None:
        self.model_id = Path(system.model).name
        stock: tuple[EngineName, ...] = ("diffusers",) if server.stock else ()
        self.engines: tuple[EngineName, ...] = tuple(dict.fromkeys((system.engine, *stock)))
        self._server = server
        self._system = system
        self._catalog = catalog
        self._images_root = images_root

    def read(self, body: bytes, request_id: str, arrived_s: float) -> Asked:
        """Return what a body asks for; blocks while it decodes pictures and may wait for the store.

        Args:
            body: JSON.
            request_id: Names files.
            arrived_s: By the server's clock.

        Raises:
            HttpError: It is malformed, asks for too much or for what is not there.
        """
        try:
            body_model = GenerationRequest.model_validate_json(body)
        except ValidationError as error:
            param = path_of(error.errors(include_url=False)[0]["loc"]) or None
            message = describe(error, GenerationRequest, whole="the body")
            raise HttpError(400, message, "invalid_body", param=param) from error
        self._check(body_model)
        request = self._request(body_model, request_id, arrived_s)
        try:
            validate_servable(request)
        except RequestError as error:
            message = str(error).removeprefix(f"request {request_id}: ")
            raise HttpError(400, message, "invalid_value") from error
        self._check_adapters(body_model)
        files = self._save_images(body_model, request)
        options = body_model.swiftdiff
        engine = None if options is None or options.engine == self._system.engine else options.engine
        switches = None if options is None else options.switches
        stream = bool(body_model.stream)
        return Asked(request, files, engine, switches, stream, body_model.partial_images or 0)

    def _request(self, asked: GenerationRequest, request_id: str, arrived_s: float) -> ImageRequest:
        width, height = _parse_size(asked.size)
        defaults = self._server.defaults
        return ImageRequest(
            request_id=request_id,
            timestamp=arrived_s * 1000,
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            width=width,
            height=height,
            num_inference_steps=_or(asked.num_inference_steps, defaults.num_inference_steps),
            guidance_scale=_or(asked.guidance_scale, defaults.guidance_scale),
            num_images=_or(asked.n, 1),
            seed=secrets.randbelow(2**32) if asked.seed is None else asked.seed,
            controlnets=tuple(
                ControlNetUse(
                    id=use.id,
                    image=f"{request_id}-{index}.img",
                    scale=use.scale,
                    start=use.start,
                    end=use.end,
                )
                for index, use in enumerate(asked.controlnets)
            ),
            loras=tuple(LoraUse(id=use.id, scale=use.scale) for use in asked.loras),
            slo_ms=asked.slo_ms,
        )

    def _check(self, asked: GenerationRequest) -> None:
        limits = self._server.limits
        native = self._catalog.native_size
        width, height = (side or native for side in _parse_size(asked.size))
        _at_most("prompt", len(asked.prompt), limits.prompt_chars, "characters")
        _at_most("negative_prompt", len(asked.negative_prompt or ""), limits.prompt_chars, "characters")
        _at_most("n", asked.n or 1, limits.images, "pictures")
        _at_most("num_inference_steps", asked.num_inference_steps or 1, limits.steps, "steps")
        _at_most("size", max(width, height), max(limits.side, native), "pixels a side")
        _at_most("size", width * height, max(limits.pixels, native * native), "pixels")
        if width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
            raise HttpError(
                400,
                f"size is {width}x{height}, but both must be multiples of {SIZE_MULTIPLE}",
                "invalid_value",
                param="size",
            )
        _at_most("controlnets", len(asked.controlnets), limits.controlnets, "ControlNets")
        _at_most("loras", len(asked.loras), limits.loras, "LoRAs")
        if asked.model is not None and asked.model != self.model_id:
            raise HttpError(
                404,
                f"there is no model {asked.model[:80]!r} here, only {self.model_id!r}",
                "model_not_found",
                param="model",
            )
        if asked.stream and (asked.n or 1) > 1:
            raise HttpError(400, "n must be 1 with stream", "invalid_value", param="n")
        if asked.partial_images and not asked.stream:
            raise HttpError(400, "partial_images needs stream", "invalid_value", param="partial_images")
        self._check_options(asked)

    def _check_options(self, asked: GenerationRequest) -> None:
        options = asked.swiftdiff
        if options is None:
            return
        engine = options.engine or self._system.engine
        if engine not in self.engines:
            allowed = ", ".join(self.engines)
            raise HttpError(
                400, f"swiftdiff.engine must be one of {allowed}", "invalid_value", param="swiftdiff.engine"
            )
        if options.switches is not None and engine != "swiftdiff":
            raise HttpError(
                400,
                f"the engine {engine} has no switches",
                "invalid_value",
                param="swiftdiff.switches",
            )

    def _check_adapters(self, asked: GenerationRequest) -> None:
        if not asked.controlnets and not asked.loras:
            return
        controlnets = tuple(use.id for use in asked.controlnets)
        loras = tuple(use.id for use in asked.loras)
        unknown = self._catalog.unknown(controlnets, loras)
        if unknown is not None:
            field, index = unknown
            name = (controlnets if field == "controlnets" else loras)[index]
            raise HttpError(
                404,
                f"{field}[{index}].id is {name!r}, which this server does not have; GET /v1/adapters lists "
                "what it has",
                "adapter_not_found",
                param=f"{field}[{index}].id",
            )

    def _save_images(self, asked: GenerationRequest, request: ImageRequest) -> tuple[Path, ...]:
        files: list[Path] = []
        try:
            for index, use in enumerate(asked.controlnets):
                path = self._images_root / request.controlnets[index].image
                files.append(path)
                save_control_image(
                    use.image,
                    path,
                    max_pixels=self._server.limits.control_pixels,
                    field=f"controlnets[{index}].image",
                )
        except BaseException:
            for file in files:
                file.unlink(missing_ok=True)
            raise
        return tuple(files)


def _parse_size(size: str | None) -> tuple[int | None, int | None]:
    if size is None or size == "auto":
        return None, None
    width, _, height = size.partition("x")
    return int(width), int(height)


def _or(given: Value | None, default: Value) -> Value:
    return default if given is None else given


def _at_most(field: str, value: int, limit: int, unit: str) -> None:
    if value > limit:
        raise HttpError(
            400, f"{field} is {value} {unit}, but must be at most {limit}", "limit_exceeded", param=field
        )
