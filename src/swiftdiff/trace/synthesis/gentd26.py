"""Reads GenTD26's files for a fit: one has adapters without times, another times without adapters' names.

GenTD26 is part of Alibaba's cluster traces of 2026. Its request logs share no key, so the fit takes from each
what only that one has.
"""

from __future__ import annotations

import ast
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from swiftdiff.errors import TraceError
from swiftdiff.trace.importers.gentd26 import ADAPTER_FILES, ARRIVAL_FILES, only_file
from swiftdiff.trace.provenance import Source
from swiftdiff.trace.reader import trace_sha256
from swiftdiff.trace.synthesis.observations import Floats, Observations

_LOADS = {"lora": "lora_update_latency*.csv*", "controlnet": "controlnet_latency*.csv*"}
_NEVER_RAN = ("PENDING", "PROCESSING")
_DAY_NS = 86400 * 10**9


def observe_gentd26(folder: Path) -> Observations:
    """Read the folder's request logs, and its load latencies if they are there.

    Requests that never ran (without steps, pending, in work) are left out.

    Raises:
        TraceError: A file is missing or there twice, damaged, or lacks a column.
    """
    adapters_path, times_path = only_file(folder, ADAPTER_FILES), only_file(folder, ARRIVAL_FILES)
    adapters = _read(adapters_path, ["num_images_per_prompt", "num_inference_steps", "lora_args"])
    loras, scales = _loras(adapters, adapters_path)
    ran = adapters[adapters.num_inference_steps.notna()]
    loads = {kind: only_file(folder, glob) for kind, glob in _LOADS.items() if list(folder.glob(glob))}
    load_times = {kind: _seconds(path) for kind, path in loads.items()}
    paths = (adapters_path, times_path, *loads.values())
    return Observations(
        arrivals_s=_arrivals(times_path),
        loras=loras,
        lora_scales=scales,
        settings={
            "num_inference_steps": ran.num_inference_steps.astype(int).tolist(),
            "num_images": ran.num_images_per_prompt.astype(int).tolist(),
        },
        load_times_s=load_times,
        sources=tuple(Source(name=path.name, sha256=trace_sha256(path)) for path in paths),
        filled_in={
            "pictures": "sizes and guidance are not in the source: the model's native size, guidance 5",
            "prompts": "captions of 64 scenes of the embedded model's world",
        },
    )


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except EOFError as error:
        raise TraceError(f"{path}: the gzip data ends unfinished; copy the file again") from error
    except (zlib.error, UnicodeDecodeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip()
        raise TraceError(f"{path}: cannot be read as CSV: {reason}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise TraceError(
            f"{path}: has no column {missing[0]!r}, which GenTD26's file has; it has "
            f"{', '.join(map(str, table.columns[:12]))}"
        )
    return table


def _loras(table: pd.DataFrame, path: Path) -> tuple[tuple[tuple[str, ...], ...], tuple[float, ...]]:
    requests: list[tuple[str, ...]] = []
    scales: list[float] = []
    for row, text, steps in zip(table.index, table.lora_args, table.num_inference_steps, strict=True):
        if np.isnan(steps):
            continue
        uses = _parse(text, f"{path}:{row + 2}")
        requests.append(tuple(uses))
        scales.extend(uses.values())
    return tuple(requests), tuple(scales)


def _parse(text: Any, where: str) -> dict[str, float]:
    """Return the scale of each LoRA that a row names."""
    try:
        entries = ast.literal_eval(text) if isinstance(text, str) else []
        return {str(entry["modelVersionId"]): float(entry["scale"]) for entry in entries}
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        allowed = "a list of {'modelVersionId': ..., 'scale': ...}"
        raise TraceError.for_field("lora_args", text, allowed, where) from error


def _arrivals(path: Path) -> Floats:
    """Return seconds from the start of the first day; the log's clock has steps of one second."""
    table = _read(path, ["gmt_create", "predict_status"])
    kept = table[~table.predict_status.isin(_NEVER_RAN)]
    times = pd.to_datetime(kept.gmt_create, format="%Y-%m-%d %H:%M:%S", errors="coerce")
    if times.isna().any():
        row = int(times.isna().to_numpy().argmax())
        where = f"{path}:{kept.index[row] + 2}"
        raise TraceError.for_field("gmt_create", kept.gmt_create.iloc[row], "YYYY-MM-DD HH:MM:SS", where)
    nanoseconds = times.astype("datetime64[ns]").astype("int64").to_numpy()
    falls = np.flatnonzero(np.diff(nanoseconds) < 0)
    if len(falls):
        where = f"{path}:{kept.index[falls[0] + 1] + 2}"
        value = kept.gmt_create.iloc[falls[0] + 1]
        raise TraceError.for_field("gmt_create", value, "at least the one before it: sort the file", where)
    first_day = nanoseconds[:1] // _DAY_NS * _DAY_NS
    seconds: Floats = (nanoseconds - first_day) / 1e9
    return seconds


def _seconds(path: Path) -> Floats:
    """Return load times in seconds; GenTD26 has milliseconds."""
    values = pd.to_numeric(_read(path, ["value"]).value, errors="coerce")
    if values.isna().any() or (values < 0).any():
        row = int((values.isna() | (values < 0)).to_numpy().argmax())
        raise TraceError(f"{path}:{row + 2}: value must be a number of milliseconds, at least 0")
    seconds: Floats = values.to_numpy(dtype=float) / 1000
    return seconds
