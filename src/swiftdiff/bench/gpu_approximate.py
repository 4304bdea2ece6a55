"""Owns which approximate systems are compared on GPUs, and how alike their pictures are to exact ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.config import SwiftdiffConfig

ENDS = (AdapterSetting(0, 0), AdapterSetting(3, 2))
_ALL_ADAPTERS = ENDS[1:]
_VAE = {"vae_dtype": "bfloat16"}
_MILD = {"controlnet_reuse": 2, "guidance_interval": (1.0, 1000.0), "step_cache": 2}
_BOLD = {"controlnet_reuse": 3, "guidance_interval": (2.0, 1000.0), "step_cache": 3}


@dataclass(frozen=True)
class ApproximateLine:
    """A system of the line-up that leaves work out.

    Attributes:
        name: The system's.
        switches: What differs from the exact engine's.
        settings: Those it is measured in unless it is named.
        needs_torchao: Whether it is only there with the extra ``quantized``.
        compiles: Whether it compiles first, for nobody knows how long.
    """

    name: str
    switches: Mapping[str, Any] = field(hash=False)
    settings: tuple[AdapterSetting, ...] = ENDS
    needs_torchao: bool = False
    compiles: bool = False

    @property
    def meaning(self) -> str:
        """What it is, in words."""
        about = ", ".join(f"{key} = {value}" for key, value in self.switches.items())
        return f"swiftdiff with {about}: approximate"

    def applied_to(self, exact: SwiftdiffConfig) -> SwiftdiffConfig:
        """Return the switches of the exact engine with this line's in place of its own."""
        return SwiftdiffConfig.model_validate(exact.model_dump() | dict(self.switches))


# First the mild and the bold end of workloads/configs/frontier with all else that is approximate, then apart.
_LINES = (
    ApproximateLine("all-mild", _MILD | _VAE),
    ApproximateLine("all-bold", _BOLD | _VAE),
    ApproximateLine("vae-bf16", _VAE),
    ApproximateLine("bal10", {"bal_k": "10%"}, _ALL_ADAPTERS),
    ApproximateLine("bal40", {"bal_k": "40%"}, _ALL_ADAPTERS),
    ApproximateLine("step-cache-2", {"step_cache": 2}, _ALL_ADAPTERS),
    ApproximateLine("cn-reuse-2", {"controlnet_reuse": 2}, _ALL_ADAPTERS),
    ApproximateLine("guidance-above-1", {"guidance_interval": (1.0, 1000.0)}, _ALL_ADAPTERS),
    ApproximateLine("float8", {"quantized_weights": "float8"}, needs_torchao=True),
    ApproximateLine(
        "int8", {"quantized_weights": "int8", "compile_blocks": True}, needs_torchao=True, compiles=True
    ),
)


def approximate_lines(*, on_gpu: bool) -> tuple[ApproximateLine, ...]:
    """Return the lines there are.

    Args:
        on_gpu: With those that need a GPU: a CPU has no products of 8-bit floats, and compiles for minutes.
    """
    return tuple(line for line in _LINES if on_gpu or not line.needs_torchao)


def has_torchao() -> bool:
    """Tell whether the extra ``quantized`` is installed."""
    return importlib.util.find_spec("torchao") is not None
