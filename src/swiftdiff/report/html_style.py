"""Owns how a page looks: on a screen, on a phone and in print."""

from __future__ import annotations

CSS = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --paper: #fff; --shade: #f4f6f8; --blue: #1f5fa8;
  --grey: #8c959f; --green: #2e7d32; --red: #b3261e; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line);
    padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 48rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .6rem 0; list-style: none; }
a { color: var(--blue); }
.answer { font-size: 1.1rem; }
.warning { border-left: 4px solid var(--red); background: #fdf2f1; padding: .4rem .8rem; margin: .6rem 0; }
.remark { border-left: 4px solid var(--grey); background: var(--shade); padding: .4rem .8rem; margin: .6rem 0;
  font-size: .9rem; }
.side-by-side { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.side-by-side > div { min-width: 0; }
.note { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
.scroll:focus-visible { outline: 2px solid var(--blue); }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums;
    overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom; }
tbody th { font-weight: 400; white-space: pre; }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; }
tbody tr, thead tr { background: var(--paper); }
tbody tr:nth-child(even) { background: var(--shade); }
.scroll th:first-child { position: sticky; left: 0; background: inherit; }
.bars { width: 100%; }
.bars tbody th { white-space: normal; width: 24%; }
.bars tbody tr { background: none; }
.bars .drawn { width: 50%; }
.bar { position: relative; height: 1.4rem; background: var(--shade); }
.bar i { position: absolute; top: .2rem; bottom: .2rem; min-width: 1px; background: var(--blue); }
.bar .total { background: var(--grey); } .bar .less { background: var(--green); } .bar .more {
    background: var(--red); }
.bar .spread { top: .62rem; bottom: .62rem; background: var(--ink); }
.bar svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.chart { display: block; width: 100%; max-width: 40rem; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: 0; margin: .4rem 0; list-style: none;
  font-size: .85rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; vertical-align: -.1rem; }
.tracks { min-width: 100%; }
.track { display: grid; grid-template-columns: 9rem 1fr; align-items: start;
    border-top: 1px solid var(--line); }
.track span { font-size: .8rem; padding: .1rem .4rem .1rem 0; position: sticky; left: 0;
    background: var(--paper);
  z-index: 1; }
.track svg { display: block; width: 100%; background: var(--shade); }
.ticks { display: flex; justify-content: space-between; font-size: .75rem; color: var(--soft);
  padding-left: 9rem; }
.zoom { font-size: .85rem; }
.pairs { display: grid; gap: 1.2rem; }
.pair { margin: 0; border-top: 1px solid var(--line); padding-top: .5rem; break-inside: avoid; }
.pair figcaption { font-size: .9rem; margin-bottom: .4rem; }
.trio { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .4rem; max-width: 40rem; }
.trio div { font-size: .8rem; color: var(--soft); }
.trio img { display: block; width: 100%; height: auto; background: #000; image-rendering: pixelated; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; }
details { margin: .6rem 0; } summary { cursor: pointer; }
@media (max-width: 40rem) {
  body { padding: .8rem; }
  h1 { font-size: 1.35rem; }
  th, td { padding: .25rem .4rem; }
  .bars thead { display: none; }
  .bars tr { display: grid; grid-template-columns: 1fr auto; border-bottom: 1px solid var(--line);
    padding: .3rem 0; }
  .bars th, .bars td { border: 0; padding: .05rem 0; }
  .bars tbody th { width: auto; }
  .bars .drawn { grid-column: 1 / -1; order: 3; width: auto; }
  .track { grid-template-columns: 1fr; } .ticks { padding-left: 0; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .zoom { display: none; }
  h2, h3, caption { break-after: avoid; }
  tr, .track, .chart, .request { break-inside: avoid; }
  .side-by-side { grid-template-columns: 1fr 1fr; } .side-by-side > div { break-inside: avoid; }
  .scroll { overflow: visible; }
  .scroll table { font-size: 8pt; } .scroll th, .scroll td { padding: .1rem .3rem; }
  tbody th { white-space: pre-wrap; } .scroll .number { white-space: normal; }
  details:not([open]) { display: none; }
  .tracks { width: 100% !important; }
  a { color: inherit; text-decoration: none; }
}
"""

# Widens a timeline inside its box, which then scrolls; without it the timeline is as wide as the page.
SCRIPT = """
for (const zoom of document.querySelectorAll('.zoom')) {
  zoom.hidden = false;
  zoom.querySelector('input').addEventListener('input', event => {
    const tracks = document.getElementById(zoom.dataset.tracks);
    tracks.style.width = event.target.value * 100 + '%';
  });
}
"""
