"""Asks nvidia-smi about the GPUs: what they are, whether others use them, and how fast they ran meanwhile.

Where there is no nvidia-smi nothing is known, and nothing fails.
"""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

_PROGRAM = "nvidia-smi"
_ASKED = (
    "index",
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "utilization.gpu",
    "clocks.max.sm",
    "clocks.max.memory",
    "power.limit",
    "temperature.gpu",
    "mig.mode.current",
    "ecc.mode.current",
)
_LOGGED = (
    "timestamp",
    "index",
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "utilization.gpu",
)
_LOG_EVERY_MS = 500
_TIMEOUT_S = 20.0
_END_S = 5.0
_BUSY_PERCENT = 50.0
_MAX_IDLE_PERCENT = 5.0
_MAX_IDLE_MIB = 1024.0


def query_gpus() -> list[dict[str, str]]:
    """Return what nvidia-smi says of each GPU, by its own names; nothing without it."""
    command = [_PROGRAM, f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [dict(zip(_ASKED, row, strict=True)) for row in rows if len(row) == len(_ASKED)]


def describe_use_by_others(gpus: Iterable[dict[str, str]]) -> str:
    """Return who else seems to use the GPUs, asked before anything of ours ran; empty if nobody does."""
    found = []
    for gpu in gpus:
        used, busy = _number(gpu["memory.used"]), _number(gpu["utilization.gpu"])
        if (used or 0) > _MAX_IDLE_MIB or (busy or 0) > _MAX_IDLE_PERCENT:
            found.append(f"GPU {gpu['index']} had {used or 0:.0f} MiB in use and was {busy or 0:.0f} % busy")
    return "; ".join(found)


def smallest_memory_bytes(gpus: Iterable[dict[str, str]]) -> float | None:
    """Return the memory of the smallest GPU, in bytes; None if that is not known."""
    return min((mib * 2**20 for gpu in gpus if (mib := _number(gpu["memory.total"]))), default=None)


@dataclass(frozen=True)
class Clocks:
    """How GPUs ran while they were busy.

    Attributes:
        median_mhz: Of the streaming multiprocessors' clock.
        low_mhz: Its lowest.
        high_mhz: Its highest.
        max_celsius: Highest temperature.
        max_watts: Highest power draw.
        samples: How often all of this was read.
    """

    median_mhz: float
    low_mhz: float
    high_mhz: float
    max_celsius: float
    max_watts: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


class ClockLog:
    """Lets nvidia-smi write clocks, temperature and power into a file while something is measured.

    Args:
        path: CSV file to write; not made without nvidia-smi.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [
            _PROGRAM,
            f"--query-gpu={','.join(_LOGGED)}",
            "--format=csv,noheader,nounits",
            f"--loop-ms={_LOG_EVERY_MS}",
        ]
        try:
            with self._path.open("wb") as file:
                # A group of its own, which Ctrl-C does not reach, but no session that would outlive ours.
                self._process = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.DEVNULL, process_group=0
                )
        except OSError:
            self._path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def read_clocks(paths: Iterable[Path]) -> Clocks | None:
    """Return what logs say of the moments at which a GPU was busy; None if none was.

    Lines that were cut off, and values that a GPU does not tell, are passed over.
    """
    clocks, temperatures, watts = [], [0.0], [0.0]
    for path in paths:
        for row in csv.reader(path.read_text(errors="replace").splitlines(), skipinitialspace=True):
            values = [_number(cell) for cell in row]
            if len(row) != len(_LOGGED) or (values[6] or 0.0) < _BUSY_PERCENT or values[2] is None:
                continue
            clocks.append(values[2])
            temperatures.append(values[4] or 0.0)
            watts.append(values[5] or 0.0)
    if not clocks:
        return None
    return Clocks(median(clocks), min(clocks), max(clocks), max(temperatures), max(watts), len(clocks))


def gpu_slug(name: str) -> str:
    """Return a GPU's name as part of a folder's: ``NVIDIA H100 80GB HBM3`` is ``h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia")).strip("-") or "gpu"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # [N/A], [Not Supported], a timestamp
        return None
