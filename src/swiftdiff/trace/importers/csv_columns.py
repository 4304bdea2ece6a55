"""Imports any CSV file whose columns are, or are mapped to, the fields of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from swiftdiff.errors import ConfigError, TraceError
from swiftdiff.trace.files import Progress
from swiftdiff.validation import unknown_name

from .csv_rows import read_header, read_rows
from .options import ImportOptions
from .source import Reading, Row, SourceRequest
from .values import adapters_from_text, number, text, whole

FIELDS = (
    "timestamp", "prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale",
    "num_images", "slo_ms", "controlnets", "loras", "base_model",
)  # fmt: skip


def read_csv_columns(source: Path, options: ImportOptions, progress: Progress) -> Reading:
    """Read the file, plain or gzip.

    Without ``options.columns`` every column must be named as a field. With it, only the columns that it names
    are read.
    """
    header = read_header(source)
    columns = _columns(source, header, options.columns)
    return Reading(
        files=(source,),
        rows=_rows(source, columns, progress),
        has_timestamps="timestamp" in columns,
        lists_controlnets="controlnets" in columns,
    )


def _columns(source: Path, header: Sequence[str], chosen: Mapping[str, str] | None) -> Mapping[str, str]:
    if chosen is None:
        for name in header:
            if name not in FIELDS:
                raise TraceError(
                    f"{source}:1: {unknown_name('column', name, FIELDS)}; say which columns mean what "
                    "with --columns, such as --columns timestamp=time,loras=lora_ids"
                )
        return {name: name for name in header}
    for field, column in chosen.items():
        if field not in FIELDS:
            raise ConfigError(f"--columns: {unknown_name('field', field, FIELDS)}")
        if column not in header:
            raise TraceError(f"{source}:1: {unknown_name('column', column, header)}")
    return chosen


def _rows(source: Path, columns: Mapping[str, str], progress: Progress) -> Iterator[Row]:
    for where, cells in read_rows(source, progress):
        row = {field: cells[column].strip() for field, column in columns.items()}
        controlnets = adapters_from_text(row.get("controlnets", ""), "controlnets", where)
        yield SourceRequest(
            where=where,
            timestamp=row.get("timestamp"),
            prompt=text(row.get("prompt"), "prompt", where),
            negative_prompt=text(row.get("negative_prompt"), "negative_prompt", where),
            width=whole(row.get("width"), "width", where),
            height=whole(row.get("height"), "height", where),
            num_inference_steps=whole(row.get("num_inference_steps"), "num_inference_steps", where),
            guidance_scale=number(row.get("guidance_scale"), "guidance_scale", where),
            num_images=whole(row.get("num_images"), "num_images", where),
            slo_ms=number(row.get("slo_ms"), "slo_ms", where),
            controlnets=tuple(identity for identity, _ in controlnets),
            loras=adapters_from_text(row.get("loras", ""), "loras", where),
            base_model=text(row.get("base_model"), "base_model", where),
        )
