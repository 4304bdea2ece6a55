"""Owns which tables a benchmark has and what is in them. All fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from swiftdiff.bench.cell import STAGE_GROUPS, CellResult
from swiftdiff.bench.lineup import ABLATION, ALL_OFF, MAIN, STOCK, is_ablation
from swiftdiff.bench.paired import Spread
from swiftdiff.bench.requests import WARMUP_STEPS
from swiftdiff.bench.results import BenchResult, StageResult, doubts_of
from swiftdiff.report.tables import AUTO, Cell, Column, Table

_METHODS = {
    "range": "low and high are the lowest and highest of the repeats",
    "bootstrap95": "low and high are a bootstrap 95 % interval of the median",
}
_VIEW_TITLES = {"same-hardware": "same hardware", "one-core": "one device = one core", "gpu": "GPU"}


def bench_tables(result: BenchResult) -> list[Table]:
    """Return all tables, those of one model and view together; empty ones are left out."""
    tables: list[Table] = []
    for stage in result.stages:
        tables += [
            _speed_table(stage),
            _ablation_table(stage),
            stage_table(stage),
            lora_table(stage),
            picture_table(stage),
            _process_table(stage),
        ]
    doubts = "".join(f" – {doubt.flag}" for doubt in doubts_of(result) if doubt.flag)
    return [replace(table, title=table.title + doubts) for table in tables if table.rows]


def _speed_table(stage: StageResult) -> Table:
    cells = [cell for cell in stage.cells if cell.system == STOCK or cell.system in MAIN]
    rows = tuple(
        (
            label(cell),
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
        Column("seconds", ".2f"),
        Column("× stock", ".2f"),
        Column("low", ".2f"),
        Column("high", ".2f"),
        Column("restore", ".3f"),
        Column("core-s", ".2f"),
        Column("n", "d"),
    )
    note = (
        "Medians. seconds: from the request to its picture and to the model restored; restore is the last "
        "part of it. × stock: median of the repeats' ratios, each within one repeat; "
        f"{describe_spread(stage.cells)}. core-s: seconds times the cores that the system may use."
    )
    return make_table(stage, ("speed", "speed"), columns, rows, note)


def _ablation_table(stage: StageResult) -> Table:
    cells = [cell for cell in stage.cells if cell.system in ABLATION]
    rows = tuple(
        (
            label(cell),
            cell.seconds.median,
            *spread_cells(cell.speedup),
            *(spread_cells(cell.over_off) if cell.system != ALL_OFF else (1.0, None, None)),
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
        Column("off low", ".2f"),
        Column("off high", ".2f"),
    )
    note = (
        "Each switch alone, on top of the engine with every switch off, which patches LoRAs in place and "
        f"else computes as stock does. × off: against that; {describe_spread(stage.cells)}. "
        "Prefetching is not here: it acts on requests that wait."
    )
    return make_table(stage, ("ablation", "each switch alone"), columns, rows, note)


def stage_table(stage: StageResult) -> Table:
    """Return where the time goes, ablation lines left out."""
    cells = [cell for cell in stage.cells if not is_ablation(cell.system)]
    rows = tuple((label(cell), *cell.stages_s.values(), sum(cell.stages_s.values())) for cell in cells)
    columns = (
        Column("setting, system"),
        *(Column(group, ".2f") for group in STAGE_GROUPS),
        Column("all", ".2f"),
    )
    note = (
        "Mean seconds for which the request stood in each stage; they add up. LoRA: load or wait, and patch; "
        "CNet: control images, and loading or waiting for ControlNets. What a system computes at the same "
        "time is in the stage that it shortens."
    )
    return make_table(stage, ("stages", "where the time goes"), columns, rows, note)


def lora_table(stage: StageResult) -> Table:
    """Return what one LoRA costs, ablation lines left out."""
    cells = [cell for cell in stage.cells if cell.setting.num_loras == 1 and not is_ablation(cell.system)]
    rows = tuple(
        (
            label(cell),
            *(1000 * seconds for seconds in cell.lora_s.values()),
            1000 * sum(cell.lora_s.values()),
            *spread_cells(cell.lora_speedup),
            None if cell.lora_ready_s is None else 1000 * cell.lora_ready_s,
        )
        for cell in cells
    )
    columns = (
        Column("ms"),
        Column("load", AUTO),
        Column("patch", AUTO),
        Column("restore", AUTO),
        Column("all", AUTO),
        Column("× stock", ".0f"),
        Column("low", ".0f"),
        Column("high", ".0f"),
        Column("ready", AUTO),
    )
    loras = {cell.setting.name: cell.loras[0] for cell in cells if cell.loras}
    named = "".join(f" {setting} has {lora}." for setting, lora in loras.items())
    note = (
        "Medians of what a request pays for its LoRA: it stands still while it loads, is patched, and is "
        "taken off again. stock and swiftdiff read it from its file for every request, through the system's "
        "file cache. ready: from the request until it was read, beside other work, for systems that tell. "
        f"× stock: paired; {describe_spread(stage.cells)}.{named}"
    )
    return make_table(stage, ("one-lora", "one LoRA, from load to restored"), columns, rows, note)


def picture_table(stage: StageResult) -> Table:
    """Return how far pictures are from stock's."""
    rows = []
    problems: list[str] = []
    for cell in stage.cells:
        pictures = cell.pictures
        if pictures is None:
            continue
        problems += pictures.problems
        if pictures.pairs:
            rows.append(
                (
                    label(cell),
                    cell.exactness or "",
                    pictures.max_abs,
                    pictures.mean_abs,
                    pictures.identical,
                    len(pictures.pairs),
                )
            )
    columns = (
        Column("setting, system"),
        Column("declares"),
        Column("max", "d"),
        Column("mean", ".4f"),
        Column("identical", "d"),
        Column("pictures", "d"),
    )
    note = "Absolute pixel differences from stock's picture of the same request, in levels of 255."
    if problems:
        note += f" Not compared: {'; '.join(problems[:3])}{' …' if len(problems) > 3 else ''}."
    return make_table(stage, ("pictures", "is it the same picture"), columns, tuple(rows), note)


def _process_table(stage: StageResult) -> Table:
    rows = []
    for name in dict.fromkeys(cell.system for cell in stage.cells):
        cells = [cell for cell in stage.cells if cell.system == name]
        rows.append((name, max(cell.peak_host_bytes for cell in cells) / 2**20))
    columns = (Column("system"), Column("peak MiB", ",.0f"))
    note = "Most resident memory of each system's own process, Python and libraries included."
    if stage.thread_seconds:
        tried = ", ".join(f"{count}: {seconds:.2f} s" for count, seconds in stage.thread_seconds.items())
        note += f" Stock was tried with threads {tried} and uses {stage.stock_threads}."
    return make_table(stage, ("memory", "memory"), columns, tuple(rows), note)


def make_table(
    stage: StageResult,
    kind: tuple[str, str],
    columns: tuple[Column, ...],
    rows: tuple[tuple[Cell, ...], ...],
    note: str,
) -> Table:
    """Return a table named and titled by its model and view.

    Args:
        stage: The model and view.
        kind: What it shows: in its file's name, and in its title.
        columns: As in `Table`.
        rows: As in `Table`.
        note: As in `Table`.
    """
    model = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in stage.model)
    return Table(
        name=f"{model}-{stage.view}-{kind[0]}",
        title=f"{stage.model}, {_VIEW_TITLES[stage.view]}: {kind[1]}",
        columns=columns,
        rows=rows,
        note=note,
    )


def label(cell: CellResult) -> str:
    """Return how a row begins."""
    return f"{cell.setting.name} {cell.system}"


def spread_cells(spread: Spread | None) -> tuple[float | None, float | None, float | None]:
    """Return median, low and high."""
    return (None, None, None) if spread is None else (spread.median, spread.low, spread.high)


def describe_spread(cells: Iterable[CellResult]) -> str:
    """Return a phrase that says what low and high are."""
    methods = dict.fromkeys(cell.seconds.method for cell in cells)
    return "; ".join(_METHODS[method] for method in methods)


def describe_warmups(count: int) -> str:
    """Return a phrase for headers."""
    return f"{count} warm-up{'s' if count != 1 else ''} of {WARMUP_STEPS} steps each"
