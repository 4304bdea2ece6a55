"""Writes the report of a benchmark on GPUs into its folder, and what is to be published of it elsewhere."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from swiftdiff.bench.gpu_options import GpuBenchFolder
from swiftdiff.bench.gpu_results import GpuBenchResult, gpu_doubts, read_gpu_result
from swiftdiff.bench.gpu_session import GpuBenchEnd
from swiftdiff.bench.gpu_tables import gpu_tables
from swiftdiff.bench.gpus import gpu_slug
from swiftdiff.bench.report import REPORT, SUMMARY, TABLES
from swiftdiff.bench.requests import CONTROLS, GUIDANCE_SCALE
from swiftdiff.bench.tables import describe_warmups
from swiftdiff.errors import StorageError
from swiftdiff.models.presets import PRESETS
from swiftdiff.report.machine_lines import software_of
from swiftdiff.report.tables import to_csv, to_markdown

_NOT_PUBLISHED = ("images", CONTROLS)  # gigabytes of noise, and what the code draws again


def write_gpu_report(end: GpuBenchEnd) -> GpuBenchResult:
    """Compute a benchmark's numbers from what is on disk and write them down.

    Raises:
        StorageError: The folder is damaged or cannot be written.
    """
    folder = end.folder
    (folder.path / SUMMARY).unlink(missing_ok=True)  # nothing claims to be whole until the new one is there
    result = read_gpu_result(folder, outcome=end.outcome, cut=end.cut)
    for table in gpu_tables(result):
        folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    folder.write_text(REPORT, _to_markdown(result))
    folder.write_json(SUMMARY, result.to_json())
    return result


def why_not_published(result: GpuBenchResult) -> str | None:
    """Return why a result is not worth keeping; None if it is."""
    if result.options.dry_run:
        return "it was a dry run"
    if result.outcome not in ("complete", "cut"):
        return f"it was {result.outcome}; --resume goes on"
    return None if result.stage.cells else "nothing was measured"


def publish(folder: GpuBenchFolder, result: GpuBenchResult, root: Path) -> Path:
    """Copy what is worth keeping into a folder named after the GPU; return it.

    What was published of the same benchmark before, as far as it was then, is replaced.

    Args:
        folder: The benchmark's, with its report.
        result: What the report says; `why_not_published` knows no reason.
        root: Such as ``results/published``.

    Raises:
        StorageError: It cannot be written; nothing half-written is left.
    """
    most = max(result.num_gpus.values(), default=1)
    name = "-".join((*([f"{most}x"] if most > 1 else []), gpu_slug(result.gpu_name), "bench"))
    target = root / name
    try:
        names = (root / (name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
        target = next(each for each in names if not each.exists() or _is_same(each, folder))
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".publishing-", dir=root) as temporary:
            copy, old = Path(temporary) / name, Path(temporary) / "old"
            shutil.copytree(folder.path, copy, ignore=shutil.ignore_patterns(*_NOT_PUBLISHED))
            if target.exists():
                target.rename(old)
            try:
                copy.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
    except (OSError, shutil.Error) as error:
        raise StorageError(
            f"cannot write {target}: {error}; all of it is in {folder.path}, "
            f"to publish it elsewhere: swiftdiff bench-gpu --resume {folder.path} --publish DIR"
        ) from error
    return target


def _is_same(published: Path, folder: GpuBenchFolder) -> bool:
    """Tell whether a folder holds what was published of a benchmark before: the beginning of its records."""
    if not (published / folder.raw_path.name).is_file():
        return False
    with (published / folder.raw_path.name).open("rb") as old, folder.raw_path.open("rb") as new:
        return bool(first := old.readline()) and first == new.readline()


def gpu_header(result: GpuBenchResult) -> list[str]:
    """Return the lines that a reader needs to judge the tables: device, software, what was done how."""
    environment, options = result.environment, result.options
    sessions: list[dict[str, Any]] = environment["sessions"]
    began = datetime.fromisoformat(sessions[0]["started_at"]) if sessions else None
    lines = [
        *(doubt.sentence for doubt in gpu_doubts(result)),
        *_device_lines(result),
        f"Software: {software_of(environment)}, {environment['platform']}.",
        f"Command: {' '.join(environment['command'])}",
        f"Model: {options.model}{', random weights' if options.model in PRESETS else ''}, "
        f"{options.dtype}, {options.steps} steps, guidance {GUIDANCE_SCALE}, one picture of the model's own "
        f"size, Euler; up to {options.repeats} repeats with other prompts and seeds, the same for all; "
        f"{describe_warmups(options.warmups)}.",
    ]
    if environment.get("adapters_of") is not None:
        lines.append(
            f"{options.model} has no adapters of its own: ControlNets and LoRAs are the random ones of "
            f"{environment['adapters_of']}, which show time and make no pictures worth looking at."
        )
    if began is not None:
        several = len(sessions) > 1
        lines.append(
            f"Began {began:%Y-%m-%d %H:%M}, {len(sessions)} session{'s' if several else ''} of at most "
            f"{options.minutes:g} minutes{'; lines may be compared across them' if several else ''}."
        )
    if result.cut:
        lines.append(f"Left out, for it did not fit into the minutes: {result.cut}.")
    return lines


def _device_lines(result: GpuBenchResult) -> list[str]:
    environment = result.environment
    lines = []
    for gpu in environment["nvidia_smi"]:
        lines.append(
            f"GPU {gpu['index']}: {gpu['name']}, driver {gpu['driver_version']}, {gpu['memory.total']} MiB, "
            f"SM clock up to {gpu['clocks.max.sm']} MHz, power limit {gpu['power.limit']} W."
        )
    first = next((each["ceiling"] for each in environment["sessions"] if "ceiling" in each), None)
    if first is not None:
        sides = ", ".join(f"{side}: {rate:.3g}" for side, rate in first["by_side"].items())
        cuda = f"CUDA {first['cuda']}, cuDNN {first['cudnn']}; " if first["cuda"] else ""
        lines.append(
            f"Matmul ceiling of {first['device']}: {result.ceiling_tflops:.3g} TFLOP/s in {first['dtype']}, "
            f"the highest before and after ({cuda}TFLOP/s by side before: {sides})."
        )
    clocks = result.clocks
    if clocks is not None:
        lines.append(
            f"While busy: SM clock {clocks.median_mhz:.0f} MHz at the median ({clocks.low_mhz:.0f} to "
            f"{clocks.high_mhz:.0f}), at most {clocks.max_celsius:.0f} °C and {clocks.max_watts:.0f} W."
        )
    lines.append(f"Host: {environment['cpu']}, {environment['usable_cores']} usable cores.")
    return lines


def _to_markdown(result: GpuBenchResult) -> str:
    title = "# Dry run of the GPU benchmark" if result.options.dry_run else "# Benchmark on GPUs"
    head = [f"{title}: stock diffusers and swiftdiff", "", *(f"- {line}" for line in gpu_header(result))]
    head += ["", "Systems:", ""]
    head += [f"- **{line.contender.name}**: {line.meaning}." for line in result.lines]
    parts = ["\n".join(head) + "\n", *(to_markdown(table) for table in gpu_tables(result))]
    if result.failures:
        parts.append("## Failures\n\n" + "\n".join(f"- {failure}" for failure in result.failures) + "\n")
    return "\n".join(parts)
