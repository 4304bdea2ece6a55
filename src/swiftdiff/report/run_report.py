"""Writes a run's report into its folder: tables, plot and, last of all, the summary."""

from __future__ import annotations

from collections.abc import Sequence

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import StorageError
from swiftdiff.report.plots import draw_latency
from swiftdiff.report.result import RunResult
from swiftdiff.report.summary import DEFAULT_PERCENTILES, summarize
from swiftdiff.report.tables import run_tables, to_csv, to_markdown

REPORT = "report.md"
TABLES = "tables"
PLOT = "plots/latency.png"


def read_result(folder: RunFolder, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> RunResult:
    """Return what the records in a run's folder come to, complete or not.

    Raises:
        StorageError: The folder is damaged.
    """
    summary = summarize(folder.read_records(), percentiles)
    return RunResult(folder.read_info(), tuple(folder.read_sessions()), summary)


def write_report(folder: RunFolder, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> RunResult:
    """Compute a run's numbers from its records and write them down.

    Raises:
        StorageError: The folder is damaged or cannot be written.
    """
    folder.summary_path.unlink(missing_ok=True)  # until the new one is there, nothing claims to be complete
    result = read_result(folder, percentiles)
    tables = run_tables(result, percentiles)
    for table in tables:
        folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    folder.write_text(REPORT, _to_markdown(result, percentiles))
    if result.summary.completed + result.summary.failed:
        plot = folder.path / PLOT
        try:
            plot.parent.mkdir(exist_ok=True)
            draw_latency(folder.read_records(), result, plot)
        except OSError as error:
            raise StorageError(f"cannot write {plot}: {error.strerror or error}") from error
    folder.write_json(folder.summary_path.name, result.to_json())
    return result


def _to_markdown(result: RunResult, percentiles: Sequence[float]) -> str:
    info = result.info
    state = "complete" if result.complete else f"INCOMPLETE: {result.remaining} requests were not served"
    head = [
        f"# {info.system} on {info.trace.replace(chr(92), '/').rpartition('/')[2]}",
        "",
        f"Run of {info.started_at}, {state}. Load: {info.options.load.describe()}. Model {info.model} on "
        f"{info.device}, engine {info.engine} ({info.exactness}). Trace SHA-256 `{info.trace_sha256}`.",
    ]
    if len(result.sessions) > 1:
        head += ["", f"Resumed: the records come from {len(result.sessions)} sessions."]
    parts = ["\n".join(head) + "\n", *(to_markdown(table) for table in run_tables(result, percentiles))]
    if result.summary.completed + result.summary.failed:
        parts.append(f"![latency over time and its distribution]({PLOT})\n")
    return "\n".join(parts)
