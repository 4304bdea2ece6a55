"""Captures graphs on the CPU as CUDA does on a GPU: fixed addresses, memory that a lane's graphs share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from swiftdiff.pipeline.cuda_graphs import Capture, CudaCapturer

NAN = float("nan")


class FakeCapturer(CudaCapturer):
    """A replay computes from the captured tensors into the captured outputs, and spoils other graphs'.

    On a GPU they are not always spoilt, but nothing keeps them from it.
    """

    def __init__(self) -> None:
        self.captured: list[nn.Module] = []
        self.num_waits = 0

    def place_of(self, device: torch.device) -> int:
        return threading.get_ident() if threading.current_thread().name.startswith("lane") else 0

    def new_pool(self) -> list[Sequence[torch.Tensor]]:
        return []

    def pool_bytes(self, pool: list[Sequence[torch.Tensor]]) -> int:
        return sum(tensor.nbytes for outputs in pool for tensor in outputs)

    def capture(self, module: nn.Module, inputs: Sequence[torch.Tensor], pool: Any) -> Capture:
        output = module(*inputs)
        outputs = _several(output)

        def replay() -> None:
            for others in pool:
                for tensor in others:
                    tensor.fill_(NAN)
            for there, new in zip(outputs, _several(module(*inputs)), strict=True):
                there.copy_(new)

        pool.append(outputs)
        self.captured.append(module)
        return Capture(replay, output)

    def wait(self, device: torch.device) -> None:
        self.num_waits += 1


def _several(output: Any) -> Sequence[torch.Tensor]:
    return (output,) if isinstance(output, torch.Tensor) else tuple(output)
