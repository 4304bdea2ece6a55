"""Says that a model has no adapters."""

from __future__ import annotations

from swiftdiff.errors import AdapterError
from swiftdiff.models.registry import ModelSource


def no_store(kind: str, adapter_id: str, source: ModelSource) -> AdapterError:
    """Return the error of a request that names an adapter where there is no adapter store.

    Args:
        kind: ``ControlNet`` or ``LoRA``.
        adapter_id: What the request names.
        source: The model.
    """
    return AdapterError(
        f"no {kind} {adapter_id!r}: model {source.name!r} brings no adapters; set url under [adapters] in "
        "the config"
    )
