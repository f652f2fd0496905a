"""The dashboard in a real browser against a real cluster: what a person sees and can do there.

With SCREENSHOTS=DIR the states that the README shows are written there as PNG files.
"""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Browser, Locator, Page, Route, expect, sync_playwright

from launcher import tokens
from launcher.nodes import Launch, address, index_of
from launcher.simulated import Fleet
from launcher.trials_ground import holders_of
from live import PATIENCE, free_web_port, running

CHROMIUM = "/usr/bin/chromium"
NODES = 3
# Room for four of the eight experts a node: some have one holder, and two nodes still hold all.
ENGINE = {"memory_mib": 16}
expect.set_options(timeout=30_000)
SEEN_MS = 10_000.0  # docs/DASHBOARD.md promises 2 s of a worker's death: here others compute too
SLOW_MS = PATIENCE * 1000
PROMPT = "a green star on a white background"
MARKUP = '<img src=x onerror="document.title=1"><b>bold</b> & </script>'


@dataclass
class Stage:
    """The cluster and where a browser finds it."""

    fleet: Fleet
    port: int
    token: str

    def url(self, index: int = 0) -> str:
        return f"http://{address(index)}:{self.port}"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, eight: Path) -> Iterator[Stage]:
    run = tmp_path_factory.mktemp("run")
    port = free_web_port(NODES)
    launch = Launch(NODES, eight, web_port=port, engine=ENGINE)
    with running(run, launch, uuid.uuid4().hex) as fleet:
        key = tokens.read_key(run / "http.key")
        yield Stage(fleet, port, tokens.token("default", key))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield chromium
        chromium.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, stage: Stage) -> Iterator[Open]:
    """Opens the page as a browser of its own; a script's error or a refused resource fails it."""
    contexts = []
    wrong: list[str] = []

    def open_page(
        token: str | None = None, width: int = 1280, dark: bool = False, **more: Any
    ) -> Page:
        scheme: Any = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if refused(said.text) else None)
        page.goto(f"{stage.url()}/#token={stage.token if token is None else token}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def refused(text: str) -> bool:
    """Whether the content policy kept something out: the page asks for nothing of that kind."""
    return "Content Security Policy" in text


def shot(page: Page, name: str, part: Locator | None = None) -> None:
    directory = os.environ.get("SCREENSHOTS")
    if directory:
        path = Path(directory) / f"dashboard-{name}.png"
        page.screenshot(path=path) if part is None else part.screenshot(path=path)


def draw(page: Page, prompt: str = PROMPT, **fields: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.locator("#draw details").evaluate("(details) => { details.open = true }")
    for name, value in fields.items():
        page.locator(f"#{name}").fill(value)
    page.locator("#draw details").evaluate("(details) => { details.open = false }")
    page.get_by_role("button", name="Draw", exact=True).click()


def ready(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("READY", timeout=SLOW_MS)
    expect(page.locator("#cards article")).to_have_count(NODES)


def test_the_token_leaves_the_address_and_the_cluster_is_there(visit: Open, stage: Stage) -> None:
    page = visit()
    ready(page)
    assert page.url == f"{stage.url()}/"
    expect(page.locator("#talking")).to_have_text(f"talking to {address(0)}:{stage.port}")
    expect(page.locator(".chip[data-state=ready]")).to_have_count(8)
    expect(page.locator("#matrix td.up")).to_have_count(NODES * (NODES - 1), timeout=SLOW_MS)
    expect(page.locator("#tree-body")).to_contain_text("baguette_engine_sup")
    expect(page.locator("#log li").first).to_contain_text("127.0.0.")


def test_a_picture_is_watched_while_it_is_drawn(visit: Open) -> None:
    page = visit()
    ready(page)
    # The longest there is: however late this looks, it is not over yet.
    draw(page, steps="250", n="8", seed="11", top_k="4")
    job = page.locator(".job")
    expect(job.locator("h3")).to_have_text(PROMPT)
    expect(job.locator(".timeline circle.other").nth(3)).to_be_attached()
    before = job.locator(".timeline circle.first").count()
    expect(job.locator(".timeline circle.first").nth(before + 2)).to_be_attached()
    expect(job.locator(".preview")).to_be_visible()
    shot(page, "drawing")
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_have_count(0)


def test_a_picture_is_asked_for_and_shown(visit: Open) -> None:
    page = visit()
    ready(page)
    draw(page, steps="60", n="4", seed="7", top_k="4")
    tiles = page.locator(".tile img:visible")
    expect(tiles).to_have_count(4)
    assert tiles.first.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 64
    expect(page.locator(".job")).to_have_count(0)
    page.locator(".tile button").nth(1).click()
    about = page.locator("#about")
    expect(about).to_contain_text("8")  # the second picture's seed
    expect(about.locator(".timeline circle.first")).to_have_count(60)
    expect(about).to_contain_text(re.compile(r"Active: \d/8 experts"))
    shot(page, "picture", about)
    about.get_by_text("Again with this seed").click()
    expect(page.locator("#seed")).to_have_value("8")
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#n")).to_have_value("1")


def hold_answers(page: Page) -> list[tuple[Route, APIResponse]]:
    """What the page asks for is drawn; it hears so only when the test hands the answer on."""
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/v1/jobs", lambda route: held.append((route, route.fetch())))
    return held


def test_a_late_answer_does_not_bring_back_what_is_over(visit: Open) -> None:
    page = visit()
    ready(page)
    held = hold_answers(page)
    draw(page, "drawn before its answer", steps="2", seed="9")
    expect(page.locator(".tile figcaption").first).to_have_text("drawn before its answer")
    [(route, answer)] = held
    assert answer.json()["status"] in ("queued", "running")
    route.fulfill(response=answer)
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_enabled()
    expect(page.locator(".job")).to_have_count(0)


def test_a_late_answer_does_not_take_back_what_was_drawn_meanwhile(visit: Open) -> None:
    page = visit()
    ready(page)
    held = hold_answers(page)
    draw(page, steps="250", n="8", top_k="4", seed="13")
    circles = page.locator(".job .timeline circle.first")
    expect(circles.nth(2)).to_be_attached()
    [(route, answer)] = held
    assert answer.json()["step"] == 0
    route.fulfill(response=answer)
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_enabled()
    before = circles.count()
    expect(circles.nth(before + 2)).to_be_attached()
    shown, known = page.locator(".job .timeline[role=img]").evaluate(
        "(svg) => [svg.querySelectorAll('.first').length, svg.getAttribute('aria-label')]"
    )
    assert known.startswith(f"{shown} of 250 steps"), (shown, known)
    page.locator(".job button").click()
    expect(page.locator(".job")).to_have_count(0)


# Whoever looks now and then could miss both: the worker is soon back.
NOTE_TROUBLE = """() => {
    const ready = () => document.querySelectorAll("#cards .chip[data-state=ready]").length;
    const whole = ready();
    const look = () => {
        if (ready() < whole && document.querySelector("#state").textContent !== "READY") {
            document.body.dataset.lessIsReady ??= Date.now();
        }
        const trouble = document.querySelector(".job .trouble li");
        if (trouble) document.body.dataset.trouble ??= trouble.textContent;
    };
    new MutationObserver(look).observe(document.body, {
        attributes: true, characterData: true, childList: true, subtree: true,
    });
}"""


def sole_holder(stage: Stage) -> int:
    """A node that alone holds an expert: every step waits for it."""
    holders = holders_of(stage.fleet.figures())
    return index_of(next(names[0] for names in holders.values() if len(names) == 1))


def test_a_killed_expert_worker_is_on_the_page(
    visit: Open, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    page = visit()
    ready(page)
    draw(page, steps="250", n="8", top_k="full", seed="3")
    expect(page.locator(".job .timeline circle").nth(20)).to_be_attached()
    index = sole_holder(stage)
    card = page.locator("#cards article").filter(has=page.get_by_text(address(index), exact=True))
    worker = stage.fleet.cluster.worker(index, "expert")
    assert worker is not None
    page.evaluate(NOTE_TROUBLE)
    worker.signal(signal.SIGKILL)
    died = time.time()
    body = page.locator("body[data-less-is-ready]")
    expect(body).to_be_attached(timeout=SEEN_MS)
    seen = float(body.get_attribute("data-less-is-ready") or "nan") / 1000
    with capsys.disabled():
        print(f"on the page {seen - died:.2f} s after its death")
    shot(page, "worker-killed")
    expect(page.locator("body")).to_have_attribute("data-trouble", re.compile("E[0-9]|expert"))
    shot(page, "failover", page.locator(".job"))
    ready(page)
    # It is drawn on: what it waited for is over.
    expect(page.locator(".job .trouble")).not_to_contain_text("Waiting")
    expect(card.locator("dd.restarts")).to_have_text("1")
    expect(page.locator("#log")).to_contain_text("the expert worker died")
    page.locator("#tree-node").select_option(address(index))
    expect(page.locator("#tree-body .badge")).to_contain_text("its worker process restarted once")
    page.locator(".job button").click()
    expect(page.locator(".job")).to_have_count(0)


def test_a_cancelled_picture_stops(visit: Open) -> None:
    page = visit()
    ready(page)
    draw(page, steps="250", n="8", top_k="full")
    page.locator(".job button").click()
    expect(page.locator(".tile[data-status=cancelled]").first).to_contain_text("cancelled")
    expect(page.locator(".job")).to_have_count(0)


def test_markup_in_a_prompt_is_text(visit: Open) -> None:
    page = visit()
    ready(page)
    draw(page, MARKUP, steps="2")
    caption = page.locator(".tile figcaption").first
    expect(caption).to_have_text(MARKUP)
    page.locator(".tile button").first.click()
    expect(page.locator("#about-title")).to_have_text(MARKUP)
    assert page.locator("main b:has-text('bold')").count() == 0
    assert page.title() == "Baguette"


def test_a_refusal_names_its_field(visit: Open) -> None:
    page = visit()
    ready(page)
    draw(page, steps="100000")
    expect(page.locator("#draw-error")).to_contain_text("steps")
    expect(page.locator("#steps")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#steps")).to_be_focused()


@pytest.mark.parametrize("token", ["default.AAAA", "somebody else's"])
def test_a_wrong_token_is_asked_for_again(visit: Open, stage: Stage, token: str) -> None:
    page = visit(token=token)
    expect(page.get_by_label("Token")).to_be_visible()
    expect(page.locator("#cards article")).to_have_count(0)
    shot(page, "token")
    page.get_by_label("Token").fill("also.wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token-error")).to_contain_text("make token")
    page.get_by_label("Token").fill(stage.token)
    page.keyboard.press("Enter")
    ready(page)
    expect(page.locator("#token-form")).to_be_hidden()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_sideways_scrolling(visit: Open, dark: bool) -> None:
    page = visit(width=375, dark=dark, has_touch=True)
    ready(page)
    prompt = f"{PROMPT} on a {'dark' if dark else 'light'} phone"
    draw(page, prompt, steps="40", seed="5")
    tile = page.locator(".tile").first
    expect(tile.locator("figcaption")).to_have_text(prompt)
    expect(tile.locator("img")).to_be_visible()
    expect(page.locator("#matrix td.up").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.locator("#pictures").scroll_into_view_if_needed()
    shot(page, "phone-dark" if dark else "phone")
    tile.locator("button").click()
    expect(page.locator("#about")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_the_keyboard_alone_draws_and_looks(visit: Open) -> None:
    page = visit()
    ready(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_label("Prompt").focus()
    page.keyboard.type(PROMPT)
    page.keyboard.press("Tab")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    tile = page.locator(".tile button").first
    expect(tile.locator("img")).to_be_visible()
    tile.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#about")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#about")).to_be_hidden()


def test_events_are_filtered(visit: Open) -> None:
    page = visit()
    ready(page)
    lines = page.locator("#log li")
    expect(lines.nth(5)).to_be_attached()
    page.get_by_label("Containing").fill("joined")
    expect(lines.first).to_contain_text("joined the cluster")
    page.get_by_label("Containing").fill("no event says this")
    expect(page.locator("#log")).to_have_text("Nothing of that kind.")
    page.get_by_label("Containing").fill("")
    page.get_by_label("Room").select_option("engine")
    expect(lines.first.locator(".room")).to_have_text("engine")


def test_the_whole_page(visit: Open) -> None:
    """Both looks of a cluster that has been at work; nothing but text in them."""
    for dark in (False, True):
        page = visit(dark=dark)
        ready(page)
        expect(page.locator(".tile img:visible").first).to_be_visible()
        expect(page.locator(".chart path.line").first).to_be_attached()
        if os.environ.get("SCREENSHOTS"):
            name = "dark" if dark else "light"
            path = Path(os.environ["SCREENSHOTS"]) / f"dashboard-{name}.png"
            page.screenshot(path=path, full_page=True)


def test_the_page_turns_to_another_node_when_its_own_dies(visit: Open, stage: Stage) -> None:
    """The last one: the cluster is short of a node afterwards."""
    page = visit()
    ready(page)
    stage.fleet.cluster.nodes[0].signal(signal.SIGKILL)
    talking = page.locator("#talking")
    expect(talking).to_contain_text(re.compile(rf"talking to 127\.0\.0\.[34]:{stage.port}"))
    expect(talking).to_contain_text(f"{address(0)}:{stage.port} does not answer")
    expect(page.locator("#state")).to_have_text("DEGRADED", timeout=SLOW_MS)
    expect(page.locator("#reasons")).to_contain_text(address(0))
    shot(page, "node-lost")
    expect(page.locator("#state")).not_to_have_text("DOWN", timeout=SLOW_MS)
    draw(page, steps="5")
    expect(page.locator(".tile img:visible").first).to_be_visible()
