"""What any page of ours must hold in a browser: names that are spoken, nothing too wide, small or faint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMELESS = """() => [...document.querySelectorAll('input, select, textarea, button, canvas, progress')]
    .filter(each => !(each.labels?.length || each.getAttribute('aria-label') || each.textContent.trim()))
    .map(each => each.outerHTML)"""

MISFITS = """() => {
    const shown = each => each.getBoundingClientRect().width > 0;
    const all = [...document.querySelectorAll('main *')].filter(shown);
    return {
      needed: document.documentElement.scrollWidth,
      wide: all.filter(each => each.getBoundingClientRect().right > innerWidth + 1)
        .map(each => each.outerHTML.slice(0, 80)),
      small: all.filter(each => [...each.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
        .filter(each => parseFloat(getComputedStyle(each).fontSize) < 12.5).map(each => each.outerHTML),
      low: [...document.querySelectorAll('button, input:not([type=checkbox], [type=radio]), select')]
        .filter(shown).filter(each => each.getBoundingClientRect().height < 24)
        .map(each => each.outerHTML),
    }; }"""

FAINT = """() => {
    const parse = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = each => { for (; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour; } return [255, 255, 255]; };
    return [...document.querySelectorAll('body *')].filter(each => each.getBoundingClientRect().width > 0)
      .filter(each => !each.disabled)
      .filter(each => [...each.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
      .map(each => { const [a, b] = [light(parse(getComputedStyle(each).color)), light(ground(each))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.outerHTML.slice(0, 80)]; })
      .filter(([ratio]) => ratio < 4.5); }"""  # WCAG 2.2, 1.4.3


def nameless_fields(page: Page) -> list[str]:
    """Return the controls that have no name to be spoken."""
    found: list[str] = page.evaluate(NAMELESS)
    return found


def misfits(page: Page) -> dict[str, object]:
    """Return the width that the page needs, and what is too wide, too small to read or too low to hit."""
    found: dict[str, object] = page.evaluate(MISFITS)
    return found


def faint_texts(page: Page) -> list[object]:
    """Return texts that do not stand out from their ground."""
    found: list[object] = page.evaluate(FAINT)
    return found
