"""The API's description in a real browser that reaches nothing but this server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import launched, needs_browser, new_page
from http_server import Running, StepSystem, running, step_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = needs_browser


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "store" / "loras").mkdir(parents=True)
        system = step_config(folder / "store")
        with running(folder, system, lambda config: StepSystem(), api_key="open sesame") as server:
            yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    """The page at ``/docs``; requests to other places fail, and are a mistake."""
    page = new_page(browser)
    wrong: list[str] = []

    def pass_or_block(route: Route) -> None:
        if route.request.url.startswith((server.url + "/", "data:")):
            route.continue_()
        else:
            wrong.append(route.request.url)
            route.abort()

    page.route("**/*", pass_or_block)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.goto(f"{server.url}/docs")
    page.get_by_role("heading", name="Schemas").wait_for()
    yield page
    page.close()
    assert wrong == []


def test_every_operation_and_schema_of_the_document_is_shown(page: Page, server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert page.get_by_role("region", name=f"{method.upper()} {path}", exact=True).count() == 1
    for name, schema in document["components"]["schemas"].items():
        section = page.get_by_role("region", name=name, exact=True)
        assert section.count() == 1
        shown = section.get_by_role("rowheader").all_inner_texts()
        assert shown == list(schema.get("properties", {}))


def test_fields_have_their_type_their_limits_and_what_they_mean(page: Page) -> None:
    fields = page.get_by_role("table", name="Fields of GenerationRequest", exact=True)
    (row,) = [each for each in fields.get_by_role("row").all_inner_texts() if each.startswith("prompt\t")]
    assert row.split("\t")[1:] == [
        "string, required",
        "at least 1 character, at most 4000 characters",
        "What the picture shows.",
    ]
    (loras,) = [each for each in fields.get_by_role("row").all_inner_texts() if each.startswith("loras\t")]
    assert "list of LoraInput" in loras
    body = page.get_by_role("region", name="POST /v1/images/generations", exact=True)
    assert "429" in body.get_by_role("rowheader").all_inner_texts()
    assert body.get_by_text("Needs the server's API key.").is_visible()


def test_links_lead_to_what_they_name_by_keyboard_too(page: Page) -> None:
    page.get_by_role("link", name="POST /v1/images/generations").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('section:target h2').textContent").startswith("POST")
    page.locator("section:target").get_by_role("link", name="GenerationRequest").click()
    assert page.evaluate("document.querySelector('section:target h3').textContent") == "GenerationRequest"
    dead = page.evaluate(
        """() => [...document.querySelectorAll('a[href^="#"]')]
        .map(each => each.getAttribute('href').slice(1))
        .filter(id => !document.getElementById(id))"""
    )
    assert dead == []


def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_without_its_document_the_page_says_so(browser: Browser, server: Running) -> None:
    page = new_page(browser)
    page.route("**/openapi.json", lambda route: route.abort())
    page.goto(f"{server.url}/docs")
    page.get_by_role("alert").get_by_text("The description could not be shown").wait_for()
    page.close()
