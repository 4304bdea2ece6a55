"""Measures how fast a device multiplies large matrices: the ceiling for a model's arithmetic."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from swiftdiff.errors import ConfigError

SIDES = (4096, 8192, 16384)
CPU_SIDES = (256, 512)
_SECONDS = 0.5  # of each side: long enough for clocks to settle under the load
_WARMUPS = 3


@dataclass(frozen=True)
class Ceiling:
    """The highest rate over the sides that were tried, and what it was measured on.

    Attributes:
        tflops: 10^12 floating-point operations a second, a multiplication and an addition counted as two.
        by_side: The rate by side of the square matrices.
        dtype: Their type.
        device: The device's name.
        memory_bytes: Of the device; 0 for a CPU.
        cuda: Version that torch was built for; None without.
        cudnn: Its version; None without.
    """

    tflops: float
    by_side: dict[int, float]
    dtype: str
    device: str
    memory_bytes: int
    cuda: str | None
    cudnn: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def measure_ceiling(
    device: str,
    dtype: str,
    *,
    seconds: float = _SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Ceiling:
    """Multiply random square matrices for a while and return the rate.

    Random values, for zeros draw less power and flatter the clock.

    Args:
        device: A torch device.
        dtype: Name of a torch dtype.
        seconds: For each side.
        clock: Seconds from any moment.
    """
    import torch

    is_cuda = torch.device(device).type == "cuda"

    def now() -> float:
        if is_cuda:
            torch.cuda.synchronize(device)
        return clock()

    by_side: dict[int, float] = {}
    for side in SIDES if is_cuda else CPU_SIDES:
        left, right = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
        for _ in range(_WARMUPS):
            torch.mm(left, right)
        count, batch = 0, 1
        began = now()
        while (passed := now() - began) < seconds or not count:
            for _ in range(batch):
                torch.mm(left, right)
            count += batch
            batch = min(2 * batch, 256)  # few waits, or the device would idle between them
        by_side[side] = 2.0 * side**3 * count / passed / 1e12
    return Ceiling(
        tflops=max(by_side.values()),
        by_side=by_side,
        dtype=dtype,
        device=torch.cuda.get_device_name(device) if is_cuda else "CPU",
        memory_bytes=torch.cuda.get_device_properties(device).total_memory if is_cuda else 0,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if is_cuda else None,  # type: ignore[no-untyped-call]
    )


class CeilingProcess:
    """Measures in a process of its own, whose end gives the device's memory back."""

    def __init__(self, device: str, dtype: str) -> None:
        self._device = device
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._future: Future[Ceiling] = self._pool.submit(measure_ceiling, device, dtype)

    def result(self) -> Ceiling:
        """Wait for the result and end the process.

        Raises:
            ConfigError: The device or the process failed.
        """
        try:
            return self._future.result()
        except Exception as error:  # whatever torch or a driver says
            raise ConfigError(f"{self._device} cannot multiply matrices: {error}") from error
        finally:
            self._pool.shutdown()
