"""Imports GenTD26 (Alibaba cluster trace 2026): two files, one with adapters, one with arrivals.

No file of it has both, so their join is made up: see `_by_rows` and `_by_uses`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from swiftdiff.errors import ConfigError, TraceError
from swiftdiff.trace.files import Progress

from .csv_rows import check_columns, read_header, read_rows
from .options import ImportOptions
from .source import Adapter, Dropped, Reading, Row, SourceRequest
from .values import MAX_ADAPTERS, adapters_from_list, number, text, whole

ADAPTER_FILES, ARRIVAL_FILES = "data_trace_processed*.csv*", "lora_request_trace*.csv*"
_COMMON = (
    "predict_type", "exec_time_seconds", "prompt_length", "negative_prompt_length", "num_images_per_prompt",
    "num_inference_steps", "checkpoint_model_version_id",
)  # fmt: skip
ADAPTER_COLUMNS = (*_COMMON, "style_type", "lora_args")
ARRIVAL_COLUMNS = (*_COMMON, "gmt_create", "predict_status", "groupId", "num_lora")
_STATUSES = ("SUCCEED", "FAILED", "PENDING", "PROCESSING")
_OTHER_KINDS = {"IMG_2_IMG": "image-to-image", "INPAINTING": "inpainting"}
# One file has the kinds' names, the other their MD5.
_KINDS = _OTHER_KINDS | {
    hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(): kind for name, kind in _OTHER_KINDS.items()
}
# Made-up ids: the number of LoRAs in the first half, of which the top one takes 10.7 % of the uses and the
# top ten 34 %; Zipf's law with this exponent gives 10.6 % and 35 %.
_NUM_MADE_UP, _ZIPF_EXPONENT = 552, 0.9


def read_gentd26(source: Path, options: ImportOptions, progress: Progress) -> Reading:
    """Read the folder with both files, or one of them.

    The folder gives requests of the file of adapters at the times of the file of arrivals; the file of
    adapters alone has no times; the file of arrivals alone says how many LoRAs a request had, not which.

    Raises:
        TraceError: The folder has not one file of each, or a file's columns are not GenTD26's.
    """
    if source.is_dir():
        ids, times = only_file(source, ADAPTER_FILES), only_file(source, ARRIVAL_FILES)
        check_columns(ids, read_header(ids), ADAPTER_COLUMNS)
        check_columns(times, read_header(times), ARRIVAL_COLUMNS)
        join = _by_uses if options.join == "uses" else _by_rows
        rows = join(_adapter_rows(ids, progress), _arrival_rows(times, progress))
        return Reading(files=(ids, times), rows=rows, lists_controlnets=False)
    if options.join is not None:
        raise ConfigError("--join joins the two files of a folder; SOURCE is one file")
    header = read_header(source)
    if "lora_args" in header:
        check_columns(source, header, ADAPTER_COLUMNS)
        rows = _adapter_rows(source, progress)
        return Reading(files=(source,), rows=rows, has_timestamps=False, lists_controlnets=False)
    check_columns(source, header, ARRIVAL_COLUMNS)
    rows = _with_made_up_loras(_arrival_rows(source, progress), options.seed)
    return Reading(files=(source,), rows=rows, lists_controlnets=False)


def only_file(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder whose name fits.

    Raises:
        TraceError: There is none, or there are several.
    """
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise TraceError(f"{folder}: there must be one file {pattern}, but there is {names}")
    return found[0]


def _adapter_rows(path: Path, progress: Progress) -> Iterator[Row]:
    for where, cells in read_rows(path, progress):
        request = _request(where, cells, adapters_from_list(cells["lora_args"], "lora_args", where))
        yield Dropped(f"adapters: {request.reason}") if isinstance(request, Dropped) else request


def _arrival_rows(path: Path, progress: Progress) -> Iterator[tuple[Row, int]]:
    """Yield (request without LoRAs, how many it had)."""
    for where, cells in read_rows(path, progress):
        status = cells["predict_status"]
        if status not in _STATUSES:
            raise TraceError.for_field("predict_status", status, f"one of {', '.join(_STATUSES)}", where)
        num_loras = whole(cells["num_lora"], "num_lora", where) or 0
        if not 0 <= num_loras <= MAX_ADAPTERS:
            raise TraceError.for_field("num_lora", num_loras, f"from 0 to {MAX_ADAPTERS}", where)
        request = _request(where, cells, ())
        if status != "SUCCEED":
            yield Dropped(f"arrivals: predict_status {status}"), 0
        elif isinstance(request, Dropped):
            yield Dropped(f"arrivals: {request.reason}"), 0
        else:
            yield dataclasses.replace(request, timestamp=cells["gmt_create"]), num_loras


def _request(where: str, cells: dict[str, str], loras: tuple[Adapter, ...]) -> Row:
    if not number(cells["exec_time_seconds"], "exec_time_seconds", where):
        return Dropped("no execution time")
    steps = whole(cells["num_inference_steps"], "num_inference_steps", where)
    images = whole(cells["num_images_per_prompt"], "num_images_per_prompt", where)
    if steps is None or images is None:
        return Dropped("no steps or number of images")
    kind = _KINDS.get(cells["predict_type"])
    return SourceRequest(
        where=where,
        num_inference_steps=steps,
        num_images=images,
        loras=loras,
        base_model=text(cells["checkpoint_model_version_id"], "checkpoint_model_version_id", where),
        notes=(("predict_type", f"{kind} is kept as text-to-image"),) if kind else (),
    )


def _by_rows(adapters: Iterator[Row], arrivals: Iterator[tuple[Row, int]]) -> Iterator[Row]:
    """Give the n-th request with adapters the n-th arrival: all but its time is one real request's.

    Of the arrivals nothing but the time is kept.
    """
    note = ("timestamp", "the n-th arrival of the arrivals' file for the n-th row of the adapters' file")
    for arrival, _ in arrivals:
        if isinstance(arrival, Dropped):
            yield arrival
            continue
        for row in adapters:
            if isinstance(row, SourceRequest):
                yield dataclasses.replace(row, timestamp=arrival.timestamp, notes=(*row.notes, note))
                break
            yield row
        else:
            yield Dropped("arrivals: beyond the last row with adapters")
    for row in adapters:
        yield row if isinstance(row, Dropped) else Dropped("adapters: beyond the last arrival")


def _by_uses(adapters: Iterator[Row], arrivals: Iterator[tuple[Row, int]]) -> Iterator[Row]:
    """Give each arrival as many LoRAs as it had: the next ones used in the file of adapters.

    All but the LoRAs' ids and scales is one real request's.
    """
    note = ("loras", "as many as the arrival had, the next ones used in the adapters' file")
    uses = (use for row in adapters if isinstance(row, SourceRequest) for use in row.loras)
    held: deque[Adapter] = deque()
    for arrival, num_loras in arrivals:
        if isinstance(arrival, Dropped) or num_loras == 0:
            yield arrival
            continue
        chosen: dict[str, Adapter] = {}
        for _ in range(len(held)):
            _choose(held.popleft(), chosen, num_loras, held)
        while len(chosen) < num_loras and (fresh := next(uses, None)) is not None:
            _choose(fresh, chosen, num_loras, held)
        if len(chosen) < num_loras:
            yield Dropped("arrivals: beyond the last use of an adapter")
        else:
            notes = (*arrival.notes, note)
            yield dataclasses.replace(arrival, loras=tuple(chosen.values()), notes=notes)


def _choose(use: Adapter, chosen: dict[str, Adapter], num_loras: int, held: deque[Adapter]) -> None:
    """Take a use, or hold it for a later request if this one has enough or has the same LoRA already."""
    if len(chosen) < num_loras and use[0] not in chosen:
        chosen[use[0]] = use
    else:
        held.append(use)


def _with_made_up_loras(arrivals: Iterator[tuple[Row, int]], seed: int) -> Iterator[Row]:
    rng = np.random.default_rng([seed, 2])
    popularity = np.arange(1, _NUM_MADE_UP + 1) ** -_ZIPF_EXPONENT
    popularity /= popularity.sum()
    note = ("loras", f"made-up ids, as many as it had: {_NUM_MADE_UP} with Zipf exponent {_ZIPF_EXPONENT}")
    for arrival, num_loras in arrivals:
        if isinstance(arrival, Dropped) or num_loras == 0:
            yield arrival
            continue
        drawn = rng.choice(_NUM_MADE_UP, size=num_loras, replace=False, p=popularity)
        loras = tuple((f"lora-{number + 1:03d}", None) for number in drawn.tolist())
        yield dataclasses.replace(arrival, loras=loras, notes=(*arrival.notes, note))
