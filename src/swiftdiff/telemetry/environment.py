"""Owns the description of the machine and software that a run was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import swiftdiff

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pandas", "pillow")


def describe_environment(argv: list[str]) -> dict[str, Any]:
    """Return what someone needs to judge or repeat a run's numbers, ready for JSON.

    Args:
        argv: The command line as it was given.
    """
    return {
        "swiftdiff": swiftdiff.__version__,
        "git_commit": _git_commit(),
        "command": argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "environment_variables": {
            name: os.environ[name]
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
            if name in os.environ
        },
        **_describe_torch(),
    }


def _describe_torch() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:  # nothing was computed, so do not spend seconds on the import
        return {}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "torch_threads": torch.get_num_threads(),
        "torch_build": torch.__config__.show(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
    }


def _git_commit() -> str | None:
    """Return the commit of the checkout that swiftdiff is imported from, ``+`` marking local changes."""
    folder = Path(swiftdiff.__file__).resolve().parent
    if "site-packages" in folder.parts:
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_bytes() -> int | None:
    import psutil

    return int(psutil.virtual_memory().total)
