"""Decides whether a stream that was watched for minutes held, and writes down what was seen."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from swiftdiff.files import write_whole
from swiftdiff.report.tables import Column, Table, to_markdown

SETTLED: Final = 6  # samples after which memory is compared: caches of all kinds have filled
FEWEST: Final = SETTLED + 3


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at_s: Since the first sample.
        frames: That the client showed so far.
        missed: That the server dropped for it so far.
        server_mb: Resident memory of the server.
        client_mb: Of the browser's processes, what they share counted in each; 0 for a plain client.
        steered: Whether what was asked at the sample before has been shown; None for the first.
    """

    at_s: float
    frames: int
    missed: int
    server_mb: float
    client_mb: float
    steered: bool | None


@dataclass(frozen=True)
class Watched:
    """A stream, and how it was watched.

    Attributes:
        model: The world.
        threads: Of the server; None is torch's choice.
        client: Who watched.
        fps: Frames a second that the server was to show.
        first_picture_ms: From asking for the world to its first picture.
        samples: At least `FEWEST`.
        environment: Machine and software.
    """

    model: str
    threads: int | None
    client: str
    fps: float
    first_picture_ms: float
    samples: tuple[Sample, ...]
    environment: dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """A figure, and what it must be.

    Attributes:
        name: Of it.
        value: Its own.
        least: That it must be, or None.
        most: That it may be, or None.
    """

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it is as it must be; NaN never is, where something is asked."""
        over = self.least is None or self.value >= self.least
        return over and (self.most is None or self.value <= self.most)

    @property
    def needed(self) -> str:
        """What it must be, as text."""
        if self.least is not None:
            return f"≥ {self.least:g}"
        return "" if self.most is None else f"≤ {self.most:g}"


def judge(watched: Watched) -> tuple[Finding, ...]:
    """Return what a stream came to.

    Steady: no stretch between two samples more than a tenth off the median rate, and that median what the
    server was to show. Flat: once all has settled, the last third of the samples holds as much as the first.
    """
    samples = watched.samples
    at_s = np.array([each.at_s for each in samples])
    rates = np.diff([each.frames for each in samples]) / np.diff(at_s)
    median = float(np.median(rates))
    shown, missed = samples[-1].frames - samples[0].frames, samples[-1].missed - samples[0].missed
    steered = [each.steered for each in samples if each.steered is not None]
    found = [
        Finding("seconds watched", float(at_s[-1] - at_s[0])),
        Finding("first picture, ms", watched.first_picture_ms),
        Finding("frames shown", shown),
        Finding("frames/s, median", median),
        Finding("frames/s, median / offered", median / watched.fps, least=0.95),
        Finding("frames/s, slowest / median", _ratio(rates.min(), median), least=0.9),
        Finding("frames/s, fastest / median", _ratio(rates.max(), median), most=1.1),
        Finding("frames dropped / shown", _ratio(missed, shown), most=0.01),
        Finding("times steered", len(steered)),
        Finding("… and seen, share", float(np.mean(steered)) if steered else float("nan"), least=1.0),
        *_memory("server", [each.server_mb for each in samples], at_s, most=1.02),
    ]
    if any(each.client_mb for each in samples):
        found += _memory("browser", [each.client_mb for each in samples], at_s, most=1.05)
    return tuple(found)


def soak_table(watched: Watched, findings: Sequence[Finding]) -> Table:
    """Return the figures as a table of at most 80 columns."""
    verdict = {True: "yes", False: "NO"}
    rows = tuple(
        (each.name, each.value, each.needed, verdict[each.is_met] if each.needed else "") for each in findings
    )
    between_s = float(np.median(np.diff([each.at_s for each in watched.samples])))
    note = (
        f"A rate is taken between two samples, {between_s:.0f} s apart. Memory is resident; last and first: "
        f"medians of a third of the samples after the first {SETTLED}. Of a browser it counts what its "
        "processes share once in each."
    )
    title = f"{watched.model}, watched by {watched.client}"
    return Table(
        "stream", title, (Column(""), Column("value", ".4g"), Column("needed"), Column("met")), rows, note
    )


def write_soak(folder: Path, watched: Watched, findings: Sequence[Finding]) -> None:
    """Write samples, figures, machine, a table to read and a plot.

    Raises:
        StorageError: They cannot be written.
    """
    rows = io.StringIO()
    writer = csv.DictWriter(rows, [field.name for field in fields(Sample)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(sample) for sample in watched.samples)
    environment = watched.environment
    threads = "torch's own number of threads" if watched.threads is None else f"threads: {watched.threads}"
    head = [
        "# A world, watched live",
        "",
        f"- Machine: {environment['cpu']}, {environment['usable_cores']} usable cores, which server and "
        f"client share. Load average before: {environment['load_before']:.2f}.",
        f"- Model {watched.model}, {threads}; offered: {watched.fps:g} frames a second.",
        f"- Command: {' '.join(environment['command'])}",
    ]
    text = "\n".join(head) + "\n\n" + to_markdown(soak_table(watched, findings))
    files = {
        "samples.csv": rows.getvalue().encode(),
        "environment.json": _json(environment),
        "report.md": text.encode(),
        "stream.png": _plot(watched),
        "summary.json": _json(summary(watched, findings)),
    }
    for name, data in files.items():
        write_whole(folder / name, data)


def summary(watched: Watched, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return ``summary.json``."""
    return {
        "model": watched.model,
        "threads": watched.threads,
        "client": watched.client,
        "held": all(finding.is_met for finding in findings),
        "findings": [
            {
                "name": each.name,
                "value": None if np.isnan(each.value) else round(each.value, 4),
                "least": each.least,
                "most": each.most,
                "is_met": each.is_met,
            }
            for each in findings
        ],
    }


def _memory(who: str, held_mb: Sequence[float], at_s: np.ndarray, *, most: float) -> list[Finding]:
    values = np.array(held_mb[SETTLED:])
    third = max(1, len(values) // 3)
    first, last = float(np.median(values[:third])), float(np.median(values[-third:]))
    slope = float(np.polyfit(at_s[SETTLED:] / 60, values, 1)[0])
    return [
        Finding(f"{who} memory, MB", last),
        Finding(f"{who} memory, MB more a minute", slope),
        Finding(f"{who} memory, last / first", _ratio(last, first), most=most),
    ]


def _ratio(part: float, whole: float) -> float:
    return float(part) / whole if whole > 0 else float("nan")


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _plot(watched: Watched) -> bytes:
    """Return rate and memory over time, as PNG."""
    from matplotlib.figure import Figure

    samples = watched.samples
    at_s = np.array([each.at_s for each in samples])
    rates = np.diff([each.frames for each in samples]) / np.diff(at_s)
    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    above.stairs(rates, at_s, color="#1f5fa8", baseline=None)
    above.axhline(watched.fps, color="#6e7781", linestyle=":", label="offered")
    above.set(ylabel="frames/s shown", ylim=(0, 1.2 * max(watched.fps, rates.max())))
    above.legend(loc="lower right")
    below.plot(at_s, [each.server_mb for each in samples], color="#1f5fa8", label="server")
    if any(each.client_mb for each in samples):
        below.plot(at_s, [each.client_mb for each in samples], color="#b3261e", label="browser")
    below.axvline(at_s[SETTLED], color="#6e7781", linestyle=":", label="compared from here")
    below.set(xlabel="seconds", ylabel="resident memory, MB", ylim=(0, None))
    below.legend(loc="lower right")
    figure.suptitle(f"{watched.model}, watched by {watched.client}")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()
