"""Writes a benchmark's report into its folder: tables, header and, last of all, the summary."""

from __future__ import annotations

from swiftdiff.bench.folder import ENVIRONMENT, BenchFolder
from swiftdiff.bench.lineup import MEANINGS
from swiftdiff.bench.requests import GUIDANCE_SCALE
from swiftdiff.bench.results import BenchResult, compute_results, doubts_of
from swiftdiff.bench.tables import bench_tables, describe_warmups
from swiftdiff.report.machine_lines import begin_line, machine_lines
from swiftdiff.report.tables import to_csv, to_markdown

REPORT = "report.md"
TABLES = "tables"
SUMMARY = "summary.json"


def write_bench_report(folder: BenchFolder, *, complete: bool) -> BenchResult:
    """Compute a benchmark's numbers from what is on disk and write them down.

    Raises:
        StorageError: The folder is damaged or cannot be written.
    """
    (folder.path / SUMMARY).unlink(
        missing_ok=True
    )  # until the new one is there, nothing claims to be complete
    result = read_bench_result(folder, complete=complete)
    for table in bench_tables(result):
        folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    folder.write_text(REPORT, _to_markdown(result))
    folder.write_json(SUMMARY, result.to_json())
    return result


def read_bench_result(folder: BenchFolder, *, complete: bool) -> BenchResult:
    """Return what the measurements on disk come to.

    Raises:
        StorageError: The folder is damaged.
    """
    return compute_results(
        folder.read_options(),
        folder.read_json(ENVIRONMENT),
        folder.read_measurements(),
        folder.path,
        complete=complete,
    )


def header(result: BenchResult) -> list[str]:
    """Return the lines that a reader needs to judge the tables: machine, software, what was done how."""
    options = result.options
    threads = "; ".join(
        f"{stage.model} {stage.stock_threads}" for stage in result.stages if stage.view == "same-hardware"
    )
    lines = [
        *(doubt.sentence for doubt in doubts_of(result)),
        *machine_lines(result.environment),
        begin_line(result.environment, result.load_at_start, result.other_share),
        f"Requests: {options.steps} steps, guidance {GUIDANCE_SCALE}, one picture of the model's own size, "
        f"float32, Euler; {options.repeats} repeats with other prompts and seeds, the same for all systems, "
        f"which take turns; {describe_warmups(options.warmups)}.",
    ]
    if threads:
        lines.append(f"Threads of stock in the view same hardware, tried out first: {threads}.")
    lines.append(_describe_emulation(result))
    return lines


def _describe_emulation(result: BenchResult) -> str:
    parts = ["Emulated: no store's latency or bandwidth, adapters are local files"]
    if any(stage.view == "one-core" for stage in result.stages):
        parts.append(
            "in the view one device = one core, each core stands for a device: stock's process is pinned to "
            "one core with one thread, swiftdiff's to two, with one thread for each of its two lanes"
        )
    if any(stage.model.startswith("sdxl") for stage in result.stages):
        parts.append("the sdxl presets have random weights in SDXL's topology")
    return "; ".join(parts) + "."


def _to_markdown(result: BenchResult) -> str:
    names = dict.fromkeys(cell.system for stage in result.stages for cell in stage.cells)
    head = ["# Benchmark: stock diffusers and swiftdiff", ""]
    head += [f"- {line}" for line in header(result)]
    head += ["", "Systems:", ""] + [f"- **{name}**: {MEANINGS[name]}." for name in names]
    parts = ["\n".join(head) + "\n", *(to_markdown(table) for table in bench_tables(result))]
    if result.failures:
        parts.append("## Failures\n\n" + "\n".join(f"- {failure}" for failure in result.failures) + "\n")
    return "\n".join(parts)
