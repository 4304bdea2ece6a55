"""Owns the reading of peak memory, of the process and of a device."""

from __future__ import annotations

import sys


def peak_host_bytes() -> int:
    """Return the most resident memory that this process has had, in bytes; 0 where it is not known."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def peak_device_bytes(device: str) -> int | None:
    """Return the most memory that torch has held on ``device``, in bytes; None if it is no CUDA device."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device))


def peak_bytes_by_device() -> dict[str, int]:
    """Return the most memory that torch has held on each CUDA device on which it held any, in bytes."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    peaks = {f"cuda:{i}": int(torch.cuda.max_memory_allocated(i)) for i in range(torch.cuda.device_count())}
    return {device: peak for device, peak in peaks.items() if peak}
