"""Owns which approximate systems are compared on GPUs, and how alike their pictures are to exact ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.config import SwiftdiffConfig

AIM = 0.95
_LIKENESS = {
    True: f"an SSIM of {AIM:g} and more to exact pictures on shapes",
    False: f"an SSIM below {AIM:g} to exact pictures on shapes",
    None: "its pictures on shapes were not measured",
}
ENDS = (AdapterSetting(0, 0), AdapterSetting(3, 2))
_ALL_ADAPTERS = ENDS[1:]
_VAE = {"vae_dtype": "bfloat16"}
_LATE = {"bal_k": "10%"}
# Of workloads/configs/frontier; on `shapes` they keep an SSIM of 0.95 without adapters and lose it with them.
_MILD = {"controlnet_reuse": 2, "guidance_interval": (1.0, 1000.0), "step_cache": 2}
_BOLD = {"controlnet_reuse": 3, "guidance_interval": (2.0, 1000.0), "step_cache": 3}


@dataclass(frozen=True)
class ApproximateLine:
    """A system of the line-up that leaves work out.

    Attributes:
        name: The system's.
        switches: What differs from the exact engine's.
        settings: Those it is measured in.
        is_alike: Whether its pictures keep an SSIM of `AIM` to the exact ones on `shapes`, in each of these
            settings, as `approximate_pictures` measures it; None was not measured. If not, it takes part only
            where it is named.
        needs_torchao: Whether it is only there with the extra ``quantized``.
        compiles: Whether it compiles first, for nobody knows how long.
    """

    name: str
    switches: Mapping[str, Any] = field(hash=False)
    settings: tuple[AdapterSetting, ...] = ENDS
    is_alike: bool | None = True
    needs_torchao: bool = False
    compiles: bool = False

    @property
    def switched(self) -> str:
        """Its switches, in words."""
        return ", ".join(f"{key} = {value}" for key, value in self.switches.items())

    @property
    def meaning(self) -> str:
        """What it is, in words."""
        return f"swiftdiff with {self.switched}: approximate, {_LIKENESS[self.is_alike]}"

    def applied_to(self, exact: SwiftdiffConfig) -> SwiftdiffConfig:
        """Return the switches of the exact engine with this line's in place of its own."""
        return SwiftdiffConfig.model_validate(exact.model_dump() | dict(self.switches))


# First all that keeps pictures alike, then it apart, then what does not.
_LINES = (
    ApproximateLine("reuse-3", {"controlnet_reuse": 3, "step_cache": 3} | _VAE | _LATE),
    ApproximateLine("reuse-5", {"controlnet_reuse": 5, "step_cache": 5} | _VAE | _LATE),
    ApproximateLine("vae-bf16", _VAE),
    ApproximateLine("bal10", _LATE, _ALL_ADAPTERS),
    ApproximateLine("step-cache-2", {"step_cache": 2}, _ALL_ADAPTERS),
    ApproximateLine("cn-reuse-2", {"controlnet_reuse": 2}, _ALL_ADAPTERS),
    ApproximateLine("guidance-above-1", {"guidance_interval": (1.0, 1000.0)}, _ALL_ADAPTERS, is_alike=False),
    ApproximateLine("bal40", {"bal_k": "40%"}, _ALL_ADAPTERS, is_alike=False),
    ApproximateLine("all-mild", _MILD | _VAE, is_alike=False),
    ApproximateLine("all-bold", _BOLD | _VAE, is_alike=False),
    ApproximateLine("float8", {"quantized_weights": "float8"}, is_alike=None, needs_torchao=True),
    ApproximateLine(
        "int8",
        {"quantized_weights": "int8", "compile_blocks": True},
        is_alike=None,
        needs_torchao=True,
        compiles=True,
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
