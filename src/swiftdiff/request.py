"""Owns what a request asks for and what is recorded about how it was served; knows nothing of models."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from swiftdiff.errors import RequestError
from swiftdiff.validation import StrictModel

MAX_STEPS = 1000  # the length of the noise schedule that SDXL is trained with
MAX_SIDE = 4096
MAX_IMAGES = 64
MAX_SEED = 2**63 - 1
SIZE_MULTIPLE = 8

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def _check_request_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError("1 to 128 letters, digits, '.', '_' or '-' (it names the picture files)")
    return value


def _check_image_path(value: str) -> str:
    path = PurePosixPath(value)
    windows_absolute = len(value) > 1 and value[1] == ":"
    if (
        not value
        or path.is_absolute()
        or windows_absolute
        or ".." in path.parts
        or "\\" in value
        or "\0" in value
    ):
        raise ValueError("a path below the trace's folder, with '/' between its parts and without '..'")
    return value


RequestId = Annotated[str, AfterValidator(_check_request_id)]
ImagePath = Annotated[str, AfterValidator(_check_image_path)]


class ControlNetUse(StrictModel):
    """One ControlNet of a request.

    Attributes:
        id: The adapter's id in the store.
        image: Path of the control image, relative to the trace's folder. Absolute paths and ``..`` are
            refused, so that a trace and its pictures move as one folder.
        scale: Conditioning scale.
        start: Fraction of the steps after which it begins to act, 0 to 1.
        end: Fraction of the steps after which it stops, 0 to 1.
    """

    id: Annotated[str, Field(min_length=1)]
    image: ImagePath
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


class LoraUse(StrictModel):
    """One LoRA of a request: the adapter's id in the store and its scale."""

    id: Annotated[str, Field(min_length=1)]
    scale: float = 1.0


class ImageRequest(StrictModel):
    """One timed text-to-image request: one line of a trace.

    Types, names and finiteness are checked here. Whether the request can be served (its steps, its size) is
    checked by `validate_servable` when its turn comes, so that it fails alone.

    Attributes:
        request_id: Unique in the trace; names the picture files.
        timestamp: Arrival in milliseconds from the trace's start.
        prompt: What the picture shows.
        negative_prompt: What it should not show. None is the model's own empty conditioning.
        width: Pixels. None is the model's native size.
        height: Pixels. None is the model's native size.
        num_inference_steps: Denoising steps.
        guidance_scale: Weight of classifier-free guidance; at most 1 turns guidance off.
        num_images: Pictures to make; picture ``i`` has the seed ``seed + i``.
        seed: Seed of the first picture's noise.
        controlnets: ControlNets in the order in which their residuals are summed.
        loras: LoRAs whose deltas are summed.
        slo_ms: Latency in milliseconds within which the request should be served.
    """

    request_id: RequestId
    timestamp: Annotated[float, Field(ge=0)]
    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int = 20
    guidance_scale: float = 5.0
    num_images: int = 1
    seed: int = 0
    controlnets: tuple[ControlNetUse, ...] = ()
    loras: tuple[LoraUse, ...] = ()
    slo_ms: Annotated[float, Field(gt=0)] | None = None


class AdapterRecord(StrictModel):
    """How one adapter of a request came to it.

    Attributes:
        kind: ``lora`` or ``controlnet``.
        id: Its id in the store.
        source: ``cache``: it was in memory; ``store``: it was read for this request; ``shared``: another
            request was reading it already.
        bytes_loaded: Bytes from the store on this request's account.
        load_s: Seconds from the request's arrival at the system until it was ready, emulated ones included.
        step_patched: First step with it, for a LoRA that is patched; None for a ControlNet.
        bal_k: Steps that its table let begin without it, with ``bal_k = "auto"``; else None.
        bal_note: Why that is 0 although the table does not say so, or None.
    """

    kind: Literal["lora", "controlnet"]
    id: str
    source: Literal["cache", "store", "shared"]
    bytes_loaded: int
    load_s: float
    step_patched: int | None = None
    bal_k: int | None = None
    bal_note: str | None = None


class LatentCacheRecord(StrictModel):
    """What a cache of noisy latents had for a request.

    Attributes:
        similarity: Of the most similar prompt among requests that are alike otherwise, as the cosine of
            embeddings; None if there was none.
        skipped_steps: Steps that were not computed, for its latents took their place; 0 is a miss.
        cached_bytes: In the cache after the request.
    """

    similarity: float | None = None
    skipped_steps: int
    cached_bytes: int


class RequestRecord(StrictModel):
    """How one request went: one line of ``requests.jsonl``.

    All ``_s`` fields are seconds; moments count from the run's start. ``latency_s`` is from the scheduled
    arrival to the saved picture and equals ``queue_wait_s`` plus the sum of ``stages``, except for the stage
    ``restore``, which happens after delivery: it occupies the server, delays the next request and is part of
    ``device_seconds``.

    Attributes:
        request_id: The request's.
        status: ``ok`` or ``failed``.
        error: Why it failed, as its user should read it.
        error_kind: Class of the error, such as ``AdapterError``.
        warmup: True if it was served to warm up and is left out of the summary.
        scheduled_at_s: When it arrived according to the trace or the load options.
        started_at_s: When its service began.
        finished_at_s: When its last picture was saved, or when it failed.
        queue_wait_s: ``started_at_s - scheduled_at_s``.
        client_wait_s: The part of it before the client sent the request, if it went over HTTP; else None.
        latency_s: ``finished_at_s - scheduled_at_s``.
        stages: Seconds by stage name.
        num_images: Pictures asked for.
        num_inference_steps: Steps asked for.
        width: Pixels, or None if the request left it to the model and failed.
        height: Pixels, or None if the request left it to the model and failed.
        controlnets: Ids of its ControlNets.
        loras: Ids of its LoRAs.
        images: Paths of the saved pictures, relative to the run's folder.
        bytes_loaded: Bytes of adapters fetched from the store for it.
        adapters: How each of its adapters came, for systems that tell; ControlNets first.
        latent_cache: What a cache of latents had for it, for systems with one.
        graphs_captured: Graphs that were traced, captured or compiled while it was served, for systems that
            tell: none if its shapes (and on GPUs its ControlNets) were seen before, whatever its LoRAs.
        device_seconds: Seconds for which it occupied devices, restore included, summed over devices.
        slo_ms: The request's.
        slo_met: Whether ``latency_s`` kept it; None without ``slo_ms``.
    """

    request_id: str
    status: Literal["ok", "failed"]
    error: str | None = None
    error_kind: str | None = None
    warmup: bool = False
    scheduled_at_s: float
    started_at_s: float
    finished_at_s: float
    queue_wait_s: float
    client_wait_s: float | None = None
    latency_s: float
    stages: dict[str, float]
    num_images: int
    num_inference_steps: int
    width: int | None = None
    height: int | None = None
    controlnets: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    bytes_loaded: int = 0
    adapters: tuple[AdapterRecord, ...] = ()
    latent_cache: LatentCacheRecord | None = None
    graphs_captured: int | None = None
    device_seconds: float = 0.0
    slo_ms: float | None = None
    slo_met: bool | None = None


def validate_servable(request: ImageRequest) -> None:
    """Raise RequestError if no system could serve ``request``, whatever its model and adapters."""
    where = f"request {request.request_id}"
    _check_integer("num_inference_steps", request.num_inference_steps, 1, MAX_STEPS, where)
    _check_integer("num_images", request.num_images, 1, MAX_IMAGES, where)
    _check_integer("seed", request.seed, 0, MAX_SEED - request.num_images, where)
    for name, side in (("width", request.width), ("height", request.height)):
        if side is not None and not (0 < side <= MAX_SIDE and side % SIZE_MULTIPLE == 0):
            allowed = f"a multiple of {SIZE_MULTIPLE} from {SIZE_MULTIPLE} to {MAX_SIDE}"
            raise RequestError.for_field(name, side, allowed, where)
    if request.guidance_scale < 0:
        raise RequestError.for_field("guidance_scale", request.guidance_scale, "at least 0", where)
    for index, use in enumerate(request.controlnets):
        _check_controlnet(use, f"controlnets[{index}]", where)
    _check_loras_differ(request, where)


def _check_integer(name: str, value: int, low: int, high: int, where: str) -> None:
    if not low <= value <= high:
        raise RequestError.for_field(name, value, f"an integer from {low} to {high}", where)


def _check_controlnet(use: ControlNetUse, field: str, where: str) -> None:
    if not 0 <= use.start <= 1:
        raise RequestError.for_field(
            f"{field}.start", use.start, "a fraction of the steps, from 0 to 1", where
        )
    if not use.start < use.end <= 1:
        raise RequestError.for_field(
            f"{field}.end", use.end, f"above start ({use.start:g}) and at most 1", where
        )


def _check_loras_differ(request: ImageRequest, where: str) -> None:
    ids = [use.id for use in request.loras]
    repeated = sorted({id_ for id_ in ids if ids.count(id_) > 1})
    if repeated:
        allowed = "a list that names each LoRA once (add the scales instead)"
        raise RequestError.for_field("loras", repeated, allowed, where)
