"""Writes the report of a sweep of k into its folder: tables, plot, the engine's table and the summary."""

from __future__ import annotations

import dataclasses

from swiftdiff.adapters.bal_table import BalTable, TableEntry
from swiftdiff.compare.sweep_k_folder import SweepFolder
from swiftdiff.compare.sweep_k_options import LORA_SCALE
from swiftdiff.compare.sweep_k_page import make_page
from swiftdiff.compare.sweep_k_plot import draw_sweep
from swiftdiff.compare.sweep_k_results import SweepResult, read_result
from swiftdiff.compare.sweep_k_tables import detail_table, sweep_tables
from swiftdiff.errors import StorageError
from swiftdiff.report.html import write_html
from swiftdiff.report.tables import to_csv, to_markdown

REPORT = "report.md"
PAGE = "report.html"
TABLES = "tables"
PLOT = "frontier.png"
BAL_TABLE = "bal-table.toml"
SUMMARY = "summary.json"


def write_sweep_report(folder: SweepFolder, *, complete: bool) -> SweepResult:
    """Compute a sweep's numbers from what is on disk and write them down.

    The table for the engine is written of a complete sweep only: a part of the pictures decides nothing.

    Raises:
        StorageError: The folder is damaged or cannot be written.
    """
    for name in (SUMMARY, BAL_TABLE):  # until the new one is there, nothing claims to be complete
        (folder.path / name).unlink(missing_ok=True)
    result = read_result(folder, complete=complete)
    for table in (*sweep_tables(result), detail_table(result)):
        if table.rows:
            folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    if result.overall:
        _draw(folder, result)
    folder.write_text(REPORT, _to_markdown(result))
    if complete and (table_of_k := make_bal_table(result)) is not None:
        folder.write_text(BAL_TABLE, table_of_k.to_toml())
    write_html(folder.path / PAGE, make_page(folder, result))
    folder.write_json(SUMMARY, result.to_json())
    return result


def make_bal_table(result: SweepResult) -> BalTable | None:
    """Return what ``bal_k = "auto"`` reads; None if no LoRA could be measured."""
    options, subject = result.options, result.subject
    measured = [each for each in result.loras if each.error is None and each.points]
    if subject is None or not measured:
        return None
    return BalTable(
        format=1,
        model=options.config.model,
        weights_sha256=subject.weights_sha256,
        scheduler=options.config.scheduler,
        num_inference_steps=options.num_inference_steps,
        margin={str(name): share for name, share in result.margin.items()},
        loras={
            each.lora: TableEntry(
                k=each.largest_k,
                sha256=subject.lora_sha256[each.lora],
                scale=LORA_SCALE,
                pictures=options.prompts,
            )
            for each in measured
        },
    )


def _draw(folder: SweepFolder, result: SweepResult) -> None:
    plot = folder.path / PLOT
    partial = plot.with_name(f"partial-{PLOT}")
    try:
        draw_sweep(result, partial)
        partial.replace(plot)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write {plot}: {error.strerror or error}") from error


def _to_markdown(result: SweepResult) -> str:
    options = result.options
    state = "complete" if result.complete else "INCOMPLETE"
    source = (
        "captions made up" if options.trace is None else f"requests of {options.trace.rpartition('/')[2]}"
    )
    head = [
        f"# k for the LoRAs of {options.config.model.rpartition('/')[2]}",
        "",
        f"Sweep, {state}. {source[:1].upper()}{source[1:]}, seed {options.seed}, scheduler "
        f"{options.config.scheduler}, {options.config.dtype} on {options.config.device}, LoRA scale "
        f"{LORA_SCALE:g}. Pictures are made with the LoRA patched at exactly step k by the engine's own "
        "loading; latencies with LoRAs that take their load time and nothing in memory.",
    ]
    parts = ["\n".join(head) + "\n", *(to_markdown(table) for table in sweep_tables(result))]
    if result.overall:
        parts.append(f"![quality and latency against k]({PLOT})\n")
        parts.append(to_markdown(dataclasses.replace(detail_table(result), note="")))
    parts += [f"FAILED: {failure}\n" for failure in result.failures]
    return "\n".join(parts)
