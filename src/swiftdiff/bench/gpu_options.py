"""Owns how a benchmark on GPUs is asked for: the file ``bench-gpu.json``, by which it is resumed."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from swiftdiff.bench.folder import BenchFolder
from swiftdiff.bench.settings import PAPER_SETTINGS, AdapterSetting
from swiftdiff.config import Dtype
from swiftdiff.files import read_model

DRY_MODEL, DRY_STEPS = "sdxl-thin", 2


class GpuBenchOptions(BaseModel):
    """What is measured.

    Attributes:
        model: As configs name it.
        settings: Names of adapter settings, such as ``1C/1L``; None is the paper's seven.
        systems: Names from the line-up, beside stock; None is all that the GPUs allow.
        repeats: Measurements of each request by each system, if the minutes allow.
        steps: Denoising steps.
        warmups: Short requests of each setting that each system serves first, not counted.
        minutes: How long one session may take; what does not fit is left for a resumed one.
        gpus: How many GPUs are used; None is all there are.
        dtype: Type of weights and activations.
        dry_run: Compute on the CPU, to try the command; no number says anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    model: str = "sdxl"
    settings: tuple[str, ...] | None = None
    systems: tuple[str, ...] | None = None
    repeats: Annotated[int, Field(ge=1)] = 5
    steps: Annotated[int, Field(ge=1)] = 50
    warmups: Annotated[int, Field(ge=0)] = 1
    minutes: Annotated[float, Field(gt=0)] = 8.0
    gpus: Annotated[int, Field(ge=1)] | None = None
    dtype: Dtype = "float16"
    dry_run: bool = False

    @classmethod
    def dry(cls) -> GpuBenchOptions:
        """Return the same benchmark as small as it gets, on the CPU."""
        return cls(model=DRY_MODEL, steps=DRY_STEPS, repeats=1, dtype="float32", dry_run=True)

    @property
    def adapter_settings(self) -> tuple[AdapterSetting, ...]:
        """The settings to measure, in order, each once."""
        if self.settings is None:
            return PAPER_SETTINGS
        return tuple(dict.fromkeys(AdapterSetting.parse(name) for name in self.settings))

    @property
    def device(self) -> str:
        """Where it computes first."""
        return "cpu" if self.dry_run else "cuda:0"


class GpuBenchFolder(BenchFolder):
    """The folder of a benchmark on GPUs: as any benchmark's, with other options, and these besides.

    ::

        work.json         what a step's arithmetic was counted to be
        clocks-<n>.csv    clocks, temperature and power in session n, by nvidia-smi
    """

    options_name: ClassVar[str] = "bench-gpu.json"

    def read_gpu_options(self) -> GpuBenchOptions:
        """Return ``bench-gpu.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return read_model(self.path / self.options_name, GpuBenchOptions)
