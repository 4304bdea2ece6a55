"""Measures the quality of a system's runs against a baseline's, from their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from swiftdiff.adapters.mapping import AdapterMapping
from swiftdiff.adapters.measured_times import AdapterKind
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.engine.run_info import RunInfo
from swiftdiff.errors import ConfigError, ModelError, RequestError, StorageError, TraceError
from swiftdiff.models.integrity import MANIFEST_NAME, read_manifest
from swiftdiff.models.registry import EMBEDDED, adapter_root, resolve_model
from swiftdiff.quality.paired import PicturePair, measure_pairs
from swiftdiff.quality.picture_judge import Expectation, PictureJudge, expect
from swiftdiff.quality.quality_report import PictureQuality, QualityReport
from swiftdiff.quality.reference_metrics import PromptedPair, check_reference_metrics, measure_references
from swiftdiff.request import ImageRequest, RequestRecord
from swiftdiff.scenes import parse_caption
from swiftdiff.systems.control_image import load_control_images
from swiftdiff.trace import read_trace, trace_sha256

_Served = Mapping[str, tuple[str, ...]]


def measure_quality(
    baseline: Path,
    *runs: Path,
    seed: int = 0,
    judge: PictureJudge | None = None,
    references: Sequence[str] = (),
    weights: Path | None = None,
) -> QualityReport:
    """Compare the pictures of a system's runs with those of a baseline's run, by request and index.

    Several runs are repeats of one system: their pictures are pooled, and the bootstrap draws requests whole.

    Args:
        baseline: Folder of the baseline's run.
        runs: Folders of the system's; at least one.
        seed: Of the bootstrap.
        judge: Remembers what it judged; pass one to several calls, and no picture is judged twice.
        references: Of `REFERENCE_METRICS`, which need packages and weights; `clip` the trace too.
        weights: Folder of these weights; None is torch's own.

    Raises:
        ConfigError: There is no run, or no such metric.
        ModelError: A package or weights of a metric are missing.
        StorageError: A folder is no run's, or is damaged.
    """
    if not runs:
        raise ConfigError("name at least one run to measure against the baseline")
    check_reference_metrics(references, weights)
    before, others = RunFolder.open(baseline), [RunFolder.open(run) for run in runs]
    info, of_system = before.read_info(), others[0].read_info()
    old, new = _read_served(before), [_read_served(other) for other in others]
    requests, notes = _read_requests(info, old)
    if not _is_shapes(info.model):
        notes = (f"judges know pictures of {EMBEDDED} only, not of {info.model}",)
    known = _Expectations({} if notes else requests, Path(info.trace).parent, before.read_mapping())
    pairs = list(_pairs(before, others, old, new, known))
    pictures, problems = measure_pairs(pairs, judge or PictureJudge())
    measurable = [name for name in references if name != "clip" or requests]
    return QualityReport(
        baseline=info.system,
        system=of_system.system,
        exactness=of_system.exactness,
        pictures=pictures,
        unpaired=len(problems) + sum(_count_unpaired(old, each) for each in new),
        problems=problems,
        notes=notes,
        references=measure_references(measurable, _prompted(pairs, pictures, requests), weights, seed),
        seed=seed,
    )


@dataclass(frozen=True)
class _Expectations:
    """What each request's pictures should show: from the trace, as the run's adapters were mapped."""

    requests: Mapping[str, ImageRequest] = field(default_factory=dict)
    images_root: Path = Path()
    mapping: AdapterMapping | None = None

    def of(self, request_id: str) -> Expectation:
        request = self.requests.get(request_id)
        if request is None:
            return Expectation()
        try:
            images = [np.asarray(image) for image in load_control_images(request, self.images_root)]
        except RequestError:
            images = []
        controls = [(self._weights("controlnet", use.id), use.scale) for use in request.controlnets]
        scales: dict[str, float] = {}
        for use in request.loras:  # of one file: its scales are added
            name = self._weights("lora", use.id)
            scales[name] = scales.get(name, 0.0) + use.scale
        return expect(
            parse_caption(request.prompt),
            [(*control, image) for control, image in zip(controls, images, strict=False)],
            scales.items(),
        )

    def _weights(self, kind: AdapterKind, adapter_id: str) -> str:
        mapped = self.mapping.adapters[kind].get(adapter_id) if self.mapping else None
        return mapped.weights if mapped else adapter_id


def _read_requests(info: RunInfo, served: _Served) -> tuple[Mapping[str, ImageRequest], tuple[str, ...]]:
    """The trace's requests that were served, or why they are not known."""
    trace = Path(info.trace)
    try:
        if trace_sha256(trace) != info.trace_sha256:
            return {}, (f"not judged: {trace} is no longer the trace of these runs",)
        return {each.request_id: each for each in read_trace(trace) if each.request_id in served}, ()
    except TraceError as error:
        return {}, (f"not judged: {error.message}",)


def _is_shapes(model: str) -> bool:
    """Whether a model is the embedded family, or one that was trained as it."""
    if model == EMBEDDED:
        return True
    try:
        source = resolve_model(model)
        root = adapter_root(source.path) if source.kind == "folder" and source.path else None
        return bool(root and (root / MANIFEST_NAME).is_file() and read_manifest(root).name == EMBEDDED)
    except (ModelError, StorageError):
        return False


def _read_served(folder: RunFolder) -> _Served:
    return {record.request_id: record.images for record in folder.read_records() if _is_measured(record)}


def _is_measured(record: RequestRecord) -> bool:
    return record.status == "ok" and not record.warmup


def _pairs(
    before: RunFolder, others: Sequence[RunFolder], old: _Served, new: Sequence[_Served], known: _Expectations
) -> Iterator[PicturePair]:
    for request_id, images in old.items():
        for repeat, (folder, served) in enumerate(zip(others, new, strict=True)):
            for index, (first, second) in enumerate(zip(images, served.get(request_id, ()), strict=False)):
                yield PicturePair(
                    request_id,
                    index,
                    repeat,
                    before.path / first,
                    folder.path / second,
                    partial(known.of, request_id),
                )


def _count_unpaired(old: _Served, new: _Served) -> int:
    return sum(
        abs(len(old.get(request_id, ())) - len(new.get(request_id, ())))
        for request_id in old.keys() | new.keys()
    )


def _prompted(
    pairs: Sequence[PicturePair], pictures: Sequence[PictureQuality], requests: Mapping[str, ImageRequest]
) -> list[PromptedPair]:
    """The pairs that could be read, with their prompts; these are empty if the trace is not known."""
    readable = {(each.request_id, each.index, each.repeat) for each in pictures}
    prompts = {request_id: request.prompt for request_id, request in requests.items()}
    return [
        PromptedPair(pair.request_id, prompts.get(pair.request_id, ""), pair.before, pair.after)
        for pair in pairs
        if (pair.request_id, pair.index, pair.repeat) in readable
    ]
