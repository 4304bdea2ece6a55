"""The page of worlds in a real browser, against a real engine whose weights are random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from browser import DESKTOP, PHONE, launched, needs_browser, new_page
from page_audits import faint_texts, misfits, nameless_fields
from patience import until
from tiny_world import build_tiny_world
from world_server import RunningWorlds, showing

from swiftdiff.server.world_config import StreamConfig
from swiftdiff.world.loading import EmbeddedPrompts, WorldModel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return build_tiny_world()


@pytest.fixture(scope="module")
def worlds(model: WorldModel) -> Iterator[RunningWorlds]:
    with showing(model, stream=StreamConfig(fps=30.0, queue_frames=1000, idle_s=60.0)) as running:
        yield running


def opened(browser: Browser, worlds: RunningWorlds, size: dict[str, int] = DESKTOP) -> Page:
    page = new_page(browser, size)
    page.goto(f"{worlds.url}/world/")
    page.get_by_text("Model tiny").wait_for()
    return page


@pytest.fixture
def page(browser: Browser, worlds: RunningWorlds) -> Iterator[Page]:
    page = opened(browser, worlds)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "violates" in line.text else None)
    yield page
    page.close()
    end_all(worlds)
    assert complaints == []


def end_all(worlds: RunningWorlds) -> None:
    """Free all places: a page that is closed by a test may not have had the time to."""
    for world in worlds.service.worlds:
        worlds.client.delete(f"/v1/worlds/{world.id}")
    until(lambda: worlds.service.engine.sessions == ())


def start(page: Page) -> None:
    """Start a world, and note all its captions: some are shown for a moment only."""
    page.evaluate(
        """() => { window.captions = []; const caption = document.getElementById('caption');
        new MutationObserver(() => captions.push(caption.textContent))
          .observe(caption, {childList: true}); }"""
    )
    page.get_by_role("button", name="Start").click()
    until_captioned(page, "Block")


def until_captioned(page: Page, *words: str) -> None:
    """Wait until captions with these words were shown, one after another."""
    missing = "words => captions.reduce((left, each) => left.slice(each.includes(left[0])), words)"
    until(lambda: page.evaluate(missing, list(words)) == [])


def number(page: Page, name: str) -> int:
    return int("".join(filter(str.isdigit, page.locator(f"#{name}").inner_text())) or 0)


def drawn(page: Page) -> str:
    return str(page.evaluate("document.getElementById('screen').toDataURL()"))


def test_a_world_runs_and_is_steered_by_button(page: Page, worlds: RunningWorlds) -> None:
    start(page)
    first = drawn(page)
    page.get_by_role("button", name="push left").click()
    until_captioned(page, "push left", "none")
    page.locator("#status").get_by_text("push left: seen by block").wait_for()
    until(lambda: drawn(page) != first)
    assert page.locator("#screen").evaluate("screen => [screen.width, screen.height]") == [32, 32]
    until(lambda: number(page, "shown") > 5)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert worlds.service.engine.sessions == ()
    assert page.get_by_role("button", name="push left").is_disabled()


def test_arrow_keys_push_while_the_picture_has_the_focus(page: Page) -> None:
    start(page)
    page.locator("#screen").focus()
    page.keyboard.press("ArrowUp")
    until_captioned(page, "push up")


def test_an_unknown_action_is_told_at_its_field_and_the_world_goes_on(page: Page) -> None:
    start(page)
    page.get_by_label("Tell it something else").fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Tell it").click()
    page.get_by_role("alert").get_by_text("unknown action '<img src=x").wait_for()
    text = page.get_by_label("Tell it something else")
    assert text.get_attribute("aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "text"
    text.fill("colour")
    page.get_by_label("For", exact=True).select_option(label="as long as it runs")
    page.get_by_role("button", name="Tell it").click()
    until_captioned(page, "colour")
    assert page.get_by_role("alert").count() == 0


def test_a_beginning_that_means_nothing_is_told_at_its_field(page: Page) -> None:
    page.get_by_label("How it begins").fill("a cat")
    page.get_by_role("button", name="Start the world").click()
    page.get_by_role("alert").get_by_text("unknown action 'a cat'").wait_for()
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert page.get_by_role("button", name="Stop").is_disabled()
    before = page.get_by_label("How it begins").input_value()
    page.get_by_role("button", name="Another one").click()
    page.get_by_text("Another beginning is proposed.").wait_for()
    assert page.get_by_label("How it begins").input_value() != before


def test_the_same_beginning_and_seed_draw_the_same_world(page: Page) -> None:
    page.get_by_label("Seed").fill("7")
    page.evaluate(
        """() => { const screen = document.getElementById('screen'); window.first = [];
        const context = screen.getContext('2d'); const draw = context.drawImage.bind(context);
        context.drawImage = (...all) => { draw(...all);
          if (first.length < 6) first.push(screen.toDataURL()); }; }"""
    )
    clips = []
    for _ in range(2):
        page.evaluate("first.length = 0")
        page.get_by_role("button", name="Start").click()
        until(lambda: page.evaluate("first.length === 6"))
        clips.append(page.evaluate("[...first]"))
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
    assert clips[0] == clips[1]
    assert len(set(clips[0])) > 1


def test_a_page_that_is_closed_gives_its_world_back(browser: Browser, worlds: RunningWorlds) -> None:
    page = opened(browser, worlds)
    start(page)
    page.close(run_before_unload=True)
    until(lambda: worlds.service.engine.sessions == ())


def test_a_stream_that_ends_is_told(browser: Browser, model: WorldModel) -> None:
    with showing(model, stream=StreamConfig(fps=30.0, idle_s=60.0)) as worlds:
        page = opened(browser, worlds)
        start(page)
        assert worlds.stop()
        page.get_by_role("alert").get_by_text("the server is draining").wait_for()
        page.get_by_role("button", name="Start the world").click()
        page.get_by_role("alert").get_by_text("the server does not answer").wait_for()
        page.close()


def test_a_key_is_asked_for_and_sent(browser: Browser, model: WorldModel) -> None:
    with showing(model, api_key="open sesame") as worlds:
        page = new_page(browser)
        page.goto(f"{worlds.url}/world/")
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Use key").click()
        page.get_by_role("alert").get_by_text("a valid API key is needed").wait_for()
        page.get_by_label("API key").fill("open sesame")
        page.get_by_role("button", name="Use key").click()
        page.get_by_text("Model tiny").wait_for()
        start(page)
        assert "sesame" not in page.content()
        page.close()


def test_an_img_shows_a_world_without_any_script(browser: Browser, worlds: RunningWorlds) -> None:
    page = new_page(browser)
    page.goto(f"{worlds.url}/world/")
    world = worlds.begin()
    page.evaluate(
        "world => { const image = new Image(); image.id = 'plain'; document.body.append(image);"
        " image.src = `../v1/worlds/${world}/frames`; }",
        world,
    )
    until(lambda: page.evaluate("document.getElementById('plain').naturalWidth === 32"))
    page.close()
    worlds.client.delete(f"/v1/worlds/{world}")


def test_the_prompts_that_a_model_knows_are_there_to_choose_from(browser: Browser, model: WorldModel) -> None:
    features = model.prompts.encode("push left")[0]
    prompts = EmbeddedPrompts({"": features, "a cat": features, "a dog": features})
    settings = model.settings.model_copy(update={"prompt_encoder": "embeddings", "resting_prompt": None})
    with showing(replace(model, prompts=prompts, settings=settings)) as worlds:
        page = opened(browser, worlds)
        known = page.get_by_label("Prompts that this model knows")
        assert known.locator("option").all_inner_texts() == ["a cat", "a dog"]
        assert page.get_by_label("How it begins").input_value() == known.input_value()
        known.select_option("a cat")
        assert page.get_by_label("How it begins").input_value() == "a cat"
        assert page.get_by_role("group", name="Steer").count() == 0
        start(page)
        page.get_by_label("Tell it something else").fill("a dog")
        page.get_by_role("button", name="Tell it").click()
        page.locator("#caption").get_by_text("a dog").wait_for()
        page.get_by_label("Tell it something else").fill("a cow")
        page.get_by_role("button", name="Tell it").click()
        page.get_by_role("alert").get_by_text("unknown prompt 'a cow'; did you mean").wait_for()
        assert nameless_fields(page) == []
        page.close()


def test_the_page_leads_to_the_pictures_of_a_server_that_draws_some(
    page: Page, worlds: RunningWorlds
) -> None:
    link = page.get_by_role("link", name="draws pictures")
    assert link.count() == 0
    offer = worlds.client.get("/v1/worlds").json() | {"images": True}
    page.route("**/v1/worlds", lambda route: route.fulfill(json=offer))
    page.reload()
    link.wait_for()
    assert link.evaluate("link => new URL(link.href).pathname") == "/"


def test_the_keyboard_reaches_everything_in_the_order_of_reading(page: Page) -> None:
    page.evaluate("document.getElementById('ask').requestSubmit()")  # leaves the focus where it is
    page.locator("#caption").get_by_text("Block").wait_for()
    reached: list[str] = []
    while "tell" not in reached and len(reached) < 30:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    wanted = ["prompt", "another", "seed", "start", "stop", "screen", "←", "→", "↑", "↓", "colour"]
    wanted += ["text", "span", "tell"]
    assert [name for name in reached if name in wanted] == wanted


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_readable_and_usable(
    browser: Browser, worlds: RunningWorlds, size: dict[str, int]
) -> None:
    page = opened(browser, worlds, size)
    start(page)
    until(lambda: number(page, "shown") > 0)
    page.get_by_role("button", name="push down").click()
    page.get_by_text("push down: seen").wait_for()
    assert nameless_fields(page) == []
    assert misfits(page) == {"needed": size["width"], "wide": [], "small": [], "low": []}
    assert faint_texts(page) == []
    if size == PHONE:  # the world and what steers it are on one screen
        ends = [page.locator(name).bounding_box() for name in ("#screen", "#steer")]
        # to a pixel: the click may have scrolled the lowest button to the very edge, which is no whole one
        assert all(box["y"] >= -1 and box["y"] + box["height"] <= size["height"] + 1 for box in ends if box)
    page.close()
    end_all(worlds)
