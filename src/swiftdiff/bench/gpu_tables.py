"""Owns which tables a benchmark on GPUs has and what is in them. All fit a terminal of 80 columns."""

from __future__ import annotations

from dataclasses import replace

from swiftdiff.bench.cell import CellResult
from swiftdiff.bench.gpu_results import GpuBenchResult, gpu_doubts
from swiftdiff.bench.lineup import ALL_OFF, is_ablation
from swiftdiff.bench.tables import (
    describe_spread,
    label,
    lora_table,
    make_table,
    picture_table,
    spread_cells,
    stage_table,
)
from swiftdiff.report.tables import AUTO, Cell, Column, Table

_APART = "Lines other than stock and swiftdiff are measured minutes after these, at the same requests."


def gpu_tables(result: GpuBenchResult) -> list[Table]:
    """Return all tables; empty ones are left out."""
    tables = [
        _speed_table(result),
        _ablation_table(result),
        _work_table(result),
        stage_table(result.stage),
        lora_table(result.stage),
        _start_table(result),
        picture_table(result.stage),
    ]
    doubts = "".join(f" – {doubt.flag}" for doubt in gpu_doubts(result) if doubt.flag)
    return [replace(table, title=table.title + doubts) for table in tables if table.rows]


def _speed_table(result: GpuBenchResult) -> Table:
    cells = [cell for cell in result.stage.cells if not is_ablation(cell.system)]
    rows = tuple(
        (
            label(cell),
            "≈" if cell.exactness == "approximate" else "=",
            cell.seconds.median,
            *spread_cells(cell.speedup),
            cell.restore_s,
            cell.device_seconds,
            cell.seconds.count,
        )
        for cell in cells
    )
    columns = (
        Column("setting, system"),
        Column(""),
        Column("seconds", ".2f"),
        Column("× stock", ".2f"),
        Column("low", ".2f"),
        Column("high", ".2f"),
        Column("restore", ".3f"),
        Column(_device_seconds(result), ".2f"),
        Column("n", "d"),
    )
    note = (
        "= is exact, ≈ approximate: how alike its pictures are is measured on a trained model, not here; the "
        "list of systems says what came of it. "
        "Medians. seconds: from the request to its picture and to the model restored; restore is the last "
        "part of it. × stock: median of the repeats' ratios, each within one repeat; "
        f"{describe_spread(cells)}. {_APART} {_device_seconds(result)}: seconds times the "
        f"{'cores' if result.options.dry_run else 'GPUs'} that the system occupies."
    )
    return make_table(result.stage, ("speed", "speed"), columns, rows, note)


def _ablation_table(result: GpuBenchResult) -> Table:
    cells = [cell for cell in result.stage.cells if is_ablation(cell.system)]
    rows = tuple(
        (
            label(cell),
            cell.seconds.median,
            *spread_cells(cell.speedup),
            1.0 if cell.system == ALL_OFF else spread_cells(cell.over_off)[0],
            cell.seconds.count,
        )
        for cell in cells
    )
    columns = (
        Column("setting, system"),
        Column("seconds", ".2f"),
        Column("× stock", ".2f"),
        Column("low", ".2f"),
        Column("high", ".2f"),
        Column("× off", ".2f"),
        Column("n", "d"),
    )
    note = (
        "Each switch alone, on top of the engine with every switch off, which patches LoRAs in place and "
        f"else computes as stock does. × off: against that; {describe_spread(cells)}. {_APART}"
    )
    return make_table(result.stage, ("ablation", "each switch alone"), columns, rows, note)


def _work_table(result: GpuBenchResult) -> Table:
    rows = tuple(
        (label(cell), tflop, tflop / cell.seconds.median, _percent(result, cell))
        for cell in result.stage.cells
        if not is_ablation(cell.system) and (tflop := result.tflop_of(cell)) is not None
    )
    columns = (
        Column("setting, system"),
        Column("TFLOP", AUTO),
        Column("TFLOP/s", AUTO),
        Column("% of ceiling", ".1f"),
    )
    work = result.work
    counted = (
        f"a guided UNet step is {work.unet_step:.3g}, a guided ControlNet step {work.controlnet_step:.3g}, "
        f"decoding {work.vae_decode:.3g}"
        if work is not None
        else "nothing"
    )
    note = (
        f"TFLOP: stock's work, counted from the layers' shapes: {counted}; text encoders are not counted. "
        "TFLOP/s: that over all of the request's seconds, loading and restoring too. The ceiling is that of "
        "large matmuls on as many GPUs. Approximate systems leave work out and are not here."
    )
    return make_table(result.stage, ("work", "share of the matmul ceiling"), columns, rows, note)


def _start_table(result: GpuBenchResult) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            system.name,
            system.build_s,
            system.warm_up_s,
            sum(system.first_s.values()) if system.first_s else None,
            system.capture_s,
            system.captured,
            system.host_bytes / 2**30,
            max(system.device_bytes.values()) / 2**30 if system.device_bytes else None,
        )
        for system in result.systems
    ]
    columns = (
        Column("system"),
        Column("build s", ".1f"),
        Column("warm s", ".1f"),
        Column("first s", ".1f"),
        Column("capture s", ".1f"),
        Column("again", "d"),
        Column("host", ".1f"),
        Column("GPU", ".1f"),
    )
    note = (
        "build: to load or make the model where it computes. warm: the system's own warm-up; first: the "
        "first request of every setting, of few steps, which loads ControlNets. capture: of both, seconds "
        "for tracing, capturing and compiling graphs. again: graphs made while requests were measured; LoRAs "
        "should make none. host, GPU: GiB of memory, the most that the process, and torch on its fullest "
        "GPU, have held."
    )
    return make_table(result.stage, ("start", "start, capture and memory"), columns, tuple(rows), note)


def _percent(result: GpuBenchResult, cell: CellResult) -> float | None:
    share = result.share_of(cell)
    return None if share is None else 100 * share


def _device_seconds(result: GpuBenchResult) -> str:
    return "core-s" if result.options.dry_run else "GPU-s"
