"""Owns the wire format: what a body of OpenAI's Images API may hold here, and what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swiftdiff.request import MAX_SEED, AdapterRecord
from swiftdiff.systems.switches import RequestSwitches
from swiftdiff.validation import StrictModel

MAX_PARTIAL_IMAGES = 100
SIZE_PATTERN = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"

AdapterId = Annotated[str, Field(min_length=1, max_length=128)]
Scale = Annotated[float, Field(ge=-100, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
EngineName = Literal["swiftdiff", "nirvana", "diffusers"]


class ControlNetInput(StrictModel):
    """One ControlNet of a request.

    Attributes:
        id: Its id, as ``GET /v1/adapters`` lists it.
        image: The control image, base64 of a PNG, JPEG or WebP file; a ``data:`` URL is accepted too.
        scale: Conditioning scale.
        start: Share of the steps after which it begins to act.
        end: Share of the steps after which it stops; above ``start``.
    """

    id: AdapterId
    image: Annotated[str, Field(min_length=1)]
    scale: Scale = 1.0
    start: Share = 0.0
    end: Share = 1.0


class LoraInput(StrictModel):
    """One LoRA of a request: its id, as ``GET /v1/adapters`` lists it, and its scale."""

    id: AdapterId
    scale: Scale = 1.0


class EngineOptions(StrictModel):
    """How this request is served.

    Attributes:
        switches: The request's own, of those that ``GET /v1/models`` lists.
        engine: ``diffusers`` is the stock baseline, if this server has it; None is the server's system.
    """

    switches: RequestSwitches | None = None
    engine: EngineName | None = None


class GenerationRequest(StrictModel):
    """The body of ``POST /v1/images/generations``: OpenAI's fields, and more. null is the default.

    Attributes:
        prompt: What the picture shows.
        model: The served model's id, or nothing.
        n: Pictures; number i has the seed ``seed + i``.
        size: ``<width>x<height>`` in multiples of 8, or ``auto``, the model's native size.
        response_format: Pictures come in the response; no addresses are given out.
        stream: Send server-sent events; for one picture.
        partial_images: With ``stream``, how many pictures of unfinished steps to send before the last.
        quality: There is one quality.
        output_format: Pictures are PNG files.
        background: Pictures are opaque.
        user: Accepted and not used.
        negative_prompt: What the picture should not show.
        seed: Of the first picture's noise; none is drawn at random, and told in the response.
        num_inference_steps: Denoising steps.
        guidance_scale: Weight of classifier-free guidance; at most 1 turns it off.
        controlnets: ControlNets and their control images.
        loras: LoRAs, each once.
        slo_ms: Milliseconds from arrival within which the pictures are wanted; what is late is answered 504.
        swiftdiff: How this request is served.
    """

    prompt: Annotated[str, Field(min_length=1)]
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: Annotated[str, Field(pattern=SIZE_PATTERN)] | None = None
    response_format: Literal["b64_json"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] | None = None
    quality: Literal["auto", "standard"] | None = None
    output_format: Literal["png"] | None = None
    background: Literal["auto", "opaque"] | None = None
    user: str | None = None
    negative_prompt: str | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED - 1000)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    controlnets: tuple[ControlNetInput, ...] = ()
    loras: tuple[LoraInput, ...] = ()
    slo_ms: Annotated[float, Field(gt=0, le=86_400_000)] | None = None
    swiftdiff: EngineOptions | None = None


class HowServed(StrictModel):
    """How a request was served.

    Attributes:
        request_id: Its id in the access log.
        seed: Of the first picture.
        stages: Seconds by stage name; the restore comes after the answer and is not among them.
        latency_s: Seconds from arrival until the answer was ready.
        queue_wait_s: Of these, seconds before service began.
        batch_size: Requests that were denoised as one with it, itself included.
        adapters: How each adapter came, for systems that tell.
    """

    request_id: str
    seed: int
    stages: dict[str, float]
    latency_s: float
    queue_wait_s: float
    batch_size: int = 1
    adapters: tuple[AdapterRecord, ...] = ()


class PictureData(StrictModel):
    """One picture: base64 of a PNG file."""

    b64_json: str


class ImagesResponse(StrictModel):
    """OpenAI's response, and how it came about."""

    created: int
    data: tuple[PictureData, ...]
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    quality: Literal["auto"] = "auto"
    size: str
    swiftdiff: HowServed


class TokenDetails(StrictModel):
    """What this server does not count."""

    image_tokens: Literal[0] = 0
    text_tokens: Literal[0] = 0


class Usage(StrictModel):
    """OpenAI's count of tokens, which clients expect; nothing is counted here."""

    input_tokens: Literal[0] = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: Literal[0] = 0
    total_tokens: Literal[0] = 0


class PartialImageEvent(StrictModel):
    """A picture of an unfinished step, in a stream."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    b64_json: str
    partial_image_index: int
    created_at: int
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    quality: Literal["auto"] = "auto"
    size: str
    swiftdiff: dict[str, int]


class CompletedEvent(StrictModel):
    """The finished picture, the last event of a stream."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    b64_json: str
    created_at: int
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    quality: Literal["auto"] = "auto"
    size: str
    usage: Usage = Usage()
    swiftdiff: HowServed


class ErrorBody(StrictModel):
    """OpenAI's error.

    Attributes:
        message: What is wrong and what would be right.
        type: ``invalid_request_error`` or ``server_error``, or another of OpenAI's.
        param: The field that is wrong, or null.
        code: For programs, or null.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(StrictModel):
    """How every refusal looks."""

    error: ErrorBody


class LoraListing(StrictModel):
    """A LoRA that requests may name; ``thumbnail`` is an address of a picture made with it, or null."""

    id: str
    thumbnail: str | None = None


class ControlNetListing(StrictModel):
    """A ControlNet that requests may name."""

    id: str


class AdapterList(StrictModel):
    """What ``GET /v1/adapters`` answers."""

    loras: tuple[LoraListing, ...]
    controlnets: tuple[ControlNetListing, ...]


class ModelDescription(StrictModel):
    """One of OpenAI's models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["swiftdiff"] = "swiftdiff"


class ServedModelInfo(StrictModel):
    """What this server can do.

    Attributes:
        system: Name of the system's config.
        engine: Of the system.
        engines: That a request may ask for.
        exactness: Of the system's pictures.
        switches: Which a request may set, and what each is when it does not.
        native_size: Side of a picture when a request names no size, in pixels.
        limits: Of a request.
        defaults: What a request gets when it does not say.
        worlds: Whether live worlds run here too, at ``/world/``.
    """

    system: str
    engine: EngineName
    engines: tuple[EngineName, ...]
    exactness: Literal["exact", "approximate"]
    switches: dict[str, bool | int | str]
    native_size: int
    limits: dict[str, int]
    defaults: dict[str, int | float]
    worlds: bool


class ModelList(StrictModel):
    """What ``GET /v1/models`` answers."""

    object: Literal["list"] = "list"
    data: tuple[ModelDescription, ...]
    swiftdiff: ServedModelInfo


class Health(StrictModel):
    """What ``GET /health`` and ``GET /ready`` answer; ``detail`` says why it is not ready."""

    status: Literal["ok", "loading", "draining", "failed"]
    detail: str | None = None
