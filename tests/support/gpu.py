"""Marks tests that need GPUs, and serves on one: ``pytest -m gpu``; without a GPU they are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from serving import SwiftdiffSystem, engine_config

from swiftdiff.systems import build_system

NUM_GPUS = torch.cuda.device_count()
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(NUM_GPUS < 1, reason="needs a GPU")]
NEEDS_TWO_GPUS = [pytest.mark.gpu, pytest.mark.skipif(NUM_GPUS < 2, reason="needs two GPUs")]
#: Of the engine; each alone, and all.
SWITCHES: dict[str, dict[str, Any]] = {
    "none": {},
    "latent parallelism": {"lanes": ("cuda:0", "cuda:0"), "latent_parallelism": True},
    "offload": {"lanes": ("cuda:0", "cuda:0"), "controlnet_offload": True},
    "graphs": {"graph_replay": True},
    "joint products": {"tuned_kernels": True},
    "channels last": {"channels_last": True},
    "invariants": {"reuse_invariants": True},
    "decode lane": {"decode_lane": "cuda:0"},
    "decode on the host": {"decode_lane": "cpu:0"},
    "all": {
        "lanes": ("cuda:0", "cuda:0"),
        **dict.fromkeys(("latent_parallelism", "controlnet_offload", "graph_replay", "tuned_kernels"), True),
        **dict.fromkeys(("reuse_invariants", "prefetch", "channels_last"), True),
        "decode_lane": "cuda:0",
    },
}
#: Of 255: sums in another order, by kernels that a GPU chooses by shape, once through a VAE.
TOLERANCE = {"float32": 3, "float16": 12}


@contextmanager
def on_gpu(model: Path, dtype: Any = "float32", **switches: Any) -> Iterator[SwiftdiffSystem]:
    config = engine_config(model, **({"lanes": ("cuda:0",)} | switches))
    system = build_system(config.model_copy(update={"device": "cuda:0", "dtype": dtype}))
    assert isinstance(system, SwiftdiffSystem)
    try:
        yield system
    finally:
        system.close()
