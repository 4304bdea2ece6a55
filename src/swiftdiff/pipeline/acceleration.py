"""Owns what makes networks faster besides replaying them: memory layout, compiled blocks, 8-bit weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from swiftdiff.pipeline.compiled_blocks import compile_blocks
from swiftdiff.pipeline.cuda_graphs import CudaGraphs
from swiftdiff.pipeline.kernels import tuned, with_joint_products
from swiftdiff.pipeline.quantized import Precision, quantized

Part = TypeVar("Part", bound=nn.Module)


@dataclass(frozen=True)
class Acceleration:
    """How the networks of one engine are made faster.

    Attributes:
        tune: Run them by `kernels.tuned`.
        channels_last: Keep the weights of convolutions channels last.
        compiled: Compile the transformer blocks, with this backend of ``torch.compile``; None does not.
        precision: Multiply by copies of the linear layers' weights in 8 bits; None does not.
        cuda_graphs: Where CUDA graphs are kept; None is a place of its own for each part.
    """

    tune: bool = False
    channels_last: bool = False
    compiled: str | None = None
    precision: Precision | None = None
    cuda_graphs: CudaGraphs | None = None

    @property
    def can_be_traced(self) -> bool:
        """Whether TorchScript can record what is made of a part; if not, a CPU runs it eagerly."""
        return self.compiled is None and self.precision is None

    def lay_out(self, network: nn.Module) -> None:
        """Arrange a stock network's weights; before anybody keeps copies of them."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def apply(self, part: Part, *, fixed: bool = False) -> Part:
        """Return a module that computes what ``part`` does, from the same weights.

        Args:
            part: A network, or a part of one, that was laid out.
            fixed: Its weights will never change.
        """
        if self.precision is not None:
            part = quantized(part, self.precision)
        elif self.tune and self.compiled is None:
            part = tuned(part, fixed=fixed)
        elif self.tune:  # the compiler chooses kernels itself
            part = with_joint_products(part)
        return part if self.compiled is None else compile_blocks(part, self.compiled)


PLAIN = Acceleration()
