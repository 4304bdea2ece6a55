"""Draws requests' timelines: a strip a thread, nested work below what it is part of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from swiftdiff.report.html_elements import element, paragraph, text
from swiftdiff.report.page import PageSpan, RequestTimeline

_COLOURS = {
    "queue": "#d0d7de",
    "service": "#8c959f",
    "text_encode": "#b07aa1",
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


def timelines(requests: Sequence[RequestTimeline]) -> str:
    """Return the timelines of requests, all on one scale."""
    drawn = [request for request in requests if request.spans]
    if not drawn:
        return ""
    end_s = max(max(span.ended_s for span in request.spans) for request in drawn)
    begin_s = min(0.0, *(min(span.began_s for span in request.spans) for request in drawn))
    parts = [
        paragraph("The slowest request of each system, all on one time scale. Point at a bar to read it."),
        _legend({span.name for request in drawn for span in request.spans}),
    ]
    parts += [_timeline(index, request, begin_s, end_s) for index, request in enumerate(drawn)]
    return "\n".join(parts)


def _timeline(index: int, request: RequestTimeline, begin_s: float, end_s: float) -> str:
    spans = request.spans[:_MAX_SPANS]
    by_track: dict[str, list[PageSpan]] = defaultdict(list)
    for span in spans:
        by_track[span.track].append(span)
    title = f"{request.system}: request {request.request_id}, {request.latency_s:.3f} s"
    rows = "".join(_track(name, by_track[name], begin_s, end_s) for name in by_track)
    anchor = f"timeline-{index}"
    zoom = (
        f'<label class="zoom" data-tracks="{anchor}" hidden>Widen <input type="range" min="1" max="16" '
        f'step="1" value="1"></label>'
    )
    ticks = "".join(f"<span>{begin_s + share * (end_s - begin_s):.2f} s</span>" for share in (0, 0.5, 1))
    box = element(
        "div",
        f'<div class="tracks" id="{anchor}">{rows}<div class="ticks">{ticks}</div></div>',
        {"class": "scroll", "role": "region", "tabindex": 0, "aria-label": title},
    )
    left_out = len(request.spans) - len(spans)
    note = paragraph(f"{left_out} more spans are in the run's timeline.json." if left_out else "", "note")
    return f'<div class="request"><h3>{text(title)}</h3>{zoom}{box}{note}</div>{_totals(title, by_track)}'


def _track(name: str, spans: Iterable[PageSpan], begin_s: float, end_s: float) -> str:
    placed = list(_by_depth(spans))
    depth = max(level for level, _ in placed) + 1
    scale = _WIDTH / (end_s - begin_s or 1.0)
    rects = "".join(
        f'<rect x="{(span.began_s - begin_s) * scale:.0f}" y="{level * _DEPTH_PX}" '
        f'width="{max((span.ended_s - span.began_s) * scale, 4):.0f}" height="{_DEPTH_PX - 1}" '
        f'fill="{_COLOURS.get(span.name, _OTHER)}"><title>{text(_describe(span))}</title></rect>'
        for level, span in placed
    )
    height = depth * _DEPTH_PX
    drawing = (
        f'<svg role="img" aria-label="{text(_summary(name, [span for _, span in placed]))}" '
        f'viewBox="0 0 {_WIDTH} {height}" height="{height}" preserveAspectRatio="none">{rects}</svg>'
    )
    return f'<div class="track"><span>{text(name)}</span>{drawing}</div>'


def _by_depth(spans: Iterable[PageSpan]) -> Iterable[tuple[int, PageSpan]]:
    """Yield spans with the number of spans that they are part of."""
    around: list[PageSpan] = []
    for span in sorted(spans, key=lambda each: (each.began_s, -each.ended_s)):
        while around and around[-1].ended_s <= span.began_s:
            around.pop()
        yield len(around), span
        around.append(span)


def _describe(span: PageSpan) -> str:
    details = "".join(f", {key} {value}" for key, value in span.details.items() if key != "request_id")
    return f"{span.name}{details}: {(span.ended_s - span.began_s) * 1000:.2f} ms from {span.began_s:.3f} s"


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
