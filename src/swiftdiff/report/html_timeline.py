"""Draws requests' timelines: a strip a thread, nested work below what it is part of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swiftdiff.report.html_elements import element, paragraph, text
from swiftdiff.report.page import PageSpan, RequestTimeline

_COLOURS = {
    "queue": "#d0d7de",
    "service": "#8c959f",
    "text_encode": "#b07aa1",
    "cache_search": "#d37295",
    "control_image": "#9c755f",
    "controlnet_load": "#e08a1e",
    "controlnet_copy_load": "#c8720e",
    "controlnet_wait": "#f3c58d",
    "lora_load": "#b3261e",
    "lora_wait": "#eba39f",
    "lora_patch": "#ff5ca8",
    "fetch": "#f2d64b",
    "denoise": "#a6bddb",
    "step": "#d0e1f2",
    "conditioning": "#86a8c9",
    "control_hint": "#c9a227",
    "unet_encode": "#1f5fa8",
    "unet_decode": "#4f8fd6",
    "controlnet": "#59a14f",
    "vae_decode": "#7b5ea7",
    "image_save": "#57606a",
    "restore": "#00796b",
}
_OTHER = "#a0a8b0"
_DEPTH_PX = 14  # height of a strip of one depth
_MAX_SPANS = 4000  # drawn of one request; a page with more would not open on a phone
_WIDTH = 10_000
_ROUNDING_S = 1e-6  # of times in timeline.json: what follows at once is not part of what it follows


@dataclass(frozen=True)
class _Scale:
    """The seconds that are drawn, counted from the start of service."""

    begin_s: float
    end_s: float

    def at(self, seconds: float) -> float:
        """Return where a moment is drawn; what lies outside is drawn at the edge."""
        share = (seconds - self.begin_s) / (self.end_s - self.begin_s or 1.0)
        return min(max(share, 0.0), 1.0) * _WIDTH


def timelines(requests: Sequence[RequestTimeline]) -> str:
    """Return the timelines of requests, all on one scale that begins with the first load or service.

    Time in the queue is mostly not drawn: beside seconds of it nothing else would be seen.
    """
    drawn = [request for request in requests if request.spans]
    if not drawn:
        return ""
    work = [
        (span.began_s - _service_begins_s(request), span.ended_s - _service_begins_s(request))
        for request in drawn
        for span in request.spans
        if span.name != "queue"
    ]
    scale = _Scale(min(0.0, *(began for began, _ in work)), max(ended for _, ended in work))
    parts = [
        paragraph(
            "The slowest request of each system, all on one time scale: 0 is the start of service, and the "
            "time in the queue before that is cut off where nothing loaded. Point at a bar to read it."
        ),
        _legend({span.name for request in drawn for span in request.spans}),
    ]
    parts += [_timeline(index, request, scale) for index, request in enumerate(drawn)]
    return "\n".join(parts)


def _service_begins_s(request: RequestTimeline) -> float:
    return next((span.began_s for span in request.spans if span.name == "service"), 0.0)


def _timeline(index: int, request: RequestTimeline, scale: _Scale) -> str:
    spans = request.spans[:_MAX_SPANS]
    by_track: dict[str, list[PageSpan]] = {}
    for span in sorted(spans, key=lambda each: _track_order(each.track)):
        by_track.setdefault(span.track, []).append(span)
    queued_s = _service_begins_s(request)
    title = f"{request.system}: request {request.request_id}, {request.latency_s:.3f} s"
    title += f", of it {queued_s:.3f} s in the queue" if queued_s else ""
    rows = "".join(_track(name, by_track[name], queued_s, scale) for name in by_track)
    anchor = f"timeline-{index}"
    zoom = (
        f'<label class="zoom" data-tracks="{anchor}" hidden>Widen <input type="range" min="1" max="16" '
        f'step="1" value="1"></label>'
    )
    shown_s = (scale.begin_s, (scale.begin_s + scale.end_s) / 2, scale.end_s)
    ticks = "".join(f"<span>{seconds:.2f} s</span>" for seconds in shown_s)
    box = element(
        "div",
        f'<div class="tracks" id="{anchor}">{rows}<div class="ticks">{ticks}</div></div>',
        {"class": "scroll", "role": "region", "tabindex": 0, "aria-label": title},
    )
    left_out = len(request.spans) - len(spans)
    note = paragraph(f"{left_out} more spans are in the run's timeline.json." if left_out else "", "note")
    return f'<div class="request"><h3>{text(title)}</h3>{zoom}{box}{note}</div>{_totals(title, by_track)}'


def _track_order(track: str) -> tuple[int, str]:
    known = ("request", "server", "lane")
    return next((rank for rank, name in enumerate(known) if track.startswith(name)), len(known)), track


def _track(name: str, spans: Iterable[PageSpan], zero_s: float, scale: _Scale) -> str:
    placed = list(_by_depth(spans))
    depth = max(level for level, _ in placed) + 1
    rects = "".join(_rect(level, span, zero_s, scale) for level, span in placed)
    height = depth * _DEPTH_PX
    drawing = (
        f'<svg role="img" aria-label="{text(_summary(name, [span for _, span in placed]))}" '
        f'viewBox="0 0 {_WIDTH} {height}" height="{height}" preserveAspectRatio="none">{rects}</svg>'
    )
    return f'<div class="track"><span>{text(name)}</span>{drawing}</div>'


def _rect(level: int, span: PageSpan, zero_s: float, scale: _Scale) -> str:
    left, right = scale.at(span.began_s - zero_s), scale.at(span.ended_s - zero_s)
    return (
        f'<rect x="{left:.0f}" y="{level * _DEPTH_PX}" width="{max(right - left, 4):.0f}" '
        f'height="{_DEPTH_PX - 1}" fill="{_COLOURS.get(span.name, _OTHER)}">'
        f"<title>{text(_describe(span, zero_s))}</title></rect>"
    )


def _by_depth(spans: Iterable[PageSpan]) -> Iterable[tuple[int, PageSpan]]:
    """Yield spans with the number of spans that they are part of."""
    around: list[PageSpan] = []
    for span in sorted(spans, key=lambda each: (each.began_s, -each.ended_s)):
        while around and around[-1].ended_s <= span.began_s + _ROUNDING_S:
            around.pop()
        yield len(around), span
        around.append(span)


def _describe(span: PageSpan, zero_s: float) -> str:
    details = "".join(f", {key} {value}" for key, value in span.details.items() if key != "request_id")
    took_ms = (span.ended_s - span.began_s) * 1000
    return f"{span.name}{details}: {took_ms:.2f} ms from {span.began_s - zero_s:.3f} s"


def _summary(track: str, spans: Sequence[PageSpan]) -> str:
    return f"{track}: " + ", ".join(
        f"{name} {count} times, {seconds * 1000:.0f} ms" for name, (count, seconds) in _add_up(spans).items()
    )


def _totals(title: str, by_track: dict[str, list[PageSpan]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{text(track)}</th><td>{text(name)}</td><td class="number">{count}</td>'
        f'<td class="number">{seconds * 1000:.1f}</td></tr>'
        for track, spans in by_track.items()
        for name, (count, seconds) in _add_up(spans).items()
    )
    return (
        f'<details><summary>Numbers of this timeline</summary><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{text(title)}, numbers"><table><caption>{text(title)}</caption><thead><tr>'
        '<th scope="col">thread</th><th scope="col">what</th><th scope="col" class="number">times</th>'
        f'<th scope="col" class="number">ms</th></tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _add_up(spans: Iterable[PageSpan]) -> dict[str, tuple[int, float]]:
    totals: dict[str, tuple[int, float]] = {}
    for span in spans:
        count, seconds = totals.get(span.name, (0, 0.0))
        totals[span.name] = (count + 1, seconds + span.ended_s - span.began_s)
    return totals


def _legend(names: set[str]) -> str:
    known = [name for name in _COLOURS if name in names] + sorted(names - _COLOURS.keys())
    items = "".join(
        f'<li><i style="background:{_COLOURS.get(name, _OTHER)}"></i>{text(name)}</li>' for name in known
    )
    return f'<ul class="legend" aria-label="Colours of the timelines">{items}</ul>'
