"""Decides what a sweep of k draws: scenes made up from a seed, or the first requests of a trace."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from swiftdiff.adapters.store import open_store
from swiftdiff.compare.sweep_k_options import LORA_SCALE, SweepOptions
from swiftdiff.config import ServingConfig
from swiftdiff.errors import AdapterError, ConfigError, RequestError, StorageError
from swiftdiff.models.registry import resolve_model
from swiftdiff.quality.plan import BASE, EvaluationOptions, PictureSet, sample
from swiftdiff.request import ImageRequest, LoraUse, validate_servable
from swiftdiff.trace import read_trace, scan_trace
from swiftdiff.validation import unknown_name


def plan_requests(options: SweepOptions) -> list[ImageRequest]:
    """Return the requests that each LoRA and k is measured with: one picture each, and no LoRA yet.

    Raises:
        TraceError: The trace is wrong.
        ConfigError: It has no request that could be served.
        StorageError: It is not the one that the sweep began with.
    """
    if options.trace is None:
        return [_made_up(options, index) for index in range(options.prompts)]
    path = Path(options.trace)
    if scan_trace(path).sha256 != options.trace_sha256:
        raise StorageError(f"{path} is not the trace any more that the sweep began with")
    usable = (_adapted(request, options) for request in read_trace(path) if _is_servable(request))
    requests = list(itertools.islice(usable, options.prompts))
    if not requests:
        raise ConfigError(f"--trace {path} has no request that could be served")
    return requests


def loras_of(trace: Path) -> tuple[str, ...]:
    """Return the LoRAs that a trace names, sorted."""
    return tuple(sorted({use.id for request in read_trace(trace) for use in request.loras}))


def choose_loras(asked: Sequence[str] | None, config: ServingConfig) -> tuple[str, ...]:
    """Return the LoRAs to sweep, each once.

    Args:
        asked: Their ids; None is all of the store.
        config: The system whose store has them.

    Raises:
        ConfigError: None is named or to be found, or one is not in the store.
        AdapterError: There is no store.
    """
    store = open_store(config.adapters, resolve_model(config.model).adapter_url)
    if store is None:
        raise AdapterError(f"model {config.model!r} has no LoRAs of its own, and no adapter store is named")
    known = store.lora_ids()  # empty if the store cannot be listed
    store.close()
    names = tuple(dict.fromkeys(name.strip() for name in (known if asked is None else asked)))
    if not names or "" in names:
        raise ConfigError(f"--loras: name LoRAs of the adapter store {store.url}, with commas between them")
    for name in names:
        if known and name not in known:
            raise ConfigError(f"--loras: {unknown_name('LoRA', name, known)}")
    return names


def with_lora(request: ImageRequest, lora: str) -> ImageRequest:
    """Return a request with one LoRA."""
    return request.model_copy(update={"loras": (LoraUse(id=lora, scale=LORA_SCALE),)})


def _made_up(options: SweepOptions, index: int) -> ImageRequest:
    drawn = sample(PictureSet(BASE, "base", options.prompts), index, EvaluationOptions(seed=options.seed))
    return ImageRequest(
        request_id=f"{index:03}",
        timestamp=0,
        prompt=drawn.prompt,
        num_inference_steps=options.num_inference_steps,
        seed=drawn.seed,
    )


def _adapted(request: ImageRequest, options: SweepOptions) -> ImageRequest:
    update = {"num_inference_steps": options.num_inference_steps, "num_images": 1, "loras": ()}
    return request.model_copy(update=update)


def _is_servable(request: ImageRequest) -> bool:
    try:
        validate_servable(request)
    except RequestError:
        return False
    return True
